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

// onePinned is one edge, with the inference pinned to it, whose second version fails
// there: its update is paused.
func onePinned(t *testing.T) (w *world, a *fakeAgent, bad messages.Task) {
	t.Helper()
	w = newWorld(t, 1)
	w.log = new(strings.Builder)
	w.step(LinkUp{})
	a = w.add(environment("edge-0", messages.Edge, 100, 100, 10))
	a.broken = map[string]bool{"bad": true}
	good := version(1)
	good.Replicas, good.Robot = 1, "edge-0"
	w.desire(good)
	w.elect()
	w.run(15 * time.Second)
	bad = version(2)
	bad.Replicas, bad.Robot, bad.Handler = 1, "edge-0", "bad"
	w.desire(bad)
	w.run(time.Minute)
	w.paused()
	return w, a, bad
}

func (w *world) paused() {
	w.t.Helper()
	if ro := w.m.rollouts["inference"]; ro == nil || ro.paused == "" {
		w.t.Fatalf("the update is not paused: %+v", ro)
	}
	if n := strings.Count(w.log.String(), "record update_done"); n != 0 {
		w.t.Fatalf("the end of the update was told %d times", n)
	}
}

// A paused update stays so while its only replica has no place for a while.
func TestPausedUpdateOutlivesADrain(t *testing.T) {
	w, _, _ := onePinned(t)
	w.desired.Drains = []messages.DrainEntry{{Agent: "edge-0", Reason: "fan"}}
	w.step(w.desired)
	w.run(10 * time.Second)
	w.paused()
	w.desired.Drains = nil
	w.step(w.desired)
	w.run(time.Minute)
	w.paused()
	w.allServe(1)
}

func TestPausedUpdateOutlivesAHigherPriority(t *testing.T) {
	w := newWorld(t, 1)
	w.log = new(strings.Builder)
	w.step(LinkUp{})
	w.add(environment("edge-0", messages.Edge, 100, 100, 10)).broken = map[string]bool{"bad": true}
	task := func(n int) messages.Task {
		v := version(n)
		v.Replicas, v.Interrupt, v.Demand.Compute = 1, messages.InterruptAllow, 60
		return v
	}
	bad := task(2)
	bad.Handler = "bad"
	w.desire(task(1))
	w.elect()
	w.run(15 * time.Second)
	w.desire(bad)
	w.run(time.Minute)
	w.paused()
	w.desire(bad, messages.Task{Name: "urgent", Class: messages.Inference, Demand: messages.Resources{Compute: 60}, Priority: 9})
	w.run(30 * time.Second)
	if s := w.served("urgent"); s[0] != 1 {
		t.Fatalf("%v of the urgent one serve", s)
	}
	w.desire(bad)
	w.run(time.Minute)
	w.paused()
	w.allServe(1)
}

// One that dies around the beginning of a bad update gets the version that is known to
// serve, and the update is given up as ever.
func TestDeathAndABadUpdate(t *testing.T) {
	bad := version(2)
	bad.Handler = "bad"
	for name, play := range map[string]func(w *world, victim string){
		"it dies before": func(w *world, victim string) {
			w.agents[victim].kill()
			w.run(2 * time.Second)
			w.desire(bad)
		},
		"it dies in the middle": func(w *world, victim string) {
			w.desire(bad)
			w.run(100 * time.Millisecond)
			w.agents[victim].kill()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := slowEdges(t, 5, 20*time.Second)
			for _, a := range w.agents {
				a.broken = map[string]bool{"bad": true}
			}
			play(w, w.home("inference/1"))
			w.run(30 * time.Second)
			w.allServe(1)
			w.run(5 * time.Minute)
			w.paused()
			w.allServe(1)
		})
	}
}

// The version that served has no place any more (its handler is gone with the old
// machines): then the new one gets one, although it has not proved itself.
func TestOldVersionHasNoPlace(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	env := environment("edge-0", messages.Edge, 100, 100, 10)
	env.Handlers = []string{"old"}
	a := w.add(env)
	task := func(handler string) messages.Task {
		v := version(1)
		v.Replicas, v.Handler = 1, handler
		return v
	}
	w.desire(task("old"))
	w.elect()
	w.run(15 * time.Second)
	a.kill()
	w.run(5 * time.Second)
	env = environment("edge-1", messages.Edge, 100, 100, 10)
	env.Handlers = []string{"new"}
	w.add(env)
	w.desire(task("new"))
	w.run(15 * time.Second)
	w.allServe(1)
	if w.home("inference/0") != "edge-1" || len(w.m.rollouts) != 0 {
		t.Errorf("it is on %q, and %d updates go on", w.home("inference/0"), len(w.m.rollouts))
	}
}

// crashes makes what is ready with version n fail a while later, each time.
func (w *world) crashes(n int, after time.Duration) {
	seen := map[*fakeReplica]bool{}
	var watch func()
	watch = func() {
		for _, agent := range sorted(w.agents) {
			a := w.agents[agent]
			for _, id := range sorted(a.reps) {
				r := a.reps[id]
				if r.placed.Task.Concurrency != n || r.state != messages.ReplicaReady || seen[r] {
					continue
				}
				seen[r] = true
				a.later(after, func() {
					if a.reps[id] != r || r.state != messages.ReplicaReady {
						return
					}
					r.state = messages.ReplicaFailed
					a.beat()
					a.later(time.Second, func() {
						r.state = messages.ReplicaLoading
						delete(seen, r)
						a.later(a.load, func() { a.loaded(r) })
					})
				})
			}
		}
		w.in(50*time.Millisecond, watch)
	}
	watch()
}

// A version that gets ready, and crashes a moment later, takes down one replica at a time
// until it is given up.
func TestVersionThatCrashesWhenItServes(t *testing.T) {
	w := newWorld(t, 1)
	w.log = new(strings.Builder)
	edges(w, 5)
	w.crashes(2, 3*time.Second)
	w.desire(version(2))
	for range 1200 {
		w.run(50 * time.Millisecond)
		if s := w.served("inference"); s[1]+s[2] < 2 || s[2] > 1 {
			t.Fatalf("%v: %v serve", w.now.Sub(begin), s)
		}
	}
	w.paused()
	w.allServe(1)
}

// What only the planner reads is of the newest version even while another one serves. What
// it takes is not: that of the version that serves counts.
func TestPlannerFieldsWhilePaused(t *testing.T) {
	w, _, bad := onePinned(t)
	work := bad.WorkGFLOP() // else it comes from the demand, and a handler may look at it
	bad.Work = &work
	bad.Priority, bad.Demand.Compute, bad.Revision = 7, bad.Demand.Compute/2, 300
	w.desire(bad)
	w.run(5 * time.Second)
	h := w.m.replicas["inference/0"].home
	if h.task.Priority != 7 || h.task.Demand != version(1).Normal().Demand || !h.serves() {
		t.Errorf("%s with priority %d and demand %v", h.state, h.task.Priority, h.task.Demand)
	}
	bad.Sites, bad.Revision = []string{"yard"}, 301
	w.desire(bad)
	w.run(5 * time.Second)
	if on := w.home("inference/0"); on != "" {
		t.Errorf("it is still on %s, which is at site main", on)
	}
	w.paused()
}
