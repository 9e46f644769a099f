package placement

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// slowEdges are n edges on which a replica loads for a while, with the first version.
func slowEdges(t *testing.T, n int, load time.Duration) *world {
	t.Helper()
	w := newWorld(t, 1)
	w.log = new(strings.Builder)
	edges(w, n)
	for _, a := range w.agents {
		a.load = load
	}
	return w
}

// allServe checks that every replica is ready with version n.
func (w *world) allServe(n int) {
	w.t.Helper()
	for _, id := range sorted(w.m.replicas) {
		if r := w.m.replicas[id]; r.home == nil || r.home.task.Concurrency != n || !r.home.serves() {
			w.t.Errorf("%s does not serve version %d: %s", id, n, r.why)
		}
	}
}

// What moves while an update comes, or goes on, is not left behind with the old version.
func TestUpdateReachesWhatMoves(t *testing.T) {
	drain := func(w *world) {
		w.desired.Drains = []messages.DrainEntry{{Agent: w.home("inference/2"), Reason: "fan"}}
		w.step(w.desired)
	}
	for _, c := range []struct {
		name string
		play func(w *world)
	}{
		{"a drain, then the update", func(w *world) { drain(w); w.run(time.Second); w.desire(version(2)) }},
		{"the update, then a drain", func(w *world) { w.desire(version(2)); w.run(time.Second); drain(w) }},
		{"the update, then a dead data link", func(w *world) {
			w.desire(version(2))
			w.run(time.Second)
			w.agents[w.home("inference/2")].dataAge = 5000
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := slowEdges(t, 6, 3*time.Second)
			c.play(w)
			w.run(5 * time.Minute)
			w.allServe(2)
			if len(w.m.rollouts) != 0 || strings.Count(w.log.String(), "record update_done") != 1 {
				t.Errorf("%d updates are under way, and the end was told %d times", len(w.m.rollouts), strings.Count(w.log.String(), "record update_done"))
			}
		})
	}
}
