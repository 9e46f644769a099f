package sim

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
)

// agent is a machine under one id. More than one process may run there: one that was
// stopped, and the one that was started in its place.
type agent struct {
	w     *world
	id    string
	env   messages.Environment
	node  node
	procs []*process // all that run or are stopped

	deaf    map[*coordinator]bool // coordinators that a split of the servers keeps its beats from
	foreign messages.Resources
	dataAge float64
	load    time.Duration            // that a replica takes to get ready
	service time.Duration            // that a request takes
	fails   map[string]bool          // by handler: it never gets ready
	crash   map[string]time.Duration // by handler: it fails so long after it got ready, each time
	rate    map[string]float64       // requests per second, by replica
}

// process is one life of an agent: an incarnation.
type process struct {
	a      *agent
	inc    messages.Incarnation
	up     bool
	frozen bool
	begun  bool // it heard that it is registered
	over   bool // told that a newer incarnation is there

	draining bool
	seq      uint64
	doc      *messages.Placement
	reps     map[string]*running
	backlog  []func()
}

// running is a replica in a process.
type running struct {
	placed   messages.PlacedReplica
	state    messages.ReplicaState
	stopping bool
	flight   int
}

func (w *world) addAgent(env messages.Environment) *agent {
	a := &agent{w: w, id: env.ID, env: env.Normal(), node: node{name: env.ID}, deaf: make(map[*coordinator]bool),
		load: 300 * time.Millisecond, service: 50 * time.Millisecond, fails: make(map[string]bool), crash: make(map[string]time.Duration), rate: make(map[string]float64)}
	w.byID[a.id] = a
	i, _ := slices.BinarySearchFunc(w.agents, a.id, func(a *agent, id string) int {
		if a.id < id {
			return -1
		}
		return 1
	})
	w.agents = slices.Insert(w.agents, i, a)
	a.start()
	return a
}

// listens reports whether anybody answers under the agent's subjects.
func (a *agent) listens() bool { return !a.node.cut && len(a.procs) > 0 }

// alive is the process that was started last, if it runs.
func (a *agent) alive() *process {
	if n := len(a.procs); n > 0 && a.procs[n-1].up && !a.procs[n-1].frozen {
		return a.procs[n-1]
	}
	return nil
}

// start begins an incarnation: it registers, reads its own document, and beats.
func (a *agent) start() {
	p := &process{a: a, up: true, reps: make(map[string]*running)}
	a.procs = append(a.procs, p)
	a.w.note("%s starts", a.id)
	p.register()
}

func (p *process) register() {
	w := p.a.w
	w.ask(&p.a.node, time.Second, func() func() {
		p.inc = messages.Incarnation{Epoch: 1, Revision: w.server.next()}
		env := p.a.env
		if w.faults.boast > 0 {
			env.Capacity = env.Capacity.Scale(w.faults.boast)
		}
		r := placement.Registered{Registration: messages.Registration{Environment: env}, Inc: p.inc}
		w.server.registers[p.a.id] = r
		for _, c := range w.coords {
			c.watch(r)
		}
		own, ok := w.server.docs[p.a.id]
		return p.then(func() {
			p.begun = true
			p.claim()
			if ok {
				p.apply(own.value, nil)
			}
			p.later(w.upTo(50*time.Millisecond), p.beats)
		})
	}, p.then(func() {
		if !p.begun {
			p.register()
		}
	}))
}

// claim is an agent's first word: whoever else runs under its id with an older
// incarnation must stop. Who is stopped hears it when he goes on.
func (p *process) claim() {
	for _, o := range p.a.procs {
		p.a.w.in(p.a.w.latency(), o.then(func() {
			if o.begun && o.inc.Before(p.inc) {
				p.a.w.ledger.learned[o] = true
				o.superseded()
			}
		}))
	}
}

func (p *process) then(f func()) func() {
	return func() {
		switch {
		case !p.up:
		case p.frozen:
			p.backlog = append(p.backlog, f)
		default:
			f()
		}
	}
}

