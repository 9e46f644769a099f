package placement

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// An edge that is slower than its numbers is left in mode adaptive, once: what was
// measured there is remembered. In mode dynamic the model has the last word.
func TestAdaptiveLeavesWhatIsSlow(t *testing.T) {
	for mode, want := range map[messages.Mode]string{messages.Adaptive: "cloud", messages.Dynamic: "edge"} {
		w := newWorld(t, 3)
		w.desired.Settings.Mode = mode
		w.step(LinkUp{})
		w.add(environment("cloud", messages.Cloud, 1000, 1000, 50)).takes = 1
		edge := w.add(environment("edge", messages.Edge, 100, 100, 10))
		w.desire(inference())
		w.elect()
		w.run(20 * time.Second)
		if w.home("inference/0") != "edge" {
			t.Fatalf("mode %s: it is on %s", mode, w.home("inference/0"))
		}
		edge.takes = 80
		w.run(20 * time.Minute)
		if got := w.home("inference/0"); got != want || w.moves > 1 {
			t.Errorf("mode %s: it is on %s after %d moves, want %s", mode, got, w.moves, want)
		}
	}
}

// In mode adaptive a limit is held against what was measured, both ways.
func TestAdaptiveLimits(t *testing.T) {
	w := newWorld(t, 4)
	w.desired.Settings.Mode = messages.Adaptive
	w.step(LinkUp{})
	w.add(environment("cloud", messages.Cloud, 1000, 1000, 50)).takes = 1
	edge := w.add(environment("edge", messages.Edge, 100, 100, 10))
	task := inference()
	task.Limit = 60
	w.desire(task)
	w.elect()
	w.run(20 * time.Second)
	before := w.moves
	edge.takes = 55 // 65.1 ms, over the limit
	w.run(time.Minute)
	if got := w.home("inference/0"); got != "cloud" || w.moves != before+1 {
		t.Fatalf("it is on %s after %d moves more", got, w.moves-before)
	}
}

// A preferred tier that comes is moved to, if the task's own price of a move allows it.
func TestPreferenceAndMovePrice(t *testing.T) {
	penalty, dear := 60.0, 40.0 // the cloud is 40 ms farther
	for want, price := range map[string]*float64{"cloud": nil, "edge": &dear} {
		w := newWorld(t, 5)
		w.step(LinkUp{})
		w.add(environment("edge", messages.Edge, 100, 100, 10))
		task := inference()
		task.Prefer, task.MovePrice = &messages.Preference{Tiers: []messages.Tier{messages.Cloud}, Penalty: &penalty}, price
		w.desire(task)
		w.elect()
		w.run(20 * time.Second)
		w.add(environment("cloud", messages.Cloud, 1000, 1000, 50))
		w.run(time.Minute)
		if got := w.home("inference/0"); got != want {
			t.Errorf("it is on %s, want %s", got, want)
		}
	}
}

// A replica that became too slow is looked for a better place for; where there is none it
// goes on, says why, and is well again when it is fast again.
func TestSlowReplicaGoesOn(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	w.desired.Settings.Mode = messages.Adaptive
	a := w.add(environment("edge-0", messages.Edge, 100, 100, 10))
	task := inference()
	task.Limit = 200
	w.desire(task)
	w.elect()
	w.run(15 * time.Second)
	a.takes = 400
	for range 600 {
		w.run(100 * time.Millisecond)
		if s := w.served("inference"); s[0] != 1 {
			t.Fatalf("%v: it does not serve: %s", w.now.Sub(begin), w.m.replicas["inference/0"].why)
		}
	}
	r := w.m.replicas["inference/0"]
	if !r.waiting || !strings.Contains(r.why, "is over its limit of 200 ms") {
		t.Errorf("waiting %v: %s", r.waiting, r.why)
	}
	a.takes = 5
	w.run(5 * time.Minute)
	if r.waiting || w.moves != 0 {
		t.Errorf("it is fast again, and waits %v after %d moves: %s", r.waiting, w.moves, r.why)
	}
	a.takes = 400
	w.run(10 * time.Second)
	w.add(environment("edge-1", messages.Edge, 100, 100, 12)).takes = 5
	w.run(10 * time.Second)
	if on := w.home("inference/0"); on != "edge-1" {
		t.Errorf("it is on %s: %s", on, r.why)
	}
}
