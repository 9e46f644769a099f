package placement

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// An agent comes back on a larger machine, and its first beat overtakes the watcher that
// brings its registration: what waited for room is placed all the same.
func TestRegistrationAfterTheBeatIsPlanned(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	a := w.add(environment("edge-1", messages.Edge, 10, 10, 1))
	w.desire(messages.Task{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 20}})
	w.elect()
	w.run(3 * time.Second)
	if w.home("see/0") != "" {
		t.Fatal("it fits already")
	}
	a.kill()
	w.incs++
	a.up, a.seq, a.inc = true, 0, messages.Incarnation{Epoch: 1, Revision: w.incs}
	a.env = environment("edge-1", messages.Edge, 100, 100, 1).Normal()
	a.beats()
	w.in(500*time.Millisecond, func() {
		w.step(Registered{messages.Registration{Environment: a.env}, a.inc})
	})
	w.run(20 * time.Second)
	if w.home("see/0") != "edge-1" {
		t.Fatalf("it waits although there is room now: %s", w.m.replicas["see/0"].why)
	}
}

// A coordinator is elected before it heard one beat, as after a hand-over or a restart:
// clients may only send to what is ready, so what the routes said goes on being routed
// until a beat says otherwise.
func TestElectionBeforeTheFirstBeat(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	takeOver := func() {
		w.depose()
		w.m, w.wake = New(Calm{}), w.wake+1 // another process
		w.step(LinkUp{})
		for _, id := range sorted(w.agents) {
			w.step(Registered{messages.Registration{Environment: w.agents[id].env}, w.agents[id].inc})
		}
		w.step(w.desired)
		w.elect()
	}
	state := func() (out messages.ReplicaState) {
		for _, r := range w.sent.Tasks[0].Replicas {
			out = r.State
		}
		return out
	}
	takeOver()
	for range 200 {
		w.run(10 * time.Millisecond)
		if state() != messages.ReplicaReady {
			t.Fatalf("%v after the election it is routed as %q", w.now.Sub(begin), state())
		}
	}
	// The agent that is routed died with the coordinator before: three beats later it is left.
	w.agents["edge-1"].kill()
	takeOver()
	w.run(10 * time.Second)
	if w.home("inference/0") != "edge-2" || state() != messages.ReplicaReady {
		t.Fatalf("home %s, state %s", w.home("inference/0"), state())
	}
}

// The server lost everything, and an agent connects after the first plan: what it serves
// stays there if it is wanted, and is stopped if it is not.
func TestStrayWithoutDocument(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	a := w.add(environment("edge-1", messages.Edge, 100, 100, 10))
	w.desire(inference())
	w.elect()
	w.run(3 * time.Second)
	for _, wanted := range []bool{true, false} {
		w.depose()
		clear(w.store)
		w.routes = nil
		w.m, w.wake = New(Calm{}), w.wake+1
		w.step(LinkUp{})
		if !wanted {
			w.desired.Tasks = nil
		}
		w.step(w.desired)
		w.elect()
		w.step(Registered{messages.Registration{Environment: a.env}, a.inc})
		opened := a.reps["inference/0"]
		w.run(3 * time.Second)
		if wanted && (w.home("inference/0") != "edge-1" || a.reps["inference/0"] != opened || opened.state != messages.ReplicaReady) {
			t.Fatalf("it is wanted; home %q, it runs %v", w.home("inference/0"), a.statuses())
		}
		if !wanted && a.reps["inference/0"].state != messages.ReplicaStopped {
			t.Fatalf("it is not wanted; it runs %v", a.statuses())
		}
	}
}
