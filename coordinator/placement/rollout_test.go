package placement

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// served counts the replicas of a task that serve, by the concurrency of their version.
func (w *world) served(task string) map[int]int {
	out := map[int]int{}
	for _, id := range sorted(w.agents) {
		for _, r := range w.agents[id].reps {
			if w.agents[id].up && r.placed.Task.Name == task && r.state == messages.ReplicaReady {
				out[r.placed.Task.Concurrency]++
			}
		}
	}
	return out
}

// version is the inference as three replicas, in one of its versions.
func version(n int) messages.Task {
	t := inference()
	t.Replicas, t.Concurrency, t.Revision = 3, n, uint64(100+n)
	return t
}

func edges(w *world, n int) {
	w.step(LinkUp{})
	for i := range n {
		w.add(environment(fmt.Sprint("edge-", i), messages.Edge, 100, 100, 10))
	}
	w.desire(version(1))
	w.elect()
	w.run(15 * time.Second)
}

// A new version goes from replica to replica, each ready elsewhere before the old one
// stops: there are never less than three that serve, nor more than one on its way.
func TestRollingUpdate(t *testing.T) {
	w := newWorld(t, 1)
	edges(w, 4)
	w.desire(version(2))
	for range 1000 {
		w.run(50 * time.Millisecond)
		if s := w.served("inference"); s[1]+s[2] < 3 {
			t.Fatalf("%v: only %v serve", w.now.Sub(begin), s)
		}
		moving := 0
		for _, r := range w.m.replicas {
			if r.next != nil || r.updating {
				moving++
			}
		}
		if moving > 1 {
			t.Fatalf("%d are on their way at once", moving)
		}
	}
	if s := w.served("inference"); s[2] != 3 || s[1] != 0 || len(w.m.rollouts) != 0 {
		t.Fatalf("in the end %v serve, %d rollouts", s, len(w.m.rollouts))
	}
}

// What only the planner reads is no update: nothing is opened anew, nothing moves.
func TestChangeForThePlannerRestartsNothing(t *testing.T) {
	w := newWorld(t, 1)
	edges(w, 4)
	changed := version(1)
	changed.Priority, changed.Limit, changed.Revision = 3, 500, 200
	w.desire(changed)
	for range 50 {
		w.run(50 * time.Millisecond)
		if s := w.served("inference"); s[1] != 3 {
			t.Fatalf("%v serve", s)
		}
	}
	if w.moves != 0 || w.m.docs[w.home("inference/0")].doc.Replicas[0].Task.Priority != 3 {
		t.Fatalf("%d moves, or the documents do not say it", w.moves)
	}
}

// A version that fails is tried a few times and given up; the old one serves on, and what
// must be placed anew gets the old one too. The old version, applied again, ends it.
func TestBadVersionIsGivenUp(t *testing.T) {
	w := newWorld(t, 1)
	edges(w, 4)
	bad := version(2)
	bad.Handler = "bad"
	for _, a := range w.agents {
		a.broken = map[string]bool{"bad": true}
	}
	w.desire(bad)
	for range 600 {
		w.run(50 * time.Millisecond)
		if s := w.served("inference"); s[1] < 3 {
			t.Fatalf("%v: only %v serve", w.now.Sub(begin), s)
		}
	}
	ro := w.m.rollouts["inference"]
	if ro == nil || ro.paused == "" || ro.fails != w.m.calm.FailLimit {
		t.Fatalf("rollout %+v", ro)
	}
	if why := w.m.Routes().Tasks[0].Waiting; !strings.Contains(why, "its update is paused: the new version failed 3 times") {
		t.Errorf("clients are told %q", why)
	}
	lost := w.home("inference/0")
	w.agents[lost].kill()
	w.run(10 * time.Second)
	if s := w.served("inference"); s[1] != 3 || w.home("inference/0") == lost {
		t.Fatalf("after %s died %v serve", lost, s)
	}
	w.desire(version(1))
	w.run(5 * time.Second)
	if len(w.m.rollouts) != 0 {
		t.Fatalf("the old version was applied: %+v", w.m.rollouts["inference"])
	}
}

