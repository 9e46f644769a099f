package sim

import (
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// settle and calm load a fleet at random for three minutes. Moves are bounded by the
// budget of each cycle; when the load stands still, so does the fleet.
func (w *world) settle(int) { w.load(50) }
func (w *world) calm(int)   { w.load(3) }

// load is a fleet of so many sites, each of four edges and sixteen robots.
func (w *world) load(sites int) {
	w.addCoordinator()
	tasks := []messages.Task{{Name: "grip", Class: messages.Action, Demand: messages.Resources{Compute: 2}, Per: messages.PerRobot, Limit: 20}}
	var edges []*agent
	replicas := 0
	for s := range sites {
		site := fmt.Sprintf("site-%02d", s)
		for i := range 4 {
			e := env(fmt.Sprintf("edge-%02d-%d", s, i), messages.Edge, 100, 1000, 10)
			e.Site = site
			edges = append(edges, w.addAgent(e))
		}
		for i := range 16 {
			e := env(fmt.Sprintf("robot-%02d-%02d", s, i), messages.Robot, 10, 100, 1)
			e.Site = site
			w.addAgent(e)
		}
		tasks = append(tasks, messages.Task{Name: "see-" + site, Class: messages.Inference, Demand: messages.Resources{Compute: 20, Network: 10},
			Work: float(20), Transfer: float(10), Sites: []string{site}, Tiers: []messages.Tier{messages.Edge}, Replicas: 6, Colocate: true})
		replicas += 6 + 16
	}
	w.desire(tasks...)
	w.settled(replicas)
	w.run(30 * time.Second)
	start := w.now
	w.noMoves(begin, "nothing happened yet")
	for range 36 {
		for range sites {
			a := edges[w.rng.IntN(len(edges))]
			for _, id := range sortedKeys(a.alive().reps) {
				for _, o := range w.agents { // the load is the replica's, wherever it goes
					if o.env.Site == a.env.Site {
						o.rate[id] = 3000 * w.rng.Float64()
					}
				}
			}
		}
		w.run(5 * time.Second)
	}
	// Four, or one replica in fifty, in each cycle of 10 s: a minute touches seven.
	bound := 7 * max(4, replicas/50)
	if n := w.ledger.busiest(start); n > bound {
		w.fail("calm: %d moves in one minute, allowed are %d", n, bound)
	}
	if w.ledger.movesSince(start) == 0 {
		w.fail("settle: nothing moved at all, so nothing was shown")
	}
	w.note("the load stands still after %d moves, %d in the busiest minute of %d allowed", w.ledger.movesSince(start), w.ledger.busiest(start), bound)
	w.run(3 * time.Minute)
	quiet := w.now
	w.run(2 * time.Minute)
	w.noMoves(quiet, "the load has not changed for three minutes")
}

// update gives the inference a new version under requests. A good one reaches every
// replica; one that never gets ready, or crashes when it serves, is given up, and the old
// one goes on.
func (w *world) update(int) {
	w.site(6, 1+w.rng.IntN(2))
	cl := w.addClient(20 * time.Millisecond)
	w.run(10 * time.Second)
	tasks := w.siteTasks(6)
	kind := w.rng.IntN(4)
	bad := kind >= 2
	tasks[0].Concurrency = 4
	if bad {
		tasks[0].Handler = "broken"
		for _, a := range w.agents {
			a.fails["broken"] = kind == 2
			a.crash["broken"] = 3 * time.Second
		}
	}
	w.note("a new version of detect; bad: %v", bad)
	w.desire(tasks...)
	if w.rng.IntN(3) == 0 {
		w.in(w.upTo(5*time.Second), func() {
			if c := w.leader(); c != nil && len(w.coords) > 1 {
				c.handOver()
				w.in(5*time.Second, c.start)
			}
		})
	}
	w.run(2 * time.Minute)
	if cl.lost > 0 {
		w.fail("requests: %d of %d were lost while a task was updated", cl.lost, cl.sent)
	}
	if !w.ready(6 + 3 + 1) {
		w.fail("update: not everything is ready: %s", w.picture())
	}
	for _, a := range w.agents {
		for _, r := range a.alive().reps {
			if t := r.placed.Task; t.Name == "detect" && (t.Concurrency == 4) == bad {
				w.fail("update: %s on %s serves concurrency %d; the new version is bad: %v", r.placed.ID, a.id, t.Concurrency, bad)
			}
		}
	}
}

// twins starts another process in the place of one that is stopped. When that goes on it
// must not serve: what it is asked by old routes it refuses.
func (w *world) twins(steps int) {
	w.site(4, 1)
	for range 3 {
		c := w.addClient(20 * time.Millisecond)
		c.lag = 5 * time.Second
	}
	w.run(10 * time.Second)
	for range max(1, steps/10) {
		a := w.byID[fmt.Sprintf("edge-%d", w.rng.IntN(4))]
		old := a.alive()
		old.freeze(w.upTo(6 * time.Second))
		w.run(w.upTo(2 * time.Second))
		a.start()
		w.run(20 * time.Second)
		if old.up && !w.faults.undead {
			w.fail("fence: %s still has the process that was replaced", a.id)
		}
		if !w.ready(4 + 2 + 1) {
			w.fail("twins: not everything is ready: %s", w.picture())
		}
	}
}

// lostDisk empties the buckets of placements and routes, as a server does that starts on an
// empty disk: what agents serve stays where it is.
func (w *world) lostDisk(int) {
	w.site(4, 2)
	cl := w.addClient(50 * time.Millisecond)
	w.run(5 * time.Second)
	start := w.now
	clear(w.server.docs)
	w.server.routes.rev = 0
	for _, c := range w.coords {
		if w.rng.IntN(2) == 0 { // the one that led knows it all, another may not
			c.kill()
			w.in(w.upTo(5*time.Second), c.start)
		} else {
			c.depose("a bucket was lost and made again")
		}
	}
	w.run(time.Minute)
	if !w.ready(4 + 2 + 1) {
		w.fail("disk: not everything is ready: %s", w.picture())
	}
	w.noMoves(start, "only the server's disk was lost")
	if cl.lost > 0 {
		w.fail("requests: %d of %d were lost with the server's disk", cl.lost, cl.sent)
	}
	if why := w.unrest(); why != "" {
		w.fail("rest: a minute after the loss %s", why)
	}
}
