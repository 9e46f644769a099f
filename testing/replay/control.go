package main

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
)

// control is the coordinator: the real placement machine in a shell that saves and sends
// without fault, each in a millisecond and the way. What becomes of it when saves fail,
// links are cut and leaders change is package sim's to play.
type control struct {
	w     *world
	m     *placement.Machine
	wake  int
	moves int                           // replicas that changed their machine in the hour
	docs  map[string]messages.Placement // as they are saved
}

func newControl(w *world, s messages.Settings, tasks []messages.Task) *control {
	c := &control{w: w, m: placement.New(placement.Calm{}), docs: make(map[string]messages.Placement)}
	w.control = c
	c.step(placement.LinkUp{})
	c.step(placement.TasksChanged{Tasks: tasks, Settings: s})
	return c
}

// lead begins, when all agents have registered.
func (c *control) lead() {
	c.step(placement.PlacementsLoaded{})
	c.step(placement.Elected{Term: messages.Term{Epoch: 1, Revision: 1}})
}

func (c *control) step(ev placement.Event) {
	for _, e := range c.m.Step(c.w.time(), ev) {
		c.perform(e)
	}
}

func (c *control) perform(e placement.Effect) {
	switch e := e.(type) {
	case placement.WakeAt:
		c.wake++
		wake := c.wake
		c.w.in(e.At.Sub(c.w.time()), func() {
			if wake == c.wake {
				c.step(placement.Tick{})
			}
		})
	case placement.SavePlacement:
		doc := e.Doc
		doc.Replicas = slices.Clone(doc.Replicas)
		c.w.in(wire, func() {
			c.docs[doc.Agent] = doc
			c.step(placement.Saved{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev})
		})
	case placement.SaveRoutes:
		c.w.in(wire, func() { c.step(placement.RoutesSaved{Term: e.Routes.Term, Rev: e.Routes.Rev}) })
	case placement.SendPlacement:
		c.deliver(e.Doc)
	case placement.BroadcastRoutes:
		r := e.Routes
		c.w.in(wire, func() {
			for _, cl := range c.w.clients {
				if r.Newer(cl.routes.Term, cl.routes.Rev) {
					cl.routes = &r
				}
			}
		})
	case placement.Record:
		c.w.note(e.Event)
		if e.Event.Kind == "replica_moved" && c.w.now >= warmUp {
			c.moves++
		}
	}
}

func (c *control) deliver(doc messages.Placement) {
	doc.Replicas = slices.Clone(doc.Replicas)
	a := c.w.byID[doc.Agent]
	way := messages.Millis(a.env.Latency / 2)
	c.w.in(way, func() {
		if !a.up {
			c.w.in(way, func() {
				c.step(placement.SendFailed{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev, NoResponders: true})
			})
			return
		}
		ack := a.apply(doc)
		c.w.in(way, func() { c.step(placement.Ack{PlacementAck: ack}) })
	})
}

// meter adds up, once a second, what is paid for: a machine that is billed whole while
// anything is placed on it, of any other the share that its replicas hold.
type meter struct {
	paid    float64 // per hour · hours
	held    float64 // TFLOPS · s that are paid for
	machine float64 // TFLOPS · s of the machines on which something is placed
}

func (c *control) measure(every time.Duration, m *meter) {
	for _, a := range c.m.State().Agents {
		if a.Planned.Compute <= 0 {
			continue
		}
		e := a.Environment
		share := min(1, a.Planned.Compute/e.Capacity.Compute)
		if e.Billing == messages.Whole {
			share = 1
		}
		m.paid += float64(e.Price * share * every.Hours())
		m.held += float64(e.Capacity.Compute * share * every.Seconds())
		m.machine += float64(e.Capacity.Compute * every.Seconds())
	}
}
