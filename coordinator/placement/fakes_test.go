package placement

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// fakeAgent behaves as an agent does: it registers, beats, applies newer documents,
// loads and drains.
type fakeAgent struct {
	w        *world
	id       string
	env      messages.Environment
	inc      messages.Incarnation
	up       bool // its process runs
	cut      bool // its link is cut
	deaf     bool // it does not hear its documents
	draining bool
	life     int // of the process; timers of an earlier one do nothing

	seq     uint64
	term    messages.Term
	rev     uint64
	reps    map[string]*fakeReplica
	foreign messages.Resources
	dataAge float64
	done    float64 // of what it fetches

	load   time.Duration      // that a replica takes to get ready
	slow   bool               // it says how far it is while it loads
	drain  time.Duration      // that it takes to finish
	fails  map[string]bool    // tasks that do not get ready here
	broken map[string]bool    // handlers that do not
	rate   map[string]float64 // requests per second, by replica
	takes  float64            // ms of service of a request; 0: none is served
}

type fakeReplica struct {
	placed messages.PlacedReplica
	state  messages.ReplicaState
}

func environment(id string, tier messages.Tier, compute, network, latency float64) messages.Environment {
	return messages.Environment{ID: id, Tier: tier, Latency: latency, Handlers: []string{messages.AnyHandler},
		Capacity: messages.Resources{Compute: compute, Storage: 10 * compute, Network: network}}
}

// add registers an agent and starts it.
func (w *world) add(env messages.Environment) *fakeAgent {
	a := &fakeAgent{w: w, id: env.ID, env: env.Normal(), load: 200 * time.Millisecond, drain: 100 * time.Millisecond,
		fails: map[string]bool{}, rate: map[string]float64{}}
	w.agents[env.ID] = a
	a.start()
	return a
}

func (a *fakeAgent) listens() bool { return a.up && !a.deaf }

// start begins a new incarnation: register, read the own document, beat.
func (a *fakeAgent) start() {
	a.life++
	a.w.incs++
	a.up, a.draining, a.seq, a.dataAge = true, false, 0, 0
	a.inc = messages.Incarnation{Epoch: 1, Revision: a.w.incs}
	a.term, a.rev, a.reps = messages.Term{}, 0, map[string]*fakeReplica{}
	inc, env := a.inc, a.env
	a.w.in(a.w.latency(), func() {
		a.w.step(Registered{Registration: messages.Registration{Environment: env}, Inc: inc})
	})
	if doc, ok := a.w.store[a.id]; ok && !inc.Before(doc.Inc) {
		a.apply(doc)
	}
	a.later(20*time.Millisecond, a.beats)
}

func (a *fakeAgent) later(d time.Duration, do func()) {
	life := a.life
	a.w.in(d, func() {
		if a.up && a.life == life {
			do()
		}
	})
}

func (a *fakeAgent) kill() { a.up = false; a.life++ }

func (a *fakeAgent) beats() {
	a.beat()
	splay := time.Duration(a.w.rng.Int63n(int64(200 * time.Millisecond)))
	a.later(900*time.Millisecond+splay, a.beats)
}

func (a *fakeAgent) beat() {
	a.seq++
	hb := messages.Heartbeat{Agent: a.id, Inc: a.inc, Seq: a.seq, State: messages.AgentReady, Capacity: a.env.Capacity,
		Foreign: a.foreign, Term: a.term, Rev: a.rev, DataAge: a.dataAge, Replicas: a.statuses()}
	if a.draining {
		hb.State = messages.AgentDraining
	}
	if !a.cut {
		a.w.net(func() { a.w.step(Heartbeat{hb}) })
	}
}

