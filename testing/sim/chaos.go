package sim

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// chaos disturbs a fleet at random, steps times. The ledger watches; in the end the
// disturbances stop, and everything has to come to rest where it belongs.
func (w *world) chaos(steps int) {
	w.delay = 2*time.Millisecond + w.upTo(100*time.Millisecond)
	w.loss, w.dupes, w.saveLoss = 0.05*w.rng.Float64(), 0.05*w.rng.Float64(), 0.03*w.rng.Float64()
	w.server.desired.Settings.Reserve = []float64{0, 0.1}[w.rng.IntN(2)]
	for range 3 {
		w.addCoordinator()
	}
	for i := range 1 + w.rng.IntN(2) {
		w.addAgent(env(fmt.Sprint("cloud-", i), messages.Cloud, 1000, 1000, 50))
	}
	for i := range 2 + w.rng.IntN(5) {
		e := env(fmt.Sprint("edge-", i), messages.Edge, 100, 100, 10)
		e.Site, e.Price = []string{"main", "yard"}[w.rng.IntN(2)], 5
		e.Billing = []messages.Billing{messages.Share, messages.Whole}[w.rng.IntN(2)]
		w.addAgent(e)
	}
	for i := range 2 + w.rng.IntN(8) {
		w.addAgent(env(fmt.Sprint("robot-", i), messages.Robot, 10, 100, 1))
	}
	for _, a := range w.agents {
		a.crash["shaky"] = 3 * time.Second
	}
	w.addClient(200 * time.Millisecond)
	w.desire(w.anyTasks()...)
	w.run(5 * time.Second)
	for range steps {
		w.run(w.upTo(4 * time.Second))
		w.disturb()
	}
	w.peace()
	if !w.until(10*time.Minute, func() bool { return w.unrest() == "" }) {
		w.fail("rest: ten minutes after the last disturbance %s: %s", w.unrest(), w.picture())
	}
	w.run(15 * time.Minute) // nothing is avoided or unsteady any more
	start, decided := w.now, w.ledger.decisions
	w.run(2 * time.Minute)
	if why := w.unrest(); why != "" {
		w.fail("rest: it was at rest, and now %s: %s", why, w.picture())
	}
	w.noMoves(start, "it was quiet for a quarter of an hour")
	if n := w.ledger.decisions - decided; n > 0 {
		w.fail("calm: %d decisions in two quiet minutes", n)
	}
}

// anyTasks draws what the fleet is to run; two draws differ in versions, too.
func (w *world) anyTasks() []messages.Task {
	interrupt := func() messages.Interrupt {
		return []messages.Interrupt{messages.InterruptPinned, messages.InterruptAllow, messages.InterruptNever}[w.rng.IntN(3)]
	}
	all := []messages.Task{
		{Name: "train", Class: messages.Training, Demand: messages.Resources{Compute: 300, Storage: 100}, Replicas: 1 + w.rng.IntN(3), Interrupt: interrupt()},
		{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: float64(10 * (1 + w.rng.IntN(6))), Network: 10}, Work: float(10),
			Transfer: float(10), Replicas: 1 + w.rng.IntN(4), Concurrency: 1 + w.rng.IntN(2), Interrupt: interrupt()},
		{Name: "plan", Class: messages.Inference, Demand: messages.Resources{Compute: 40}, Work: float(40), Per: messages.PerSite, Priority: w.rng.IntN(2)},
		{Name: "grip", Class: messages.Action, Demand: messages.Resources{Compute: 2}, Per: messages.PerRobot, Limit: 20, Priority: 5, Concurrency: 1 + w.rng.IntN(2)},
		{Name: "look", Class: messages.Inference, Demand: messages.Resources{Compute: float64(20 + w.rng.IntN(60))}, Limit: 40, Colocate: true,
			Replicas: 2, Priority: w.rng.IntN(3), Interrupt: interrupt()},
	}
	if look := &all[len(all)-1]; look.Demand.Compute >= 65 { // one version in four gets ready and crashes
		look.Handler = "shaky"
	}
	return slices.DeleteFunc(all, func(messages.Task) bool { return w.rng.IntN(6) == 0 })
}

