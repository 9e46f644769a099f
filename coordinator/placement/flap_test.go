package placement

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// An agent whose process ends every two seconds: what it hosts is elsewhere after the
// third time, and does not come back before it was steady.
func TestFlappingAgentIsLeft(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	a := w.agents["edge-1"]
	for range 10 {
		a.kill()
		w.run(2 * time.Second)
		a.start()
		w.run(2 * time.Second)
	}
	if w.home("inference/0") != "edge-2" || w.moves != 1 {
		t.Fatalf("home %s, %d moves", w.home("inference/0"), w.moves)
	}
	if why := w.m.closed(w.m.agents["edge-1"]); !strings.Contains(why, "unsteady: it came and went") {
		t.Errorf("it is closed for %q", why)
	}
	w.agents["edge-2"].kill() // now there is only the one that flapped, and the cloud
	w.run(6 * time.Second)
	if w.home("inference/0") != "cloud" {
		t.Errorf("home %s: what flapped a moment ago is trusted", w.home("inference/0"))
	}
	w.run(10 * time.Minute)
	if w.m.agents["edge-1"].flaps != 0 || w.home("inference/0") != "edge-1" {
		t.Errorf("after ten steady minutes it has %d flaps, home %s", w.m.agents["edge-1"].flaps, w.home("inference/0"))
	}
}

// What can be nowhere else stays on an agent that flaps, and serves whenever it is there.
func TestFlappingRobotKeepsItsOwn(t *testing.T) {
	w := fleet(t, 4)
	w.run(20 * time.Second)
	a := w.agents["robot-00"]
	for range 8 {
		a.kill()
		w.run(2 * time.Second)
		a.start()
		w.run(2 * time.Second)
		if w.home("grip/robot-00") != "robot-00" || a.reps["grip/robot-00"] == nil || a.reps["grip/robot-00"].state != messages.ReplicaReady {
			t.Fatalf("%v: home %q, it runs %v", w.now.Sub(begin), w.home("grip/robot-00"), a.statuses())
		}
	}
	if !w.m.unsteady(w.m.agents["robot-00"]) {
		t.Error("it does not count as unsteady")
	}
}

// Where most of the fleet comes and goes it is the network, and nothing is fled from.
func TestTremorIsNobodysFault(t *testing.T) {
	w := fleet(t, 4)
	w.run(20 * time.Second)
	for range 8 {
		for _, id := range sorted(w.agents) {
			w.agents[id].kill()
		}
		w.run(time.Second)
		for _, id := range sorted(w.agents) {
			w.agents[id].start()
		}
		w.run(3 * time.Second)
	}
	if !w.m.tremor || w.m.unsteady(w.m.agents["robot-00"]) || w.m.closed(w.m.agents["robot-00"]) != "" {
		t.Fatalf("tremor %v, closed %q", w.m.tremor, w.m.closed(w.m.agents["robot-00"]))
	}
}

// What a router tells is evidence that a beat disproves, however often it tells it.
func TestUnreached(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(5 * time.Second)
	a := w.agents["edge-1"]
	for range 50 {
		w.step(Unreached{Agent: a.id, Inc: a.inc, By: "router-1"})
		w.run(100 * time.Millisecond)
	}
	if s := w.m.agents["edge-1"].state; s != messages.AgentReady || w.moves != 0 {
		t.Fatalf("a living agent is %s after false reports, %d moves", s, w.moves)
	}
	a.kill()
	w.run(50 * time.Millisecond)
	w.step(Unreached{Agent: a.id, Inc: messages.Incarnation{Epoch: 1, Revision: 999}, By: "router-1"}) // not this one
	w.step(Unreached{Agent: a.id, Inc: a.inc, By: "router-1"})
	w.run(1500 * time.Millisecond)
	if s := w.m.agents["edge-1"].state; s != messages.AgentLost || w.home("inference/0") == "edge-1" {
		t.Fatalf("a dead agent is %s, home %s", s, w.home("inference/0"))
	}
	if why := w.m.agents["edge-1"].why; why != "nobody answers there, says router-1, and no beat came after it" {
		t.Errorf("why: %s", why)
	}
}

// A shell's timer that is a moment early must not be the last one.
func TestEarlyTick(t *testing.T) {
	m := New(Calm{})
	wake := begin
	for i := range 5 {
		var next time.Time
		for _, e := range m.Step(wake.Add(-time.Nanosecond), Tick{}) {
			if w, ok := e.(WakeAt); ok {
				next = w.At
			}
		}
		if next.IsZero() {
			t.Fatalf("after Tick %d nobody wakes it again", i)
		}
		wake = next
	}
}

// Connections that are closed make nobody unsteady who beats all the same: whoever gave
// himself the agent's name could take its placements away.
func TestClosedConnectionsAloneAreNoFlaps(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	on := w.home("inference/0")
	a := w.agents[on]
	for range 10 {
		w.step(ConnClosed{a.id, a.inc})
		w.run(5 * time.Second)
	}
	if why := w.m.closed(w.m.agents[on]); why != "" || w.moves != 0 {
		t.Fatalf("%s is %s; %d moves", on, why, w.moves)
	}
	for range 4 { // with a gap in the beats they are
		w.step(ConnClosed{a.id, a.inc})
		a.cut = true
		w.run(2100 * time.Millisecond)
		a.cut = false
		w.run(3 * time.Second)
	}
	if w.home("inference/0") == on {
		t.Errorf("it is still on %s, which comes and goes", on)
	}
}
