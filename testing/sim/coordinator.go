package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
)

// coordinator is a Machine in a shell that does what package coordinator does: it holds
// the lease by the same rules, saves by compare-and-set, and performs only what its term
// allows.
type coordinator struct {
	w    *world
	node node
	m    *placement.Machine

	life    int // of the process; what an earlier one began does nothing
	up      bool
	frozen  bool
	backlog []func() // what waits in its sockets while it is frozen
	wake    int      // generation of the timer that is set

	offset time.Duration // its clock, against the world's
	rate   float64

	reign     int // changes when it is deposed
	leading   bool
	term      messages.Term
	leaseRev  uint64
	proven    time.Time // on its own clock
	revs      map[string]uint64
	routesRev uint64
	last      *messages.Routes // broadcast last
}

func (w *world) addCoordinator() {
	c := &coordinator{w: w, node: node{name: fmt.Sprint("coordinator-", len(w.coords))}, rate: 1}
	if !w.faults.perfectClocks {
		c.offset, c.rate = w.upTo(time.Hour), 0.995+0.01*w.rng.Float64()
	}
	w.coords = append(w.coords, c)
	c.start()
}

func (c *coordinator) clock() time.Time {
	return begin.Add(c.offset + time.Duration(float64(c.w.now.Sub(begin))*c.rate))
}

// later runs f in d of its own clock, if its process lives and when it is not stopped.
func (c *coordinator) later(d time.Duration, f func()) {
	c.w.in(time.Duration(float64(d)/c.rate), c.then(f))
}

// then returns what does f in this life.
func (c *coordinator) then(f func()) func() {
	life := c.life
	return func() {
		switch {
		case !c.up || c.life != life:
		case c.frozen:
			c.backlog = append(c.backlog, func() {
				if c.up && c.life == life {
					f()
				}
			})
		default:
			f()
		}
	}
}

func (c *coordinator) start() {
	c.life++
	c.up, c.frozen, c.leading, c.backlog, c.last = true, false, false, nil, nil
	c.m = placement.New(c.w.faults.calm)
	c.w.note("%s starts", c.node.name)
	if !c.node.cut {
		c.step(placement.LinkUp{})
		c.resync()
	}
	c.later(500*time.Millisecond, c.tryLease)
	c.later(5*time.Second, c.rebroadcast)
}

func (c *coordinator) kill() {
	c.w.note("%s is killed", c.node.name)
	c.up = false
	c.life++
	c.leading = false
}

// freeze stops the process for d, as SIGSTOP does.
func (c *coordinator) freeze(d time.Duration) {
	if !c.up || c.frozen {
		return
	}
	c.w.note("%s is stopped for %v", c.node.name, d)
	c.frozen = true
	life := c.life
	c.w.in(d, func() {
		if !c.up || c.life != life {
			return
		}
		c.w.note("%s goes on", c.node.name)
		c.frozen = false
		list := c.backlog
		c.backlog = nil
		for _, f := range list {
			f()
		}
		c.step(placement.Tick{})
	})
}

// cut cuts the link for d. The client library notices at once, or by its pings.
func (c *coordinator) cut(d, noticed time.Duration) {
	if c.node.cut {
		return
	}
	c.w.note("the link of %s is cut for %v, noticed after %v", c.node.name, d, noticed)
	c.node.cut = true
	if noticed < d && !c.w.faults.deafToLinks {
		c.w.in(noticed, c.then(func() {
			if c.node.cut {
				c.step(placement.LinkDown{})
			}
		}))
	}
	c.w.in(d, func() {
		c.w.note("the link of %s is back", c.node.name)
		c.node.cut = false
		c.then(func() {
			if !c.w.faults.deafToLinks {
				c.step(placement.LinkDown{}) // it reconnected, however short it was away
				c.step(placement.LinkUp{})
			}
			c.resync()
		})()
	})
}

// resync reads everything that is watched again.
func (c *coordinator) resync() {
	for _, a := range c.w.agents {
		if r, ok := c.w.server.registers[a.id]; ok {
			c.watch(r)
		}
	}
	c.watch(c.w.server.desired)
}

// watch delivers what a watcher sees.
func (c *coordinator) watch(ev placement.Event) {
	c.w.ordered(&c.node, c.then(func() { c.step(ev) }))
}

// hear delivers what is heard on a subject.
func (c *coordinator) hear(from *node, ev placement.Event) {
	c.w.send(from, &c.node, c.then(func() { c.step(ev) }))
}

func (c *coordinator) step(ev placement.Event) {
	c.w.steps++
	effects := c.m.Step(c.clock(), ev)
	for _, e := range effects {
		c.perform(e)
	}
	c.w.ledger.stepped(c, ev, effects)
	for _, e := range effects {
		if down, ok := e.(placement.StepDown); ok && c.mayAct() {
			c.depose(down.Reason)
		}
	}
}

