package main

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
)

// client is the router of one robot: the shell around package route that router.Client is,
// with the same memory and the same order of questions (router/request.go, router/load.go,
// router/flight.go), and without hedging, which no task here asks for.
type client struct {
	w      *world
	name   string
	site   string
	routes *messages.Routes
	loads  map[loadKey]*load
	queues map[queueKey]*route.Backlog
}

type loadKey struct{ agent, task string }

type load struct {
	n      int // own requests there now
	health route.Health
}

func (w *world) addClient(robot int) {
	w.clients = append(w.clients, &client{w: w, name: robotSite(robot), site: robotSite(robot), routes: new(messages.Routes),
		loads: make(map[loadKey]*load), queues: make(map[queueKey]*route.Backlog)})
}

// flight is one request under way.
type flight struct {
	id         int
	c          *client
	task       string
	work, kbit float64
	start      time.Duration
	until      time.Duration
	machine    route.Machine
	site       string
	queued     bool
	watched    []string
	held       []string
	alarm      int
	out        bool
}

func (c *client) load(agent, task string) *load {
	k := loadKey{agent, task}
	if c.loads[k] == nil {
		c.loads[k] = new(load)
	}
	return c.loads[k]
}

func (c *client) backlog(site, task string) *route.Backlog {
	k := queueKey{site, task}
	if c.queues[k] == nil {
		c.queues[k] = new(route.Backlog)
	}
	return c.queues[k]
}

func (c *client) find(task string) *messages.TaskRoute {
	for i := range c.routes.Tasks {
		if c.routes.Tasks[i].Task.Name == task {
			return &c.routes.Tasks[i]
		}
	}
	return nil
}

// ask sends a request on its way, or refuses it at once.
func (c *client) ask(id int, q request) {
	k := kinds[q.kind]
	f := &flight{id: id, c: c, task: k.name, work: q.work, kbit: q.kbit, start: c.w.now, until: c.w.now + k.deadline}
	c.w.ledger.arrived(f)
	r := c.find(f.task)
	if r == nil {
		f.land(refused)
		return
	}
	sites := route.Sites(r, c.site)
	if len(sites) == 0 {
		f.land(refused)
		return
	}
	f.site = sites[0]
	p := route.Params{Task: f.task, Deadline: begin.Add(f.until), Attempts: r.Task.Attempts(), Candidates: f.candidates}
	if r.Task.Delivery != messages.Direct {
		p.Patient = true
		site, bad := c.queueFor(r, sites, f.until-c.w.now)
		if bad != nil {
			f.land(refused)
			return
		}
		p.Queue, f.site, f.queued = site, site, true
		p.Stuck = func() bool { return c.stuck(site, f.task) }
	}
	f.machine.Init(p)
	f.step(route.Event{Kind: route.Start}, 0)
}

func (f *flight) candidates() []route.Candidate {
	r := f.c.find(f.task)
	if r == nil {
		return nil
	}
	now, left := f.c.w.time(), f.until-f.c.w.now
	return route.Candidates(r, f.c.site, func(e *messages.Route) route.Load {
		l := f.c.load(e.Agent, f.task)
		took := l.health.Latency(now)
		rounds := time.Duration(l.n/r.Task.Slots() + 1)
		return route.Load{InFlight: l.n, Latency: took, Late: took*rounds > left, Down: l.health.Ejected(now) || f.c.w.down(e.Agent)}
	}, f.c.w.rng.Uint64())
}

// queueFor returns the first site in whose queue the request may be answered in time.
func (c *client) queueFor(r *messages.TaskRoute, sites []string, left time.Duration) (string, *messages.Error) {
	var busy *messages.Error
	for _, site := range sites {
		b := c.backlog(site, r.Task.Name)
		ask := b.Ask(c.w.time())
		why := b.Refuse(c.w.time(), left, route.Slots(r, site))
		if why == nil {
			b.Sent()
		}
		if ask {
			c.askBacklog(site, r.Task.Name)
		}
		if why == nil {
			return site, nil
		}
		busy = why
	}
	return "", busy
}

func (c *client) stuck(site, task string) bool {
	b := c.backlog(site, task)
	b.Waited()
	ask, stuck := b.Ask(c.w.time()), b.Stuck(c.w.time())
	if ask {
		c.askBacklog(site, task)
	}
	return stuck
}

