package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// play is one story about a fleet; it fails by panicking with a violation.
type play struct {
	name  string
	about string
	run   func(w *world, steps int)
}

// plays are all stories. Most are played for every seed.
var plays = []play{
	{"chaos", "everything goes wrong at random, and the fleet comes to rest when it stops", (*world).chaos},
	{"elections", "leaders die, stop, are cut off and hand over: nothing moves, nothing is lost", (*world).elections},
	{"five", "one change of load of 5 % moves nothing", (*world).five},
	{"flap", "an agent that flaps each 2 s does not take placements down with it", (*world).flap},
	{"blind", "a coordinator whose link was cut for a minute evicts nobody that beats", (*world).blind},
	{"disk", "the server loses every placement: nothing moves, nothing is lost", (*world).lostDisk},
	{"drain", "agents are drained and leave under requests: none is lost", (*world).drain},
	{"twins", "a process is stopped, another is started in its place, and the first goes on", (*world).twins},
	{"update", "a new version of a task, good or bad, under requests: none is lost", (*world).update},
	{"calm", "the same with 60", (*world).calm},
	{"settle", "1,000 agents with random load: moves are bounded, and end with the load", (*world).settle},
}

// seldom has the plays that take long: one seed in so many plays them, beginning with
// that of half the number.
var seldom = map[string]int{"settle": 200, "calm": 4}

func (p play) plays(seed uint64) bool {
	n := uint64(seldom[p.name])
	return n == 0 || seed%n == n/2
}

// perform plays one story. The error is the violation, with what led to it and how to
// see it again.
func perform(p play, seed uint64, steps int, f faults, verbose func(string)) (w *world, err error) {
	w = newWorld(seed, f)
	w.verbose = verbose
	defer func() {
		switch v := recover().(type) {
		case nil:
		case violation:
			err = fmt.Errorf("seed %d, play %s: %s\nwhat led to it:\n%s\nagain: make sim SEED=%d STEPS=%d", seed, p.name, v.text, w.story(), seed, steps)
		default:
			panic(v)
		}
	}()
	p.run(w, steps)
	return w, nil
}

var errUnknown = errors.New("no such play")

func find(name string) (play, error) {
	if i := slices.IndexFunc(plays, func(p play) bool { return p.name == name }); i >= 0 {
		return plays[i], nil
	}
	return play{}, errUnknown
}

func env(id string, tier messages.Tier, compute, network, latency float64) messages.Environment {
	return messages.Environment{ID: id, Tier: tier, Latency: latency, Handlers: []string{messages.AnyHandler},
		Capacity: messages.Resources{Compute: compute, Storage: 10 * compute, Network: network}}
}

func float(v float64) *float64 { return &v }

// desire makes tasks what the fleet is to run.
func (w *world) desire(tasks ...messages.Task) {
	for i := range tasks {
		tasks[i] = tasks[i].Normal()
		tasks[i].Revision = w.server.next()
	}
	w.server.desired.Tasks = tasks
	w.tell()
}

// tell delivers the desired state to all coordinators.
func (w *world) tell() {
	d := w.server.desired
	if w.faults.oldTasks {
		if w.first == nil {
			w.first = d.Tasks
		}
		d.Tasks = w.first
	}
	d.Tasks, d.Drains = slices.Clone(d.Tasks), slices.Clone(d.Drains)
	for _, c := range w.coords {
		c.watch(d)
	}
}

// leader is the coordinator that leads and may act.
func (w *world) leader() *coordinator {
	for _, c := range w.coords {
		if c.up && !c.frozen && c.mayAct() {
			return c
		}
	}
	return nil
}

// ready reports whether every replica that the routes know is ready, and there are n.
func (w *world) ready(n int) bool {
	count := 0
	for _, t := range w.ledger.routed.Tasks {
		for _, r := range t.Replicas {
			if r.State != messages.ReplicaReady {
				return false
			}
			count++
		}
	}
	return count >= n
}

// settled waits until n replicas are ready.
func (w *world) settled(n int) {
	if !w.until(time.Minute, func() bool { return w.ready(n) }) {
		w.fail("settle: of %d replicas not all are ready after a minute: %s", n, w.picture())
	}
}

// picture is what the leader says of its replicas.
func (w *world) picture() string {
	c := w.leader()
	if c == nil {
		return "nobody leads"
	}
	out := ""
	for _, r := range c.m.State().Replicas {
		out += fmt.Sprintf("\n    %s on %q (to %q): %s, %s", r.ID, r.Agent, r.To, r.State, r.Reason)
	}
	return out
}

