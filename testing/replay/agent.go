package main

import (
	"maps"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
)

// agent speaks for one machine: it runs what its document lists, and beats.
type agent struct {
	w    *world
	env  messages.Environment
	box  *box
	up   bool
	inc  messages.Incarnation
	seq  uint64
	doc  *messages.Placement
	reps map[string]*replica

	slow, foreign float64
	watchers      map[int]*flight // requests that probe it
	missed        bool            // a probe has found that nobody is there
}

// loading is what a replica takes to get ready: a model of some gigabytes from a disk.
const loading = 5 * time.Second

// Probes are answered every 20 ms or so; that nobody is there is found after half of it.
const probed = 10 * time.Millisecond

func (w *world) addAgent(e messages.Environment) *agent {
	a := &agent{w: w, env: e, slow: 1, watchers: make(map[int]*flight), box: &box{c: &w.clock}}
	w.agents = append(w.agents, a)
	w.byID[e.ID] = a
	return a
}

// start begins a life of the agent: it registers, reads its own document and beats.
func (a *agent) start() {
	a.w.revision++
	a.missed = false
	a.up, a.seq, a.inc, a.reps = true, 0, messages.Incarnation{Epoch: 1, Revision: a.w.revision}, make(map[string]*replica)
	a.reckon()
	a.w.control.step(placement.Registered{Registration: messages.Registration{Environment: a.env}, Inc: a.inc})
	a.doc = nil
	if doc, ok := a.w.control.docs[a.env.ID]; ok {
		a.apply(doc)
	}
	inc := a.inc
	var beats func()
	beats = func() {
		if a.up && a.inc == inc {
			a.beat()
			a.w.in(900*time.Millisecond+time.Duration(a.w.rng.Int64N(int64(200*time.Millisecond))), beats)
		}
	}
	a.w.in(time.Duration(a.w.rng.Int64N(int64(time.Second))), beats)
}

// stop switches the machine off. Clients find out by their probes, the server by its ack
// waits, the coordinator by the beats that do not come and by what clients tell it.
func (a *agent) stop() {
	a.up = false
	for _, id := range slices.Sorted(maps.Keys(a.reps)) {
		r := a.reps[id]
		r.queue().withdraw(r)
		r.gone = true
		for _, e := range slices.Clone(r.runs) {
			a.box.drop(e.job)
			e.end(killed)
			if e.m != nil {
				e.m.died()
			}
		}
	}
	a.reps = nil
	a.reckon()
	inc := a.inc
	for _, id := range slices.Sorted(maps.Keys(a.watchers)) {
		a.lost(a.watchers[id], inc)
	}
}

// lost lets a request find out that the agent it watches has no connection.
func (a *agent) lost(f *flight, inc messages.Incarnation) {
	a.w.in(probed, func() {
		if a.watchers[f.id] == f {
			a.missed = !a.up
			a.w.control.step(placement.Unreached{Agent: a.env.ID, Inc: inc, By: f.c.name})
			f.step(route.Event{Kind: route.HolderLost, Agent: a.env.ID, Inc: inc}, 0)
		}
	})
}

// reckon sets what the machine really has for us.
func (a *agent) reckon() {
	speed := 0.0
	if a.up {
		speed = max(0, a.env.Capacity.Compute*a.slow-a.foreign)
	}
	a.box.setSpeed(speed)
}

// transfer is how long the body of a request takes to it.
func (a *agent) transfer(f *flight) time.Duration {
	return messages.Millis(f.kbit / a.env.Capacity.Network)
}

