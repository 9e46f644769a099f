package placement

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func TestExplain(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	w.desired.Drains = []messages.DrainEntry{{Agent: "edge-1", Reason: "new fan"}}
	w.step(w.desired)
	w.run(5 * time.Second)
	e, ok := w.m.Explain("inference/0")
	if !ok || e.Replica.Agent != "edge-2" || !strings.Contains(e.Replica.Reason, "agent edge-1 is draining: new fan") {
		t.Fatalf("%v %+v", ok, e.Replica)
	}
	want := map[string]string{"cloud": "39.82 more score", "edge-1": "closed: draining: new fan", "edge-2": "chosen: delay 10.2 ms"}
	for _, v := range e.Verdicts {
		if !strings.Contains(v.Text, want[v.Environment]) {
			t.Errorf("%s: %s, want %q", v.Environment, v.Text, want[v.Environment])
		}
		delete(want, v.Environment)
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
	var kinds []string
	for _, h := range e.History {
		kinds = append(kinds, h.Kind)
	}
	if got := strings.Join(kinds, " "); !strings.HasSuffix(got, "replica_moving replica_ready replica_moved replica_draining replica_stopped") {
		t.Errorf("history: %s", got)
	}
	if _, ok := w.m.Explain("inference/9"); ok {
		t.Error("what is not there is explained")
	}
	// What waits says what stands in the way everywhere.
	huge := messages.Task{Name: "huge", Class: messages.Inference, Demand: messages.Resources{Compute: 2000}}
	w.desire(inference(), huge)
	w.run(2 * time.Second)
	e, _ = w.m.Explain("huge/0")
	for _, v := range e.Verdicts {
		if len(v.Reasons) == 0 {
			t.Errorf("huge/0 on %s: %s", v.Environment, v.Text)
		}
	}
	if e.Replica.Agent != "" || len(e.Verdicts) != 3 || !strings.Contains(e.Replica.Reason, "fix: ") {
		t.Errorf("%+v", e.Replica)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	for i := range 40 {
		w.desired.Drains = nil
		if i%2 == 0 {
			w.desired.Drains = []messages.DrainEntry{{Agent: "edge-1"}, {Agent: "edge-2"}}
		}
		w.step(w.desired)
		w.run(12 * time.Second)
	}
	h := w.m.History("inference/0")
	if len(h) != trailLength {
		t.Fatalf("%d decisions are kept", len(h))
	}
	for i := 1; i < len(h); i++ {
		if h[i].Time.Before(h[i-1].Time) {
			t.Fatal("they are not in order")
		}
	}
	w.desire()
	w.run(5 * time.Second)
	if len(w.m.History("inference/0")) != 0 || len(w.m.trails) > len(w.m.agents) {
		t.Errorf("what is gone is remembered: %v", sorted(w.m.trails))
	}
}