// site is a small fleet with three coordinators: a cloud, n edges, and n robots with an
// action each; and an inference of n/2 replicas.
func (w *world) site(n, coordinators int) {
	for range coordinators {
		w.addCoordinator()
	}
	w.addAgent(env("cloud", messages.Cloud, 1000, 1000, 50))
	for i := range n {
		w.addAgent(env(fmt.Sprintf("edge-%d", i), messages.Edge, 100, 1000, 10))
		w.addAgent(env(fmt.Sprintf("robot-%d", i), messages.Robot, 10, 100, 1))
	}
	w.desire(w.siteTasks(n)...)
	w.settled(n + n/2 + 1)
	w.run(20 * time.Second) // every dwell and cycle is over
}

func (w *world) siteTasks(n int) []messages.Task {
	return []messages.Task{
		{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: 30, Network: 10}, Work: float(30), Transfer: float(10), Replicas: n / 2},
		{Name: "grip", Class: messages.Action, Demand: messages.Resources{Compute: 2}, Per: messages.PerRobot, Limit: 20},
		{Name: "train", Class: messages.Training, Demand: messages.Resources{Compute: 300}, Replicas: 1},
	}
}

// noMoves fails where something moved since t.
func (w *world) noMoves(t time.Time, why string) {
	if n := w.ledger.movesSince(t); n > 0 {
		w.fail("calm: %d moves, and %s", n, why)
	}
}

func (w *world) elections(steps int) {
	w.site(4, 3)
	cl := w.addClient(50 * time.Millisecond)
	w.run(10 * time.Second)
	start := w.now
	for range max(1, steps/10) {
		c := w.leader()
		if c == nil {
			w.run(time.Second)
			continue
		}
		switch w.rng.IntN(4) {
		case 0:
			c.kill()
			w.in(w.upTo(20*time.Second), c.start)
		case 1:
			c.freeze(20 * time.Second)
		case 2:
			c.handOver()
			w.in(w.upTo(5*time.Second), c.start)
		case 3:
			c.cut(5*time.Second+w.upTo(30*time.Second), w.upTo(4*time.Second))
		}
		w.run(15*time.Second + w.upTo(15*time.Second))
	}
	w.run(30 * time.Second)
	if w.leader() == nil {
		w.fail("election: nobody leads in the end")
	}
	w.noMoves(start, "only leaders came and went")
	if cl.lost > 0 {
		w.fail("requests: %d of %d were lost while only leaders came and went", cl.lost, cl.sent)
	}
	if len(w.ledger.lost) > 0 {
		w.fail("eviction: %v were declared lost, and beat all the time", w.ledger.lost)
	}
}

// five loads boxes that are full by what was declared, beside others that are empty: a
// move is possible, and tempting.
func (w *world) five(int) {
	w.addCoordinator()
	full := 2 + w.rng.IntN(3)
	for i := range 2 * full {
		latency := 10.0
		if i >= full {
			latency = 30
		}
		w.addAgent(env(fmt.Sprintf("edge-%d", i), messages.Edge, 100, 1000, latency))
	}
	w.desire(messages.Task{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: 30, Network: 10},
		Work: float(30), Transfer: float(10), Replicas: 3 * full, Colocate: true})
	w.settled(3 * full)
	w.run(20 * time.Second)
	rates := make(map[string]float64)
	for _, t := range w.ledger.routed.Tasks {
		for _, r := range t.Replicas {
			rates[r.ID] = 1000 * (0.9 + 0.1*w.rng.Float64()) // 30 GFLOP each: of 30 TFLOPS that were declared
		}
	}
	load := func(factor float64) {
		for _, a := range w.agents {
			for id, rate := range rates { // the load is the replica's, wherever it goes
				a.rate[id] = factor * rate
			}
		}
	}
	load(1)
	w.run(2 * time.Minute)
	w.noMoves(begin, "the load is what was declared, at most")
	factor := []float64{0.95, 1.05}[w.rng.IntN(2)]
	w.note("the load is %v times what it was", factor)
	load(factor)
	start := w.now
	w.run(3 * time.Minute)
	w.noMoves(start, "the load changed once, by 5 %")
}

