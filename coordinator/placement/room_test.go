package placement

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// An agent that was away comes back with what is no longer its own, of a task that is now
// said to take less: nothing comes beside it before it has stopped.
func TestNothingComesBesideStrays(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	away := w.agents["edge-1"]
	away.drain = 8 * time.Second
	away.cut = true
	w.run(6 * time.Second)
	if w.home("inference/0") != "edge-2" {
		t.Fatal("it did not move")
	}
	less := inference()
	less.Demand.Compute, less.Transfer, less.Work = 1, float(10), float(10)
	other := messages.Task{Name: "other", Class: messages.Inference, Demand: messages.Resources{Compute: 95}, Limit: 40, Work: float(10)}
	w.agents["edge-2"].foreign = messages.Resources{Compute: 50}
	w.run(2 * time.Second)
	w.desire(less, other)
	away.cut = false
	w.run(4 * time.Second)
	if why := w.m.replicas["other/0"].why; w.home("other/0") != "" || !strings.Contains(why, "busy: it has yet to stop") {
		t.Fatalf("it came to %q: %s", w.home("other/0"), why)
	}
	w.run(10 * time.Second)
	if w.home("other/0") != "edge-1" {
		t.Fatalf("what it had is stopped, and it waits: %s", w.m.replicas["other/0"].why)
	}
}

// A version that takes less is counted as the old one until that has stopped.
func TestReplacedVersionCountsUntilItHasStopped(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	a := w.add(environment("edge-1", messages.Edge, 100, 100, 10))
	a.drain = 5 * time.Second
	first := messages.Task{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 80}, Interrupt: messages.InterruptAllow}
	w.desire(first)
	w.elect()
	w.run(12 * time.Second)
	second := first
	second.Demand.Compute, second.Concurrency = 20, 2
	other := messages.Task{Name: "other", Class: messages.Inference, Demand: messages.Resources{Compute: 70}}
	w.desire(second, other)
	w.run(3 * time.Second)
	if w.home("other/0") != "" {
		t.Fatal("it came beside the old version, which drains")
	}
	w.run(6 * time.Second)
	if w.home("other/0") != "edge-1" || w.served("see")[2] != 1 {
		t.Fatalf("other on %q, see serves %v", w.home("other/0"), w.served("see"))
	}
}

// Two have to change places to make room for a third, and neither can go first: the one
// whose task may pause stops.
func TestBreakBeforeMake(t *testing.T) {
	for _, interrupt := range []messages.Interrupt{messages.InterruptPinned, messages.InterruptAllow} {
		w := newWorld(t, 1)
		w.step(LinkUp{})
		special := environment("edge-2", messages.Edge, 70, 1000, 10)
		special.Labels = map[string]string{"camera": "yes"}
		w.add(environment("edge-1", messages.Edge, 80, 1000, 11))
		w.add(special)
		task := func(name string, compute float64) messages.Task {
			return messages.Task{Name: name, Class: messages.Inference, Demand: messages.Resources{Compute: compute}, Work: float(10), Transfer: float(10)}
		}
		a, b, c := task("a", 30), task("b", 60), task("c", 40)
		a.Robot, b.Interrupt = "edge-1", interrupt // pinned until they are placed
		w.desire(a, b)
		w.elect()
		w.run(5 * time.Second)
		a.Robot = ""
		w.desire(a, b)
		w.run(15 * time.Second)
		if w.home("a/0") != "edge-1" || w.home("b/0") != "edge-2" {
			t.Fatalf("a on %s, b on %s", w.home("a/0"), w.home("b/0"))
		}
		c.Labels = special.Labels
		w.desire(a, b, c)
		w.run(time.Minute)
		got := w.home("a/0") + " " + w.home("b/0") + " " + w.home("c/0")
		if interrupt == messages.InterruptAllow && got != "edge-2 edge-1 edge-2" {
			t.Errorf("it may pause, and they are on %s; c: %s", got, w.m.replicas["c/0"].why)
		}
		if interrupt != messages.InterruptAllow && got != "edge-1 edge-2 " {
			t.Errorf("it may not pause, and they are on %s", got)
		}
	}
}