// wire is what a word to or from the server of the hall takes.
const wire = time.Millisecond

// askBacklog reads the state of a queue.
func (c *client) askBacklog(site, task string) {
	c.w.in(wire, func() {
		q := c.w.queueOf(site, task)
		pending, taken, free, count := len(q.pending), q.taken, len(q.pulls), q.count
		c.w.in(wire, func() { c.backlog(site, task).Read(c.w.time(), pending, taken, free, count) })
	})
}

// step feeds the machine and does what it says. took is the time of service that a result
// tells.
func (f *flight) step(ev route.Event, took time.Duration) {
	if f.out && ev.Kind != route.Accepted {
		return
	}
	w := f.c.w
	if ev.Kind == route.Result && !f.out {
		switch {
		case ev.Err == nil:
			f.c.load(ev.Agent, f.task).health.Answered(w.time(), took)
			if f.queued {
				f.c.backlog(f.site, f.task).Served(w.time(), took)
			}
		case ev.Err.Code == messages.CodeBackendFailed:
			f.c.load(ev.Agent, f.task).health.Failed(w.time())
		}
	}
	for _, e := range f.machine.Step(w.time(), ev) {
		f.perform(e)
	}
}

func (f *flight) perform(e route.Effect) {
	w := f.c.w
	switch e.Kind {
	case route.PublishWork:
		w.queueOf(e.Site, f.task).put(f)
		w.in(wire, func() { f.step(route.Event{Kind: route.Published}, 0) })
	case route.SendDirect:
		f.direct(w.byID[e.Agent], e)
	case route.ProbeOn:
		f.watch(e)
	case route.ProbeOff:
		f.unwatch(e.Agent)
	case route.CancelAt:
		a := w.byID[e.Agent]
		w.in(w.way(f, a)/2, func() {
			for _, x := range a.executionsOf(f) {
				x.cancel()
			}
		})
	case route.WakeAt:
		f.alarm++
		alarm := f.alarm
		w.in(e.At.Sub(w.time()), func() {
			if alarm == f.alarm {
				f.step(route.Event{Kind: route.Timer}, 0)
			}
		})
	case route.Finish:
		switch {
		case e.Err == nil:
			f.land(answered)
		case e.Err.Code == messages.CodeDeadline:
			f.land(late)
		default:
			f.land(refused)
		}
	}
}

// direct sends the request straight to an agent.
func (f *flight) direct(a *agent, e route.Effect) {
	w := f.c.w
	word := func(kind route.EventKind, err *messages.Error) {
		w.in(w.way(f, a)/2, func() {
			f.step(route.Event{Kind: kind, Agent: a.env.ID, Attempt: e.Attempt, Err: err}, 0)
		})
	}
	w.in(w.way(f, a)/2+a.transfer(f), func() {
		if !a.up {
			word(route.NoResponders, nil)
			return
		}
		if err := a.direct(f, e.Attempt); err != nil {
			word(route.Result, err)
		}
	})
}

// watch probes an agent for this request, and takes a slot there if it holds it.
func (f *flight) watch(e route.Effect) {
	if e.Attempt == 0 {
		f.c.stuck(f.site, f.task)
	}
	a := f.c.w.byID[e.Agent]
	if !slices.Contains(f.watched, e.Agent) {
		f.watched = append(f.watched, e.Agent)
		a.watchers[f.id] = f
		if !a.up {
			a.lost(f, a.inc)
		}
	}
	if e.Attempt > 0 && !slices.Contains(f.held, e.Agent) {
		f.held = append(f.held, e.Agent)
		f.c.load(e.Agent, f.task).n++
	}
}

func (f *flight) unwatch(agent string) {
	if i := slices.Index(f.watched, agent); i >= 0 {
		f.watched = slices.Delete(f.watched, i, i+1)
		delete(f.c.w.byID[agent].watchers, f.id)
	}
	if i := slices.Index(f.held, agent); i >= 0 {
		f.held = slices.Delete(f.held, i, i+1)
		f.c.load(agent, f.task).n--
	}
}

// land is the end of the request; it gives back all that it has taken.
func (f *flight) land(o outcome) {
	f.out = true
	f.alarm++
	for len(f.watched) > 0 {
		f.unwatch(f.watched[0])
	}
	for len(f.held) > 0 {
		f.unwatch(f.held[0])
	}
	f.c.w.ledger.ends(f, o)
}