func (w *world) flap(int) {
	w.site(4, 1)
	cl := w.addClient(100 * time.Millisecond)
	cl.silent = w.rng.IntN(2) == 0
	// Whoever serves the inference flaps.
	var bad *agent
	for _, a := range w.agents {
		if a.env.Tier == messages.Edge && len(a.procs[0].reps) > 0 {
			bad = a
		}
	}
	link, seen := w.rng.IntN(2) == 0, w.rng.IntN(2) == 0
	w.note("%s flaps: link %v, seen %v", bad.id, link, seen)
	hosted := len(bad.procs[0].reps)
	flapping := true
	var flip func()
	flip = func() {
		switch {
		case !flapping:
			bad.node.cut = false
			if len(bad.procs) == 0 {
				bad.start()
			}
			return
		case link:
			if bad.node.cut = !bad.node.cut; bad.node.cut && seen && bad.alive() != nil {
				w.connClosed(bad, bad.alive().inc)
			}
		case len(bad.procs) > 0:
			bad.killAll(seen)
		default:
			bad.start()
		}
		w.in(2*time.Second, flip)
	}
	start := w.now
	flip()
	w.run(time.Minute)
	if on := slices.Collect(keysOf(w.ledger.where, bad.id)); len(on) > 0 {
		w.fail("flap: after a minute %v are still on %s, which flaps: %s", on, bad.id, w.picture())
	}
	cl.lost = 0
	later := w.now
	w.run(2 * time.Minute)
	if !w.ready(4 + 2 + 1) {
		w.fail("flap: not everything is ready although only %s flaps: %s", bad.id, w.picture())
	}
	if n := w.ledger.movesSince(start); n > hosted {
		w.fail("flap: %d moves, and only %s, which had %d replicas, flaps", n, bad.id, hosted)
	}
	w.noMoves(later, "what flaps was left by then")
	if cl.lost > 0 {
		w.fail("flap: %d requests were lost after what flaps was left", cl.lost)
	}
	flapping = false
	w.run(10 * time.Second)
}

func keysOf(m map[string]string, value string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, k := range sortedKeys(m) {
			if m[k] == value && !yield(k) {
				return
			}
		}
	}
}

func (w *world) blind(int) {
	w.site(4, 1+w.rng.IntN(2))
	start := w.now
	for _, c := range w.coords {
		c.cut(time.Minute+w.upTo(5*time.Second), w.upTo(4*time.Second))
	}
	// Some die meanwhile: to be found out, and nobody else.
	dead := map[string]bool{}
	for range w.rng.IntN(2) {
		a := w.byID[fmt.Sprintf("robot-%d", w.rng.IntN(4))]
		w.in(w.upTo(time.Minute), func() { a.killAll(false) })
		dead[a.id] = true
	}
	w.run(2 * time.Minute)
	for _, id := range w.ledger.lost {
		if !dead[id] {
			w.fail("eviction: %s was declared lost, and beat all the time", id)
		}
	}
	if len(w.ledger.lost) < len(dead) {
		w.fail("eviction: %v died while the coordinator was cut off, lost are %v", dead, w.ledger.lost)
	}
	w.noMoves(start, "only the coordinator was cut off")
}

func (w *world) drain(steps int) {
	w.site(4, 2)
	cl, slow := w.addClient(20*time.Millisecond), w.addClient(20*time.Millisecond)
	slow.lag = 200 * time.Millisecond
	for _, a := range w.agents {
		a.service = 300 * time.Millisecond
	}
	w.run(10 * time.Second)
	for range max(1, steps/15) {
		a := w.byID[fmt.Sprintf("edge-%d", w.rng.IntN(4))]
		if w.rng.IntN(2) == 0 {
			w.server.desired.Drains = []messages.DrainEntry{{Agent: a.id, Reason: "new fan"}}
			w.tell()
			if !w.until(30*time.Second, func() bool { return len(a.procs[0].reps) == 0 }) {
				w.fail("drain: %s is not empty after 30 s: %s; %s", a.id, list(a.procs[0]), w.picture())
			}
			w.server.desired.Drains = nil
			w.tell()
		} else {
			a.procs[0].leave()
			if !w.until(10*time.Second, func() bool { return len(a.procs) == 0 }) {
				w.fail("drain: %s was told to leave 10 s ago and is still there", a.id)
			}
			w.run(w.upTo(5 * time.Second))
			a.start()
		}
		w.run(15*time.Second + w.upTo(10*time.Second))
	}
	for _, cl := range []*client{cl, slow} {
		if cl.lost > 0 {
			w.fail("requests: %d of %d were lost while agents drained", cl.lost, cl.sent)
		}
	}
}
