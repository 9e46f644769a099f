package sim

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// client sends requests by the routes that it has, as a router does: to what is ready,
// elsewhere when it is refused, never by older routes than it had.
type client struct {
	w      *world
	node   node
	routes messages.Routes
	every  time.Duration // between two requests; 0: none

	sent, served, lost int
	lag                time.Duration // it hears of routes so late
	silent             bool          // it does not tell whom it found gone
}

func (w *world) addClient(every time.Duration) *client {
	c := &client{w: w, node: node{name: "client"}, every: every}
	w.clients = append(w.clients, c)
	w.in(w.upTo(every), c.next)
	w.in(w.upTo(10*time.Second), c.read)
	return c
}

func (c *client) learn(r messages.Routes) {
	c.w.in(c.lag, func() {
		if r.Newer(c.routes.Term, c.routes.Rev) {
			c.routes = r
		}
	})
}

// read gets the saved routes, for whoever missed a broadcast.
func (c *client) read() {
	c.w.ask(&c.node, time.Second, func() func() {
		r := c.w.server.routes
		return func() {
			if r.rev != 0 {
				c.learn(r.value)
			}
		}
	}, func() {})
	c.w.in(10*time.Second, c.read)
}

func (c *client) next() {
	if c.every == 0 {
		return
	}
	c.w.in(c.every, c.next)
	if len(c.routes.Tasks) == 0 {
		return
	}
	t := c.routes.Tasks[c.w.rng.IntN(len(c.routes.Tasks))]
	c.sent++
	c.attempt(t.Task.Name, nil, 4)
}

// attempt sends a request to a ready replica that was not tried yet.
func (c *client) attempt(task string, tried []string, left int) {
	route, _ := c.routes.Find(task)
	ready := slices.DeleteFunc(slices.Clone(route.Replicas), func(r messages.Route) bool {
		return r.State != messages.ReplicaReady || slices.Contains(tried, r.ID+r.Agent)
	})
	if len(ready) == 0 || left == 0 {
		if left == 0 || len(tried) == 0 {
			c.lost++
			return
		}
		c.w.in(100*time.Millisecond, func() { c.attempt(task, nil, left-1) }) // newer routes may be on their way
		return
	}
	r := ready[c.w.rng.IntN(len(ready))]
	a := c.w.byID[r.Agent]
	again := func() { c.attempt(task, append(slices.Clone(tried), r.ID+r.Agent), left-1) }
	c.w.in(c.w.latency(), func() {
		if !a.listens() {
			if !c.silent && c.w.rng.IntN(3) == 0 {
				c.report(a, r.Inc)
			}
			again()
			return
		}
		for _, p := range a.procs { // one subject: all that listen get it
			if p.inc == r.Inc {
				p.request(r.ID, func() { c.served++ }, again)
				return
			}
		}
		again()
	})
}

// report tells the coordinators that nobody listens there.
func (c *client) report(a *agent, inc messages.Incarnation) {
	for _, o := range c.w.coords {
		o.hear(&c.node, placement.Unreached{Agent: a.id, Inc: inc, By: "client"})
	}
}

// request serves one, or refuses it.
func (p *process) request(replica string, served, refused func()) {
	if !p.up || p.frozen {
		p.a.w.in(300*time.Millisecond, refused) // silence
		return
	}
	r := p.reps[replica]
	if r == nil || r.state != messages.ReplicaReady || (r.stopping && !p.a.w.faults.servesOn) {
		refused()
		return
	}
	p.a.w.ledger.served(p, replica)
	r.flight++
	done := false
	p.later(p.a.service, func() {
		r.flight--
		done = true
		served()
		p.ended(r)
	})
	p.a.w.in(p.a.service+300*time.Millisecond, func() {
		if !done && !p.up {
			refused() // it died meanwhile
		}
	})
}
