package placement

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// An agent that has a document of a newer term confirms nothing of ours; the shell is
// asked to yield, once.
func TestNewerTermIsNoConfirmation(t *testing.T) {
	w := newWorld(t, 1)
	w.log = new(strings.Builder)
	w.step(LinkUp{})
	a := w.add(environment("edge-0", messages.Edge, 100, 100, 10))
	w.run(time.Second)
	a.term, a.rev = messages.Term{Epoch: 5, Revision: 3}, 7
	w.desire(inference())
	w.elect()
	w.run(10 * time.Minute)
	if d := w.m.docs["edge-0"]; d.confirmed() {
		t.Errorf("revision %d of term %s is confirmed by one of term %s", d.doc.Rev, d.doc.Term, d.appliedTerm)
	}
	log := w.log.String()
	if n := strings.Count(log, "    step down: edge-0 has revision 7"); n != 1 || w.stepDowns != 1 {
		t.Errorf("asked to step down %d times", n)
	}
	if n := strings.Count(log, "record newer_term edge-0"); n != 1 {
		t.Errorf("told %d times", n)
	}
	w.depose() // it comes back above that
	w.m.term, w.terms = messages.Term{}, 8
	w.step(PlacementsLoaded{Docs: []messages.Placement{w.store["edge-0"]}})
	w.leading = true
	w.step(Elected{messages.Term{Epoch: 6, Revision: 8}})
	w.run(5 * time.Second)
	if r := w.m.replicas["inference/0"]; !r.home.serves() {
		t.Errorf("it is %s: %s", r.home.state, r.why)
	}
}

// What drained on an agent that was lost before the election is over: nobody else says so.
func TestLostBeforeTheElection(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	home := w.home("inference/0")
	a := w.agents[home]
	a.drain = time.Hour // it finishes a long request
	w.desired.Drains = []messages.DrainEntry{{Agent: home}}
	w.step(w.desired)
	w.run(3 * time.Second)
	w.depose() // the leader and that agent die together
	a.kill()
	w.run(10 * time.Second)
	w.elect()
	w.desired.Tasks, w.desired.Drains = nil, nil
	w.step(w.desired)
	w.run(time.Minute)
	if n := len(w.m.replicas); n != 0 || len(w.dropped) != 1 {
		t.Errorf("%d replicas are left; dropped are %v", n, w.dropped)
	}
}

// The consumers of training outlive their task: they know which jobs were delivered.
func TestDroppedConsumers(t *testing.T) {
	for class, want := range map[messages.Class]int{messages.Inference: 1, messages.Training: 0} {
		w := newWorld(t, 1)
		twoEdges(w)
		w.desire(messages.Task{Name: "other", Class: class, Demand: messages.Resources{Compute: 1}}, inference())
		w.run(20 * time.Second)
		if w.m.replicas["other/0"].home == nil {
			t.Fatalf("%s: it is not placed", class)
		}
		w.desire(inference())
		w.run(time.Minute)
		if w.m.replicas["other/0"] != nil || len(w.dropped) != want {
			t.Errorf("%s: dropped are %v, want %d", class, w.dropped, want)
		}
	}
}

// Agents that are gone for good do not hide that most of those that are left come and go.
func TestTremorCountsThoseAlive(t *testing.T) {
	w := fleet(t, 10)
	name := func(i int) string { return fmt.Sprintf("robot-%02d", i) }
	for i := range 6 {
		w.agents[name(i)].kill()
	}
	w.run(20 * time.Second)
	for range 8 {
		for i := 6; i < 10; i++ {
			w.agents[name(i)].kill()
		}
		w.run(time.Second)
		for i := 6; i < 10; i++ {
			w.agents[name(i)].start()
		}
		w.run(3 * time.Second)
	}
	if why := w.m.closed(w.m.agents["robot-07"]); !w.m.tremor || why != "" {
		t.Errorf("tremor %v, and one of them is %q", w.m.tremor, why)
	}
}

// The events of an update are found by its task.
func TestEventsOfAnUpdateNameTheTask(t *testing.T) {
	w := newWorld(t, 1)
	edges(w, 4)
	w.desire(version(2))
	w.run(time.Minute)
	want := map[string]bool{"update_begun": true, "update_done": true}
	for _, e := range w.events {
		if want[e.Kind] {
			delete(want, e.Kind)
			if e.Task != "inference" {
				t.Errorf("%s is of task %q", e.Kind, e.Task)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("never told: %v", want)
	}
}

// Why a replica waits never says that its own place keeps it from its own place.
func TestOwnPlaceIsNoSibling(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	w.add(environment("edge-0", messages.Edge, 100, 100, 10))
	w.desire(inference())
	w.elect()
	w.run(15 * time.Second)
	task := inference()
	task.Labels = map[string]string{"floor": "dry"}
	w.desire(task)
	w.run(5 * time.Second)
	said := false
	for _, e := range w.events {
		said = said || strings.Contains(e.Reason, "edge-0 lacks floor=dry")
		if strings.Contains(e.Reason, "@edge-0") || strings.Contains(e.Reason, "colocate") {
			t.Error(e.Reason)
		}
	}
	if !said {
		t.Errorf("the true reason is never told: %s", w.m.replicas["inference/0"].why)
	}
}