func (a *fakeAgent) statuses() []messages.ReplicaStatus {
	var out []messages.ReplicaStatus
	for _, id := range sorted(a.reps) {
		out = append(out, messages.ReplicaStatus{ID: id, State: a.reps[id].state, Rate: a.rate[id]})
		if st := &out[len(out)-1]; a.slow && st.State == messages.ReplicaLoading {
			a.done = min(1, a.done+1e-6)
			st.Done = a.done
		}
		if st := &out[len(out)-1]; a.takes > 0 && st.State == messages.ReplicaReady {
			st.Served, st.Latency = 100, a.takes
		}
	}
	return out
}

func (a *fakeAgent) apply(doc messages.Placement) messages.PlacementAck {
	ack := messages.PlacementAck{Agent: a.id, Inc: a.inc}
	if a.inc.Before(doc.Inc) {
		a.kill() // superseded
	} else if !doc.Newer(a.term, a.rev) {
		ack.Error = "it is not newer"
	} else {
		a.term, a.rev = doc.Term, doc.Rev
		want := map[string]bool{}
		for _, p := range doc.Replicas {
			want[p.ID] = true
			r := a.reps[p.ID]
			switch {
			case p.Drain && r == nil:
				a.reps[p.ID] = &fakeReplica{p, messages.ReplicaStopped}
			case p.Drain:
				r.placed = p
				a.stop(p.ID, r)
			case r == nil || r.placed.Drain || r.state == messages.ReplicaStopped || r.state == messages.ReplicaDraining:
				a.open(p)
			case !sameService(r.placed.Task, p.Task):
				a.stop(p.ID, r)
			default:
				r.placed = p
			}
		}
		for _, id := range sorted(a.reps) {
			if !want[id] {
				a.stop(id, a.reps[id])
			}
		}
	}
	ack.Term, ack.Rev, ack.Replicas = a.term, a.rev, a.statuses()
	return ack
}

func (a *fakeAgent) open(p messages.PlacedReplica) {
	r := &fakeReplica{p, messages.ReplicaLoading}
	a.reps[p.ID] = r
	a.later(a.load, func() { a.loaded(r) })
}

func (a *fakeAgent) loaded(r *fakeReplica) {
	if a.reps[r.placed.ID] != r || r.state != messages.ReplicaLoading && r.state != messages.ReplicaFailed {
		return
	}
	if a.fails[r.placed.Task.Name] || a.broken[r.placed.Task.HandlerName()] {
		r.state = messages.ReplicaFailed
		a.later(time.Second, func() { // its own back-off
			if a.reps[r.placed.ID] == r && r.state == messages.ReplicaFailed {
				r.state = messages.ReplicaLoading
				a.beat()
				a.later(a.load, func() { a.loaded(r) })
			}
		})
	} else {
		r.state = messages.ReplicaReady
	}
	a.beat()
}

func (a *fakeAgent) stop(id string, r *fakeReplica) {
	if r.state == messages.ReplicaDraining || r.state == messages.ReplicaStopped {
		if r.state == messages.ReplicaStopped && !r.placed.Drain {
			delete(a.reps, id)
		}
		return
	}
	r.state = messages.ReplicaDraining
	a.later(a.drain, func() {
		if a.reps[id] == r {
			r.state = messages.ReplicaStopped
			if doc := a.w.store[a.id]; doc.Term == a.term && doc.Rev == a.rev {
				for _, p := range doc.Replicas {
					if p.ID == id && !p.Drain && !a.draining {
						a.open(p)
					}
				}
			}
			a.beat()
		}
	})
}

// leave is SIGTERM: the agent drains, waits for an empty document for 3 s, says
// goodbye and ends.
func (a *fakeAgent) leave() {
	if a.draining {
		return
	}
	a.draining = true
	a.beat()
	a.later(3*time.Second, func() {
		for _, id := range sorted(a.reps) {
			a.stop(id, a.reps[id])
		}
		a.later(a.drain+10*time.Millisecond, func() {
			g := messages.Goodbye{Agent: a.id, Inc: a.inc, Reason: "drained"}
			if !a.cut {
				a.w.net(func() { a.w.step(Goodbye{g}) })
			}
			a.kill()
		})
	})
}