func (c *coordinator) mayAct() bool {
	if c.w.faults.overstays {
		return c.leading
	}
	return c.leading && c.clock().Before(c.proven.Add(leaseTTL-leaseTTL/6))
}

func (c *coordinator) perform(e placement.Effect) {
	if at, ok := e.(placement.WakeAt); ok {
		c.wake++
		gen := c.wake
		// A timer is never early; rounding between two clocks must not make it so.
		c.later(at.At.Sub(c.clock())+time.Microsecond, func() {
			if gen == c.wake {
				c.step(placement.Tick{})
			}
		})
		return
	}
	if !c.mayAct() {
		return
	}
	switch e := e.(type) {
	case placement.SavePlacement:
		doc := e.Doc
		doc.Replicas = slices.Clone(doc.Replicas)
		c.save(doc, c.revs[doc.Agent], true)
	case placement.SaveRoutes:
		c.saveRoutes(e.Routes, c.routesRev, true)
	case placement.SendPlacement:
		c.deliver(e.Doc)
	case placement.BroadcastRoutes:
		c.w.ledger.broadcast(c, e.Routes)
		c.last = &e.Routes
		c.broadcast()
	case placement.Record:
		c.w.note("%s: %s", c.node.name, e)
		c.w.ledger.recorded(e.Event)
	}
}

// now reports whether what was begun under a reign still counts.
func (c *coordinator) in(reign int) bool { return c.leading && c.reign == reign }

const storeTimeout = time.Second

// save writes by compare-and-set. Where somebody else wrote, theirs decides: of a newer
// term it deposes us, an older one's is written over.
func (c *coordinator) save(doc messages.Placement, rev uint64, again bool) {
	reign := c.reign
	failed := func(why string) {
		if c.in(reign) {
			c.step(placement.SaveFailed{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev, Reason: why})
		}
	}
	c.w.ask(&c.node, storeTimeout, func() func() {
		e, ok := c.w.server.put(doc, rev)
		return c.then(func() {
			switch {
			case !c.in(reign):
			case ok:
				c.revs[doc.Agent] = e.rev
				c.step(placement.Saved{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev})
			case c.term.Before(e.value.Term):
				c.depose("somebody with a newer term wrote " + doc.Agent)
			case again:
				c.revs[doc.Agent] = e.rev
				c.save(doc, e.rev, false)
			default:
				failed("lost the compare-and-set")
			}
		})
	}, c.then(func() { failed("no answer") }))
}

func (c *coordinator) saveRoutes(r messages.Routes, rev uint64, again bool) {
	reign := c.reign
	c.w.ask(&c.node, storeTimeout, func() func() {
		e, ok := c.w.server.putRoutes(r, rev)
		return c.then(func() {
			switch {
			case !c.in(reign):
			case ok:
				c.routesRev = e.rev
				c.step(placement.RoutesSaved{Term: r.Term, Rev: r.Rev})
			case c.term.Before(e.value.Term):
				c.depose("somebody with a newer term wrote the routes")
			case again:
				c.routesRev = e.rev
				c.saveRoutes(r, e.rev, false)
			default:
				c.step(placement.RoutesSaveFailed{Term: r.Term, Rev: r.Rev, Reason: "lost the compare-and-set"})
			}
		})
	}, c.then(func() {
		if c.in(reign) {
			c.step(placement.RoutesSaveFailed{Term: r.Term, Rev: r.Rev, Reason: "no answer"})
		}
	}))
}

const sendTimeout = time.Second

// deliver sends a document to every process that listens under the agent's id.
func (c *coordinator) deliver(doc messages.Placement) {
	reign, answered := c.reign, false
	fail := func(nobody bool) {
		if !answered && c.in(reign) {
			answered = true
			c.step(placement.SendFailed{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev, NoResponders: nobody})
		}
	}
	a := c.w.byID[doc.Agent]
	c.w.send(&c.node, &c.w.server.door, func() {
		if !a.listens() {
			c.w.send(&c.w.server.door, &c.node, c.then(func() { fail(true) }))
			return
		}
		for _, p := range a.procs {
			c.w.in(c.w.latency(), func() {
				ack, ok := p.place(doc, c)
				if !ok {
					return
				}
				c.w.send(&a.node, &c.node, c.then(func() {
					if !answered && c.in(reign) {
						answered = true
						c.step(placement.Ack{PlacementAck: ack})
					}
				}))
			})
		}
	})
	c.later(sendTimeout, func() { fail(false) })
}

func (c *coordinator) broadcast() {
	r := *c.last
	for _, cl := range c.w.clients {
		c.w.in(c.w.faults.lateRoutes, func() { c.w.send(&c.node, &cl.node, func() { cl.learn(r) }) })
	}
}

func (c *coordinator) rebroadcast() {
	if c.mayAct() && c.last != nil {
		c.broadcast()
	}
	c.later(5*time.Second, c.rebroadcast)
}