func (p *process) later(d time.Duration, f func()) { p.a.w.in(d, p.then(f)) }

// kill ends a process, as SIGKILL does.
func (p *process) kill() {
	p.up = false
	p.a.procs = slices.DeleteFunc(p.a.procs, func(o *process) bool { return o == p })
}

// killAll ends every process of a, and tells who may see system events.
func (a *agent) killAll(seen bool) {
	a.w.note("%s is killed", a.id)
	for _, p := range slices.Clone(a.procs) {
		p.kill()
		if seen {
			a.w.connClosed(a, p.inc)
		}
	}
}

// connClosed: the server tells that a connection was closed.
func (w *world) connClosed(a *agent, inc messages.Incarnation) {
	for _, c := range w.coords {
		c.hear(&w.server.door, placement.ConnClosed{Agent: a.id, Inc: inc})
	}
}

func (p *process) freeze(d time.Duration) {
	p.a.w.note("%s is stopped for %v", p.a.id, d)
	p.frozen = true
	p.a.w.in(d, func() {
		if !p.up {
			return
		}
		p.a.w.note("%s goes on", p.a.id)
		p.frozen = false
		list := p.backlog
		p.backlog = nil
		for _, f := range list {
			p.then(f)()
		}
	})
}

func (p *process) beats() {
	p.beat()
	p.later(900*time.Millisecond+p.a.w.upTo(200*time.Millisecond), p.beats)
}

func (p *process) beat() {
	if !p.begun || p.over {
		return
	}
	a := p.a
	p.seq++
	hb := messages.Heartbeat{Agent: a.id, Inc: p.inc, Seq: p.seq, State: messages.AgentReady, Capacity: a.env.Capacity,
		Foreign: a.foreign, DataAge: a.dataAge, Replicas: p.statuses()}
	if p.doc != nil {
		hb.Term, hb.Rev = p.doc.Term, p.doc.Rev
	}
	if p.draining {
		hb.State = messages.AgentDraining
	}
	for _, c := range a.w.coords {
		if !a.deaf[c] {
			c.hear(&a.node, placement.Heartbeat{Heartbeat: hb})
		}
	}
}

func (p *process) statuses() []messages.ReplicaStatus {
	var out []messages.ReplicaStatus
	for _, id := range sortedKeys(p.reps) {
		r := p.reps[id]
		state := r.state
		if r.stopping && state != messages.ReplicaStopped {
			state = messages.ReplicaDraining
		}
		out = append(out, messages.ReplicaStatus{ID: id, State: state, InFlight: r.flight, Rate: p.a.rate[id] * p.a.w.noise()})
	}
	if p.doc != nil {
		for _, w := range p.doc.Replicas {
			if w.Drain && p.reps[w.ID] == nil {
				out = append(out, messages.ReplicaStatus{ID: w.ID, State: messages.ReplicaStopped})
			}
		}
	}
	slices.SortFunc(out, func(a, b messages.ReplicaStatus) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// leave is SIGTERM: serve on until the document is empty or 3 s are over, finish, say
// goodbye.
func (p *process) leave() {
	p.a.w.note("%s leaves", p.a.id)
	p.draining = true
	p.beat()
	tries := 0
	var look func()
	look = func() {
		tries++
		empty := p.doc == nil || !slices.ContainsFunc(p.doc.Replicas, func(r messages.PlacedReplica) bool { return !r.Drain })
		if !empty && tries < 30 {
			p.later(100*time.Millisecond, look)
			return
		}
		for _, id := range sortedKeys(p.reps) {
			p.stop(p.reps[id])
		}
		p.finish()
	}
	look()
}

func (p *process) finish() {
	for _, r := range p.reps {
		if r.state != messages.ReplicaStopped {
			p.later(50*time.Millisecond, p.finish)
			return
		}
	}
	for _, c := range p.a.w.coords {
		c.hear(&p.a.node, placement.Goodbye{Goodbye: messages.Goodbye{Agent: p.a.id, Inc: p.inc, Reason: "drained"}})
	}
	p.kill()
}
