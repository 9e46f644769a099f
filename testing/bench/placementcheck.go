package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// verdict is what a plan amounts to. It is recomputed from the problem, by formulas
// written down here anew; nothing of the engine is used.
type verdict struct {
	score  float64
	used   float64 // part of the scarcest resource that is used, in the site of edges and robots where that is least
	faults []string
}

// full reports whether everything is placed and every constraint kept.
func (v verdict) full() bool { return len(v.faults) == 0 }

// rounding is what sums of float64 may be off by, relative: what agents forgive too.
const rounding = 1e-9

// inspect recomputes a plan: the environment by replica. A replica without one is a fault.
func inspect(p alloc.Problem, plan map[string]string) verdict {
	var v verdict
	fault := func(format string, args ...any) { v.faults = append(v.faults, fmt.Sprintf(format, args...)) }
	envs := make(map[string]alloc.Environment, len(p.Environments))
	for _, e := range p.Environments {
		envs[e.ID] = e
	}
	load := make(map[string]messages.Resources)
	known := make(map[string]bool, len(p.Replicas))
	held := make(map[[2]string]bool)
	var delay, cost float64
	for _, r := range p.Replicas {
		known[r.ID] = true
		id, ok := plan[r.ID]
		if !ok {
			fault("replica %s has no place", r.ID)
			continue
		}
		e, ok := envs[id]
		if !ok {
			fault("replica %s is on %q, which does not exist", r.ID, id)
			continue
		}
		if why := forbidden(r, e); why != "" {
			fault("replica %s may not be on %s: %s", r.ID, id, why)
		}
		d := delayOf(r.Task, e.Environment)
		if r.Task.Limit > 0 && !(d <= r.Task.Limit*(1+rounding)) {
			fault("replica %s takes %v ms on %s; its limit is %v ms", r.ID, d, id, r.Task.Limit)
		}
		key := [2]string{r.Task.Name, id}
		if held[key] && !r.Task.Colocate {
			fault("two replicas of %s are on %s", r.Task.Name, id)
		}
		held[key] = true
		delay += d
		cost += r.Task.Cost
		if e.Billing != messages.Whole && r.Task.Demand.Compute > 0 {
			cost += e.Price * r.Task.Demand.Compute / e.Capacity.Compute
		}
		load[id] = load[id].Add(r.Task.Demand)
	}
	for r := range plan {
		if !known[r] {
			fault("replica %s is placed and does not exist", r)
		}
	}
	used, have := make(map[string]messages.Resources), make(map[string]messages.Resources)
	for _, e := range p.Environments {
		l, any := load[e.ID]
		room := e.Capacity.Scale(1 - p.Settings.Reserve).Sub(e.Foreign)
		for k, need := range amounts(l) {
			if c := amounts(room)[k]; any && need > c+rounding*max(1, amounts(e.Capacity)[k]) {
				fault("%s holds %v of resource %d; it has %v", e.ID, need, k, c)
			}
		}
		if any && e.Billing == messages.Whole {
			cost += e.Price
		}
		if e.Closed == "" && e.Tier != messages.Cloud {
			used[e.Site] = used[e.Site].Add(l)
			have[e.Site] = have[e.Site].Add(room)
		}
	}
	v.used = 1
	for site := range have {
		share := 0.0
		for k, c := range amounts(have[site]) {
			if c > 0 {
				share = max(share, amounts(used[site])[k]/c)
			}
		}
		v.used = min(v.used, share)
	}
	v.score = p.Settings.WeightLatency*delay + p.Settings.WeightCost*cost
	slices.Sort(v.faults)
	return v
}

// forbidden says what keeps the replica off the environment apart from amounts.
func forbidden(r alloc.Replica, e alloc.Environment) string {
	t := r.Task
	switch {
	case e.Closed != "":
		return e.Closed
	case r.Pin != "" && r.Pin != e.ID, t.Robot != "" && t.Robot != e.ID:
		return "it is pinned to another"
	case r.Site != "" && r.Site != e.Site, len(t.Sites) > 0 && !slices.Contains(t.Sites, e.Site):
		return "site"
	case len(t.Tiers) > 0 && !slices.Contains(t.Tiers, e.Tier):
		return "tier"
	}
	for key, want := range t.Labels {
		if e.Labels[key] != want {
			return "label " + key
		}
	}
	name := t.Handler
	if name == "" {
		name = t.Name
	}
	if !e.Offline && !slices.Contains(e.Handlers, name) && !slices.Contains(e.Handlers, messages.AnyHandler) {
		return "handler"
	}
	return ""
}

// delayOf is the modelled delay of one request, ms.
func delayOf(t messages.Task, e messages.Environment) float64 {
	per := func(what, speed float64) float64 {
		if what == 0 {
			return 0
		}
		if speed == 0 {
			return math.Inf(1)
		}
		return what / speed
	}
	return per(t.WorkGFLOP(), e.Capacity.Compute) + per(t.TransferKbit(), e.Capacity.Network) + e.Latency
}
