package alloc

import (
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/packing"
)

// packRounds bounds how often the cells are planned again at new prices.
const packRounds = 4

// enough is the gap from which on more effort is not worth its time.
const enough = 0.005

// nowhere is the place of a replica of a cell that found none.
const nowhere = -2

// pack looks for a plan of the replicas listed, ascending, who may all be placed. It
// returns a state of its own, which holds nobody else, with the bound that it found; nil
// where nothing came of it.
func (s *state) pack(who []int, stop func() bool) (best *state) {
	d := s.in.divide(who)
	if len(d.list) == 0 {
		return nil
	}
	at := make([]int, len(s.in.reps)) // environment by replica, -1 for a hub
	from := *s                        // with the prices of this round
	from.shadow = make([][resources]float64, len(s.in.envs))
	for e, hub := range d.hub {
		if hub && s.shadow != nil {
			from.shadow[e] = s.shadow[e]
		}
	}
	proof := 0.0
	for round := range packRounds {
		for i := range d.list {
			if round > 0 && !d.list[i].hubs {
				continue
			}
			if stop != nil && stop() || !from.planCell(d, i, at, round > 0) {
				return best
			}
		}
		t := from.join(d, who, at, stop)
		if t == nil {
			break
		}
		now, slack := from.proofOf(d), 0.0
		proof = max(proof, now)
		for i := range d.list {
			slack += d.list[i].slack
		}
		if best == nil || t.homeless(who) < best.homeless(who) || t.objective() < best.objective() {
			best = t
		}
		best.proof, best.cells, d.prices = proof, d, from.shadow
		from.shadow = t.shadow
		// What is missing and is not the cells' own is what better prices could give.
		if obj := t.objective(); t.homeless(who) == 0 && obj-now-slack <= enough/2*obj {
			break
		}
	}
	return best
}

// homeless is how many of those listed have no place.
func (s *state) homeless(who []int) int {
	n := 0
	for _, r := range who {
		if s.at[r] < 0 {
			n++
		}
	}
	return n
}

// planCell plans cell i. Where not everybody finds a place, those wait who do in s.
func (s *state) planCell(d *cells, i int, at []int, again bool) bool {
	c := &d.list[i]
	ok := s.tryCell(d, i, at, again)
	waits := func(r int) bool { return s.at[r] < 0 }
	if ok && slices.ContainsFunc(c.who, func(r int) bool { return at[r] == nowhere }) && slices.ContainsFunc(c.who, waits) {
		for _, r := range c.who {
			if waits(r) {
				at[r] = nowhere
			}
		}
		c.who = slices.DeleteFunc(slices.Clone(c.who), waits)
		ok = s.tryCell(d, i, at, false)
	}
	return ok
}

func (s *state) tryCell(d *cells, i int, at []int, again bool) bool {
	c := &d.list[i]
	p, envs, start := s.instance(c, d, true)
	o := packing.Options{Start: start}
	if again {
		o.Values = make([]float64, len(c.who))
		for x, r := range c.who {
			o.Values[x] = d.values[r]
			start[x] = slices.Index(envs, at[r])
		}
	}
	res, ok := packing.Solve(p, o)
	if !ok {
		return false
	}
	for x, r := range c.who {
		d.values[r] = res.Values[x]
		switch b := res.Assign[x]; {
		case b >= 0 && !d.hub[envs[b]]:
			at[r] = envs[b]
		case b >= 0 || p.Items[x].Wait > 0:
			at[r] = -1
		default:
			at[r] = nowhere
		}
	}
	c.bound = res.Bound
	c.slack = res.Objective - res.Bound
	if !s.free(d, c, envs) {
		if c.bound, ok = s.boundOf(d, i); !ok {
			c.bound = 0
		}
	}
	return true
}

// free says that neither moves nor roaming replicas stand between a plan and its bound.
func (s *state) free(d *cells, c *cell, envs []int) bool {
	if slices.ContainsFunc(c.who, func(r int) bool { return s.in.reps[r].move > 0 && s.in.reps[r].cur >= 0 }) {
		return false
	}
	return !slices.ContainsFunc(envs, func(e int) bool {
		return slices.ContainsFunc(s.on[e], func(r int) bool { return d.roam[r] })
	})
}

// boundOf is what the replicas of cell i cost at least, by their values.
func (s *state) boundOf(d *cells, i int) (float64, bool) {
	c := &d.list[i]
	p, _, _ := s.instance(c, d, false)
	values := make([]float64, len(c.who))
	for x, r := range c.who {
		values[x] = d.values[r]
	}
	return packing.Bound(p, values)
}

// fewStale is how many cells a repair can afford to compute new values for.
const fewStale = 4

// rebound computes the bound of cell i again, with new values or with those it has.
func (s *state) rebound(d *cells, i int, afresh bool) {
	c := &d.list[i]
	c.bound = 0
	if !afresh {
		if b, ok := s.boundOf(d, i); ok {
			c.bound = b
		}
		return
	}
	p, _, _ := s.instance(c, d, false)
	if res, ok := packing.Solve(p, packing.Options{Nodes: 1}); ok {
		c.bound = res.Bound
		for x, r := range c.who {
			d.values[r] = res.Values[x]
		}
	}
}

// reprove makes the proof that came with d one of s, where the environments listed have
// changed since and some of those who were placed wait. Those who had no place then and
// have one now do not matter: a bound without them holds all the more.
func (s *state) reprove(d *cells, changed []int) {
	s.proof, s.cells = 0, nil
	if d == nil {
		return
	}
	stale := make(map[int]bool)
	for _, e := range changed {
		switch closed := s.in.envs[e].Closed != ""; {
		case d.at[e] >= 0:
			stale[d.at[e]] = true
		case closed:
			// Who could go there costs no less than before.
		default: // perhaps new to some
			for r := range s.in.reps {
				if _, ok := s.in.find(r, e); !ok {
					continue
				}
				if i := d.of[r]; i >= 0 {
					stale[i] = true
				} else if !d.hub[e] && !d.roam[r] {
					return // it was taken to have no choice but hubs
				}
			}
		}
	}
	waits := func(r int) bool { return s.at[r] < 0 }
	for i := range d.list {
		if c := &d.list[i]; slices.ContainsFunc(c.who, waits) {
			c.who, stale[i] = slices.DeleteFunc(slices.Clone(c.who), waits), true
		}
	}
	d.rest = slices.DeleteFunc(d.rest, waits)
	for r := range d.roam {
		d.roam[r] = d.roam[r] && s.at[r] >= 0
	}
	view := *s
	view.shadow = d.prices
	for i := range stale {
		view.rebound(d, i, len(stale) <= fewStale)
	}
	s.proof, s.cells = view.proofOf(d), d
}
