package placement

import (
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

var (
	simSeeds = flag.Int("sim.seeds", 20, "how many seeds TestSim plays")
	simSeed  = flag.Int64("sim.seed", 0, "play only this seed, and print its transcript")
	simSteps = flag.Int("sim.steps", 100, "disturbances in one play")
)

// TestSim disturbs a fleet at random: kills, restarts, cut links, drains, changed tasks,
// failing handlers, load, elections, lost saves, a frozen coordinator. The invariants
// hold after every Step; when the disturbances end the fleet comes to rest and runs what
// was asked for. A failure prints its seed.
func TestSim(t *testing.T) {
	if *simSeed != 0 {
		sim(t, *simSeed)
		return
	}
	for seed := range *simSeeds {
		t.Run(fmt.Sprint("seed=", seed+1), func(t *testing.T) { sim(t, int64(seed+1)) })
	}
}

func sim(t *testing.T, seed int64) (transcript string) {
	w := newWorld(t, seed)
	w.log = new(strings.Builder)
	defer func() {
		if *simSeed != 0 {
			t.Log(w.log)
		} else if t.Failed() {
			t.Logf("replay: go test -run TestSim -v -sim.seed %d", seed)
		}
	}()
	w.desired.Settings.Reserve = []float64{0, 0.1}[w.rng.Intn(2)]
	w.delay = time.Duration(1+w.rng.Intn(60)) * time.Millisecond
	w.loss, w.dupes, w.saveFail = 0.05*w.rng.Float64(), 0.05*w.rng.Float64(), 0.1*w.rng.Float64()
	w.step(LinkUp{})
	for i := range 1 + w.rng.Intn(2) {
		w.add(environment(fmt.Sprint("cloud-", i), messages.Cloud, 1000, 1000, 50))
	}
	for i := range 2 + w.rng.Intn(4) {
		a := w.add(environment(fmt.Sprint("edge-", i), messages.Edge, 100, 100, 10))
		a.env.Site = []string{"main", "yard"}[w.rng.Intn(2)]
		a.env.Price, a.env.Billing = 5, []messages.Billing{messages.Share, messages.Whole}[w.rng.Intn(2)]
	}
	for i := range 2 + w.rng.Intn(4) {
		w.add(environment(fmt.Sprint("robot-", i), messages.Robot, 10, 100, 1))
	}
	w.desire(w.tasks()...)
	w.run(time.Second)
	w.elect()
	for range *simSteps {
		w.run(time.Duration(w.rng.Int63n(int64(4 * time.Second))))
		w.disturb()
	}
	w.calmDown()
	w.run(10 * time.Minute) // the longest that an agent is unsteady, and what follows
	before := w.effects
	w.run(2 * time.Minute)
	if w.effects != before {
		t.Errorf("%d effects in two quiet minutes", w.effects-before)
	}
	w.converged()
	return w.log.String()
}

// Seeds that found something, beyond those that are played anyway.
func TestFoundSeeds(t *testing.T) {
	for seed, what := range map[int64]string{
		29: "a replica that moved while its update was blocked was not tried again",
		93: "what waited and was moved by an update was placed a second time",
	} {
		t.Run(what, func(t *testing.T) { sim(t, seed) })
	}
}

// TestEqualHistories: equal histories give equal effects, whatever the order of maps.
func TestEqualHistories(t *testing.T) {
	for seed := range int64(2) {
		if a, b := sim(t, seed), sim(t, seed); a != b {
			t.Fatalf("seed %d: two plays differ", seed)
		}
	}
}

// tasks draws the desired tasks.
func (w *world) tasks() []messages.Task {
	all := []messages.Task{
		{Name: "train", Class: messages.Training, Demand: messages.Resources{Compute: 300, Storage: 100}, Replicas: 1 + w.rng.Intn(3)},
		{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: float64(10 * (1 + w.rng.Intn(6))), Network: 10}, Work: float(10), Transfer: float(10), Replicas: 1 + w.rng.Intn(4)},
		{Name: "plan", Class: messages.Inference, Demand: messages.Resources{Compute: 40}, Work: float(40), Per: messages.PerSite, Priority: w.rng.Intn(2)},
		{Name: "grip", Class: messages.Action, Demand: messages.Resources{Compute: 2}, Per: messages.PerRobot, Limit: 20, Priority: 5},
		{Name: "look", Class: messages.Inference, Demand: messages.Resources{Compute: float64(20 + w.rng.Intn(60))}, Limit: 40, Colocate: true, Replicas: 2, Priority: w.rng.Intn(3)},
	}
	for i := range all {
		all[i] = all[i].Normal()
	}
	return slices.DeleteFunc(all, func(messages.Task) bool { return w.rng.Intn(6) == 0 })
}

func (w *world) any() *fakeAgent {
	ids := sorted(w.agents)
	return w.agents[ids[w.rng.Intn(len(ids))]]
}