// apply takes a document, as agent.reconcile does.
func (a *agent) apply(doc messages.Placement) messages.PlacementAck {
	if a.doc == nil || doc.Newer(a.doc.Term, a.doc.Rev) {
		a.doc = &doc
		want := make(map[string]bool)
		for _, p := range doc.Replicas {
			want[p.ID] = true
			switch r := a.reps[p.ID]; {
			case r == nil && !p.Drain:
				a.open(p)
			case r != nil && p.Drain:
				a.close(r)
			case r != nil && !r.stopping:
				r.placed = p
			case r != nil && r.state == messages.ReplicaStopped:
				a.open(p)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(a.reps)) {
			if r := a.reps[id]; !want[id] {
				a.close(r)
				a.settled(r)
			}
		}
	}
	return messages.PlacementAck{Agent: a.env.ID, Inc: a.inc, Term: a.doc.Term, Rev: a.doc.Rev, Replicas: a.statuses()}
}

func (a *agent) open(p messages.PlacedReplica) {
	r := &replica{w: a.w, a: a, placed: p, state: messages.ReplicaLoading, at: a.w.now}
	a.reps[p.ID] = r
	a.w.in(loading, func() {
		if r.gone || r.stopping {
			return
		}
		r.state = messages.ReplicaReady
		a.beat()
		r.pull()
	})
}

// close lets a replica finish what it has.
func (a *agent) close(r *replica) {
	if !r.stopping {
		r.queue().withdraw(r)
		r.stopping = true
		a.settled(r)
	}
}

// settled notes that a replica that is to stop has nothing left.
func (a *agent) settled(r *replica) {
	if !r.stopping || r.gone || len(r.runs) > 0 {
		return
	}
	if r.state != messages.ReplicaStopped {
		r.state = messages.ReplicaStopped
		a.w.in(0, a.beat)
	}
	i := slices.IndexFunc(a.doc.Replicas, func(p messages.PlacedReplica) bool { return p.ID == r.placed.ID })
	switch {
	case a.reps[r.placed.ID] != r:
	case i < 0:
		delete(a.reps, r.placed.ID)
	case !a.doc.Replicas[i].Drain: // it was placed here again meanwhile
		a.open(a.doc.Replicas[i])
	}
}

func (a *agent) statuses() (out []messages.ReplicaStatus) {
	for _, id := range slices.Sorted(maps.Keys(a.reps)) {
		out = append(out, a.reps[id].status())
	}
	if a.doc != nil {
		for _, p := range a.doc.Replicas {
			if p.Drain && a.reps[p.ID] == nil {
				out = append(out, messages.ReplicaStatus{ID: p.ID, State: messages.ReplicaStopped})
			}
		}
	}
	slices.SortFunc(out, func(x, y messages.ReplicaStatus) int {
		if x.ID < y.ID {
			return -1
		}
		return 1
	})
	return out
}

func (a *agent) beat() {
	if !a.up {
		return
	}
	a.seq++
	hb := messages.Heartbeat{Agent: a.env.ID, Inc: a.inc, Seq: a.seq, State: messages.AgentReady, Capacity: a.env.Capacity,
		Foreign: messages.Resources{Compute: a.foreign}, RTT: a.env.Latency, Replicas: a.statuses()}
	if a.doc != nil {
		hb.Term, hb.Rev = a.doc.Term, a.doc.Rev
	}
	a.w.in(messages.Millis(a.env.Latency/2), func() { a.w.control.step(placement.Heartbeat{Heartbeat: hb}) })
}

// direct takes a request that comes straight from a client: any of the replicas here that
// has a slot serves it.
func (a *agent) direct(f *flight, attempt int) *messages.Error {
	err := messages.Errorf(messages.CodeNotPlaced, "task %q is not placed on agent %q", f.task, a.env.ID)
	for _, id := range slices.Sorted(maps.Keys(a.reps)) {
		if r := a.reps[id]; r.placed.Task.Name == f.task && r.open() {
			if err = r.direct(f, attempt); err == nil {
				return nil
			}
		}
	}
	return err
}

// executionsOf are the executions of a request.
func (a *agent) executionsOf(f *flight) (out []*execution) {
	for _, id := range slices.Sorted(maps.Keys(a.reps)) {
		for _, e := range a.reps[id].runs {
			if e.f == f {
				out = append(out, e)
			}
		}
	}
	return out
}
