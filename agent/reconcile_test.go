package agent

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

func place(id string, change ...func(*messages.PlacedReplica)) messages.PlacedReplica {
	task, _, _ := messages.ParseReplica(id)
	p := messages.PlacedReplica{ID: id, Task: messages.Task{Name: task, Class: messages.Inference}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func drained(p *messages.PlacedReplica)   { p.Drain = true }
func nearer(p *messages.PlacedReplica)    { p.Rank = 1 }
func wider(p *messages.PlacedReplica)     { p.Task.Concurrency = 4 }
func dearer(p *messages.PlacedReplica)    { p.Task.Cost = 3 }
func same(p *messages.PlacedReplica)      { p.Task.Concurrency, p.Task.Handler = 1, p.Task.Name }
func costlier(p *messages.PlacedReplica)  { w := 9.0; p.Task.Work = &w }
func unplanned(p *messages.PlacedReplica) { p.Task.Labels = map[string]string{"a": "b"} }

func TestReconcile(t *testing.T) {
	runs := held{placed: place("a/0")}
	stops := held{placed: place("a/0"), stopping: true}
	gone := held{placed: place("a/0"), stopping: true, ended: true}
	for _, c := range []struct {
		name string
		have *held
		want []messages.PlacedReplica
		deed string
	}{
		{"new", nil, []messages.PlacedReplica{place("a/0")}, "start a/0"},
		{"as it is", &runs, []messages.PlacedReplica{place("a/0")}, ""},
		{"another rank", &runs, []messages.PlacedReplica{place("a/0", nearer)}, "rank a/0"},
		{"only the plan's fields differ", &runs, []messages.PlacedReplica{place("a/0", dearer, unplanned)}, ""},
		{"defaults written out", &runs, []messages.PlacedReplica{place("a/0", same)}, ""},
		{"more slots", &runs, []messages.PlacedReplica{place("a/0", wider)}, "stop a/0"},
		{"more work", &runs, []messages.PlacedReplica{place("a/0", costlier)}, "stop a/0"},
		{"drain", &runs, []messages.PlacedReplica{place("a/0", drained)}, "stop a/0"},
		{"drains already", &stops, []messages.PlacedReplica{place("a/0", drained)}, ""},
		{"has drained", &gone, []messages.PlacedReplica{place("a/0", drained)}, ""},
		{"drain what is not here", nil, []messages.PlacedReplica{place("a/0", drained)}, ""},
		{"wanted again while it stops", &stops, []messages.PlacedReplica{place("a/0")}, ""},
		{"wanted again when it has stopped", &gone, []messages.PlacedReplica{place("a/0")}, "start a/0"},
		{"not wanted", &runs, nil, "stop a/0"},
		{"not wanted and stops", &stops, nil, ""},
		{"not wanted and gone", &gone, nil, "forget a/0"},
		{"sorted", &runs, []messages.PlacedReplica{place("c/0"), place("b/0")}, "stop a/0, start b/0, start c/0"},
	} {
		have := map[string]held{}
		if c.have != nil {
			have["a/0"] = *c.have
		}
		var deeds []string
		for _, s := range reconcile(have, c.want) {
			deeds = append(deeds, string(s.deed)+" "+s.id)
		}
		if got := strings.Join(deeds, ", "); got != c.deed {
			t.Errorf("%s: %q, want %q", c.name, got, c.deed)
		}
	}
}

// TestReconcileArrives does what reconcile says, lets replicas end in any order, and
// checks that the agent arrives at the document.
func TestReconcileArrives(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		have := map[string]held{}
		var want []messages.PlacedReplica
		for round := range 20 {
			if round < 10 {
				want = nil
				for i := range 5 {
					if p := place(fmt.Sprintf("t%d/0", i)); rng.IntN(2) == 0 {
						p.Drain, p.Rank, p.Task.Concurrency = rng.IntN(4) == 0, rng.IntN(2), 1+rng.IntN(2)
						want = append(want, p)
					}
				}
			}
			for _, s := range reconcile(have, want) {
				h, here := have[s.id]
				switch s.deed {
				case deedStart:
					if here && !h.ended {
						t.Fatalf("seed %d: %s started twice", seed, s.id)
					}
					have[s.id] = held{placed: s.replica}
				case deedRank:
					h.placed = s.replica
					have[s.id] = h
				case deedStop:
					h.stopping = true
					have[s.id] = h
				case deedForget:
					delete(have, s.id)
				}
			}
			for id, h := range have {
				if h.stopping && (round >= 10 || rng.IntN(2) == 0) {
					h.ended = true
					have[id] = h
				}
			}
		}
		for _, w := range want {
			h, here := have[w.ID]
			if w.Drain {
				if here && !h.ended {
					t.Errorf("seed %d: %s still serves", seed, w.ID)
				}
			} else if !here || h.stopping || h.placed.Rank != w.Rank || !sameService(h.placed.Task, w.Task) {
				t.Errorf("seed %d: %s is %+v, want %+v", seed, w.ID, h, w)
			}
			delete(have, w.ID)
		}
		if len(have) > 0 {
			t.Errorf("seed %d: left over: %v", seed, have)
		}
	}
}

func TestHandedOver(t *testing.T) {
	if !handedOver(nil) || !handedOver(&messages.Placement{}) {
		t.Error("an agent without replicas has nothing to hand over")
	}
	doc := &messages.Placement{Replicas: []messages.PlacedReplica{place("a/0", drained), place("b/0")}}
	if handedOver(doc) {
		t.Error("b/0 is still wanted")
	}
	doc.Replicas[1].Drain = true
	if !handedOver(doc) {
		t.Error("all drain")
	}
}