// Old and new do not both fit on the only box: then it depends on the task.
func TestUpdateWithoutRoomForBoth(t *testing.T) {
	for _, c := range []struct {
		name      string
		interrupt messages.Interrupt
		pinned    bool
		goes      bool
	}{
		{"may pause", messages.InterruptAllow, false, true},
		{"may not, by default", messages.InterruptPinned, false, false},
		{"pinned, by default", messages.InterruptPinned, true, true},
		{"pinned, never", messages.InterruptNever, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.step(LinkUp{})
			w.add(environment("edge-0", messages.Edge, 100, 100, 10))
			task := func(n int) messages.Task {
				v := version(n)
				v.Replicas, v.Interrupt = 1, c.interrupt
				if c.pinned {
					v.Robot = "edge-0"
				}
				return v
			}
			w.desire(task(1))
			w.elect()
			w.run(15 * time.Second)
			w.desire(task(2))
			w.run(15 * time.Second)
			r := w.m.replicas["inference/0"]
			if s := w.served("inference"); c.goes && s[2] != 1 || !c.goes && s[1] != 1 {
				t.Fatalf("%v serve: %s", s, r.why)
			}
			if !c.goes && (!r.waiting || !strings.Contains(r.why, "`interrupt: allow` lets it")) {
				t.Fatalf("waiting %v: %s", r.waiting, r.why)
			}
			before := w.effects
			w.run(time.Minute)
			if w.effects != before {
				t.Errorf("%d effects while nothing can go on", w.effects-before)
			}
			if !c.goes { // another box comes: then there is room for both
				w.add(environment("edge-1", messages.Edge, 100, 100, 20))
				w.run(5 * time.Second)
				if s := w.served("inference"); !c.pinned && s[2] != 1 {
					t.Errorf("with another box %v serve: %s", s, r.why)
				}
			}
		})
	}
}

// A pinned replica whose new version fails in place goes back to the old one.
func TestBadVersionInPlaceGoesBack(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	a := w.add(environment("robot-1", messages.Robot, 10, 100, 1))
	grip := messages.Task{Name: "grip", Class: messages.Action, Per: messages.PerRobot, Demand: messages.Resources{Compute: 1}}
	w.desire(grip)
	w.elect()
	w.run(10 * time.Second)
	bad := grip
	bad.Handler = "bad"
	a.broken = map[string]bool{"bad": true}
	w.desire(bad)
	w.run(30 * time.Second)
	if r := a.reps["grip/robot-1"]; r.state != messages.ReplicaReady || r.placed.Task.Handler == "bad" {
		t.Fatalf("it is %s with handler %q", r.state, r.placed.Task.HandlerName())
	}
	if ro := w.m.rollouts["grip"]; ro == nil || ro.paused == "" {
		t.Fatalf("rollout %+v", ro)
	}
}

// A new leader goes on with the update that the one before had begun.
func TestUpdateGoesOnAfterAnElection(t *testing.T) {
	w := newWorld(t, 1)
	edges(w, 4)
	w.desire(version(2))
	w.run(400 * time.Millisecond)
	w.depose()
	w.m, w.wake = New(Calm{}), w.wake+1
	w.step(LinkUp{})
	for _, id := range sorted(w.agents) {
		w.step(Registered{messages.Registration{Environment: w.agents[id].env}, w.agents[id].inc})
	}
	w.step(w.desired)
	w.elect()
	for range 1000 {
		w.run(50 * time.Millisecond)
		if s := w.served("inference"); s[1]+s[2] < 3 {
			t.Fatalf("%v: only %v serve", w.now.Sub(begin), s)
		}
	}
	if s := w.served("inference"); s[2] != 3 {
		t.Fatalf("%v serve", s)
	}
}