func (w *world) disturb() {
	a := w.agents[w.rng.IntN(len(w.agents))]
	c := w.coords[w.rng.IntN(len(w.coords))]
	p := a.alive()
	switch w.rng.IntN(22) {
	case 0, 1:
		a.killAll(w.rng.IntN(2) == 0)
	case 2, 3, 4:
		if len(a.procs) == 0 {
			a.start()
		}
	case 5:
		a.killAll(w.rng.IntN(2) == 0)
		a.start()
	case 6:
		if p != nil && !p.draining {
			p.leave()
		}
	case 7:
		w.note("the link of %s is cut", a.id)
		a.node.cut = true
		w.in(w.upTo(10*time.Second), func() { a.node.cut = false })
	case 8:
		if p != nil {
			p.freeze(w.upTo(15 * time.Second))
			if w.rng.IntN(3) == 0 {
				a.start() // somebody starts another in its place
			}
		}
	case 9:
		w.server.desired.Drains = nil
		if w.rng.IntN(2) == 0 {
			w.note("%s is drained", a.id)
			w.server.desired.Drains = []messages.DrainEntry{{Agent: a.id, Reason: "test"}}
		}
		w.tell()
	case 10, 11:
		w.note("other tasks")
		w.desire(w.anyTasks()...)
	case 12:
		a.fails["detect"], a.fails["plan"] = w.rng.IntN(2) == 0, w.rng.IntN(3) == 0
	case 13:
		if p != nil {
			for _, id := range sortedKeys(p.reps) {
				a.rate[id] = w.rng.Float64() * 5000
			}
		}
	case 14:
		a.foreign = messages.Resources{Compute: w.rng.Float64() * a.env.Capacity.Compute}
	case 15:
		if c.up {
			c.kill()
			w.in(w.upTo(20*time.Second), c.start)
		}
	case 16:
		c.cut(w.upTo(40*time.Second), w.upTo(4*time.Second))
	case 17:
		c.freeze(w.upTo(25 * time.Second))
	case 18:
		a.dataAge = []float64{0, 0, 5000}[w.rng.IntN(3)]
	case 19:
		w.server.desired.Settings.Mode = []messages.Mode{messages.Dynamic, messages.Dynamic, messages.Static}[w.rng.IntN(3)]
		w.tell()
	case 20:
		w.note("the servers split: %s does not hear half of the agents", c.node.name)
		for _, a := range w.agents {
			a.deaf[c] = w.rng.IntN(2) == 0
		}
		w.in(w.upTo(15*time.Second), func() {
			for _, a := range w.agents {
				a.deaf[c] = false
			}
		})
	case 21:
		if l := w.leader(); l != nil && l.up {
			l.handOver()
			w.in(w.upTo(5*time.Second), l.start)
		}
	}
}

// peace ends all disturbances.
func (w *world) peace() {
	w.run(45 * time.Second) // whatever is cut, stopped or away comes back
	w.note("peace")
	w.loss, w.dupes, w.saveLoss = 0, 0, 0
	w.server.desired.Drains = nil
	w.server.desired.Settings.Mode = messages.Dynamic
	w.tell()
	for _, a := range w.agents {
		a.node.cut, a.dataAge, a.foreign = false, 0, messages.Resources{}
		clear(a.fails)
		clear(a.crash)
		clear(a.rate)
		if p := a.alive(); p == nil || p.draining || len(a.procs) > 1 {
			a.killAll(false)
			a.start()
		}
	}
}

// unrest says what is not at rest yet, "" when everything is: one leads, every agent runs
// exactly what its saved document says, and everything that has a place is ready there.
func (w *world) unrest() string {
	c := w.leader()
	if c == nil {
		return "nobody leads"
	}
	state := c.m.State()
	for _, info := range state.Agents {
		a := w.byID[info.Environment.ID]
		if info.State != messages.AgentReady {
			return fmt.Sprintf("%s is %s", a.id, info.State)
		}
		doc, ok := w.server.docs[a.id]
		p := a.alive()
		if !ok {
			continue
		}
		if p == nil || p.doc == nil || !reflect.DeepEqual(p.doc.Replicas, doc.value.Replicas) || p.doc.Term != c.term {
			return fmt.Sprintf("%s has not what is stored", a.id)
		}
		if info.Applied != info.Rev {
			return fmt.Sprintf("%s has not confirmed revision %d", a.id, info.Rev)
		}
		for _, r := range doc.value.Replicas {
			if why := w.outdated(c, r.Task); why != "" {
				return fmt.Sprintf("%s on %s %s", r.ID, a.id, why)
			}
			if run := p.reps[r.ID]; r.Drain || run == nil || run.state != messages.ReplicaReady || run.stopping {
				return fmt.Sprintf("%s on %s is not ready", r.ID, a.id)
			}
		}
		if len(p.reps) != len(doc.value.Replicas) {
			return fmt.Sprintf("%s runs more than its document says", a.id)
		}
	}
	if len(state.Agents) != len(w.agents) {
		return "not all agents are known"
	}
	for _, r := range state.Replicas {
		if r.To != "" || r.Agent != "" && r.State != messages.ReplicaReady {
			return fmt.Sprintf("%s is not ready: %s", r.ID, r.Reason)
		}
		if r.Agent == "" && r.Task == "grip" {
			return fmt.Sprintf("%s waits although there is room: %s", r.ID, r.Reason)
		}
	}
	if !reflect.DeepEqual(w.server.routes.value, c.m.Routes()) {
		return "the routes that are stored are not the plan"
	}
	return ""
}

// outdated says what is wrong with the version of a task that an agent is told to serve,
// "" if it is what is desired, or if clients are told why it cannot be.
func (w *world) outdated(c *coordinator, has messages.Task) string {
	i := slices.IndexFunc(w.server.desired.Tasks, func(t messages.Task) bool { return t.Name == has.Name })
	if i < 0 {
		return "is of a task that nobody wants"
	}
	if reflect.DeepEqual(has, w.server.desired.Tasks[i]) {
		return ""
	}
	routes := c.m.Routes()
	if route, ok := routes.Find(has.Name); ok && route.Waiting != "" {
		return ""
	}
	return fmt.Sprintf("has revision %d, desired is %d, and nobody says why", has.Revision, w.server.desired.Tasks[i].Revision)
}