func (w *world) disturb() {
	a := w.any()
	switch w.rng.Intn(20) {
	case 0, 1:
		a.kill()
		if w.rng.Intn(2) == 0 {
			w.step(ConnClosed{a.id, a.inc})
		}
	case 2, 3, 4:
		if !a.up {
			a.start()
		}
	case 5:
		a.kill()
		a.start() // back before anybody noticed
	case 6:
		if a.up {
			a.leave()
		}
	case 7:
		a.cut = true
		w.in(time.Duration(w.rng.Int63n(int64(10*time.Second))), func() { a.cut = false })
	case 8:
		w.step(ConnClosed{a.id, a.inc})
	case 9:
		w.desired.Drains = nil
		if w.rng.Intn(2) == 0 {
			w.desired.Drains = []messages.DrainEntry{{Agent: a.id, Reason: "test"}}
		}
		w.step(w.desired)
	case 10, 11:
		w.desire(w.tasks()...)
	case 12:
		a.fails["detect"], a.fails["plan"] = w.rng.Intn(2) == 0, w.rng.Intn(3) == 0
	case 13:
		for _, id := range sorted(a.reps) {
			a.rate[id] = w.rng.Float64() * 5000
		}
	case 14:
		a.foreign = messages.Resources{Compute: w.rng.Float64() * a.env.Capacity.Compute}
	case 15:
		if !w.frozen {
			w.depose()
			if w.rng.Intn(2) == 0 { // another process, which has just begun to watch
				w.m = New(w.calm)
				w.wake++
				w.step(LinkUp{})
				for _, id := range sorted(w.agents) {
					w.step(Registered{messages.Registration{Environment: w.agents[id].env}, w.agents[id].inc})
				}
				w.step(w.desired)
			}
			w.run(time.Duration(w.rng.Int63n(int64(3 * time.Second))))
			w.elect()
		}
	case 16:
		w.step(LinkDown{})
		w.in(time.Duration(w.rng.Int63n(int64(6*time.Second))), func() { w.step(LinkUp{}) })
	case 17:
		w.freeze(time.Duration(w.rng.Int63n(int64(20 * time.Second))))
	case 18:
		a.dataAge = []float64{0, 0, 5000}[w.rng.Intn(3)]
	case 19:
		w.desired.Settings.Mode = []messages.Mode{messages.Dynamic, messages.Dynamic, messages.Static}[w.rng.Intn(3)]
		w.step(w.desired)
	}
}

// freeze stops the coordinator's process. What comes meanwhile is lost, but for what
// the shell reads again: registrations and the desired state, and the ends of saves.
func (w *world) freeze(d time.Duration) {
	if w.frozen {
		return
	}
	w.frozen = true
	w.in(d, func() {
		w.frozen = false
		for _, id := range sorted(w.agents) {
			w.step(Registered{messages.Registration{Environment: w.agents[id].env}, w.agents[id].inc})
		}
		w.step(w.desired)
		for _, ev := range w.missed {
			w.step(ev)
		}
		w.missed = nil
		w.step(Tick{})
	})
}

func (w *world) calmDown() {
	w.run(25 * time.Second) // whatever is cut or frozen ends
	w.loss, w.dupes, w.saveFail = 0, 0, 0
	w.desired.Drains = nil
	w.desired.Settings.Mode = messages.Dynamic
	w.step(LinkUp{})
	w.step(w.desired)
	for _, id := range sorted(w.agents) {
		a := w.agents[id]
		a.cut, a.dataAge, a.foreign = false, 0, messages.Resources{}
		clear(a.fails)
		clear(a.rate)
		if !a.up || a.draining {
			a.kill()
			a.start()
		}
	}
}

// converged: all agents run exactly what their documents say, every replica that has a
// home is ready there, and nothing moves.
func (w *world) converged() {
	t, m := w.t, w.m
	for _, id := range sorted(w.agents) {
		a, d := w.agents[id], m.docs[id]
		if m.agents[id].state != messages.AgentReady {
			t.Errorf("%s is %s", id, m.agents[id].state)
		}
		if d == nil {
			continue
		}
		if !d.confirmed() || !reflect.DeepEqual(w.store[id].Replicas, d.doc.Replicas) {
			t.Errorf("%s: its document rev %d is not stored (%d) and confirmed (%d)", id, d.doc.Rev, w.store[id].Rev, d.applied)
		}
		running := 0
		for _, r := range a.reps {
			if r.state != messages.ReplicaStopped {
				running++
			}
		}
		if running != len(d.doc.Replicas) {
			t.Errorf("%s runs %v, its document says %s", id, a.statuses(), docString(d.doc))
		}
	}
	for id, r := range m.replicas {
		if r.next != nil || len(r.old) > 0 || !r.wanted {
			t.Errorf("%s does not rest: %s", id, r.why)
		}
		if t, ok := m.task(r.spec.Task.Name); !ok || r.home != nil && !reflect.DeepEqual(r.home.task, t) && !r.waiting && (m.rollouts[t.Name] == nil || m.rollouts[t.Name].paused == "") {
			w.t.Errorf("%s has not the version that is desired, and nobody says why: %s", id, r.why)
		}
		if r.home == nil && !r.waiting || r.home != nil && r.home.state != messages.ReplicaReady {
			t.Errorf("%s is not ready: %s", id, r.why)
		}
		if r.home == nil && r.spec.Task.Name == "grip" {
			t.Errorf("%s should find room: %s", id, r.why)
		}
	}
	if a, b := m.replicas["train/0"], m.replicas["train/1"]; a != nil && a.home == nil && (b == nil || b.home == nil) {
		t.Errorf("train should find room: %s", a.why)
	}
	if !reflect.DeepEqual(w.sent, m.Routes()) || w.routes == nil || !reflect.DeepEqual(*w.routes, m.Routes()) {
		t.Error("the routes that went out are not the plan")
	}
}
