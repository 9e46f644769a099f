package placement

import (
	"reflect"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// agent is what is known of one agent.
type agent struct {
	id    string
	env   messages.Environment
	inc   messages.Incarnation
	state messages.AgentState
	why   string // it is in that state

	heard      bool // a beat of this incarnation came
	left       bool // this incarnation said goodbye
	seq        uint64
	last       time.Time // of the last sign of life
	beat       messages.Heartbeat
	suspected  time.Time // of the first evidence since then, zero for none
	evidence   string
	closed     bool // a connection of it was closed since then
	held       bool // its silence was held against the coordinator itself before
	staleSince time.Time

	straying  bool     // it runs, or may run, what its document does not list; see countStrays
	foreign   [3]latch // what others use: compute, storage, network; see load.go
	hot       bool
	hotSince  time.Time // over HotOver since; zero when it is not
	coolSince time.Time // under CoolUnder since; zero when it is not

	flaps      int // how often it came and went, since it was steady; see flap.go
	flapAt     time.Time
	unsteadyTo time.Time // until then nothing new is placed on it; zero when it is steady

	outranks messages.Term // newer than ours, that it was told to have a document of; zero for none

	hosted map[string]*hosting // by replica id; what its document lists
	list   []*hosting          // the same in order; nil when it is to be made again
}

// kinds of states in which nothing new is placed on an agent; "" where it is open.
func (m *Machine) closed(a *agent) string {
	switch {
	case a.state == messages.AgentLost:
		return "lost: " + a.why
	case a.state == messages.AgentStale:
		return "stale: " + a.why
	case a.beat.State == messages.AgentDraining:
		return "draining: " + a.why
	}
	if why, ok := m.drains[a.id]; ok {
		return "draining: " + why
	}
	if m.unsteady(a) {
		return "unsteady: it came and went again and again"
	}
	return ""
}

// leaves reports whether a is to be empty in the end.
func (m *Machine) leaves(a *agent) bool {
	_, drain := m.drains[a.id]
	return a.state != messages.AgentLost && a.state != messages.AgentStale && (drain || a.beat.State == messages.AgentDraining)
}

// mustLeave reports whether what a hosts is to go elsewhere.
func (m *Machine) mustLeave(a *agent) bool {
	if a.state == messages.AgentStale {
		return !a.staleSince.IsZero() && m.now.Sub(a.staleSince) >= m.calm.StaleAfter
	}
	return m.closed(a) != ""
}

func (m *Machine) registered(env messages.Environment, inc messages.Incarnation) {
	a := m.agents[env.ID]
	if a == nil {
		a = &agent{id: env.ID, hosted: make(map[string]*hosting)}
		m.addAgent(a)
	} else if !a.inc.Before(inc) {
		// The registration of an incarnation that its own beats announced first: until now
		// it was planned with what its life before had.
		if a.inc == inc && !reflect.DeepEqual(a.env, env) {
			a.env = env
			for _, h := range a.all() {
				m.touch(h)
			}
			m.need("agent " + a.id + " is another environment now")
		}
		return
	}
	m.begin(a, env, inc)
}

// begin starts a new incarnation of a. It keeps its placements: it reads its own
// document and serves again soon, which is sooner than anybody else could.
func (m *Machine) begin(a *agent, env messages.Environment, inc messages.Incarnation) {
	if !a.inc.IsZero() {
		m.record("agent_restarted", a.id, "", "incarnation %s follows %s", inc, a.inc)
		if a.heard && !a.left { // one that says goodbye and comes back does what it was told
			m.flap(a)
		}
	}
	a.env, a.inc = env, inc
	a.state, a.why = messages.AgentStale, "registered, no beat yet"
	a.heard, a.left, a.seq, a.last, a.beat = false, false, 0, m.now, messages.Heartbeat{}
	a.suspected, a.held, a.closed, a.staleSince, a.straying = time.Time{}, false, false, time.Time{}, false
	m.at(m.now.Add(m.calm.LostAfter))
	for _, h := range a.all() {
		h.state, h.since, h.late = messages.ReplicaPending, m.now, false
		m.touch(h)
	}
	m.dirtyDocs[a.id] = true // it names the incarnation
}

func (m *Machine) unregistered(id string) {
	a := m.agents[id]
	if a == nil {
		return
	}
	m.lose(a, "its registration is gone", "agent_removed")
	m.dropAgent(id)
	delete(m.trails, id)
}

func (m *Machine) heartbeat(hb *messages.Heartbeat) {
	a := m.agents[hb.Agent]
	if a == nil {
		return // its registration comes: by the watcher, or when it finds that it is gone
	}
	switch c := hb.Inc.Compare(a.inc); {
	case c < 0:
		// An older process of the same id still runs. The document names the newer
		// incarnation, and that stops it.
		m.resendSoon(a)
		return
	case c > 0:
		m.begin(a, a.env, hb.Inc) // the beat was faster than the watcher
	case a.left || a.heard && hb.Seq <= a.seq:
		return // late
	}
	m.linkHeard = m.now // whoever hears a beat has a link
	first := !a.heard
	// A closed connection alone is no absence: it may be that of anybody who gave himself
	// the agent's name. With a missed beat it is.
	silent := m.now.Sub(later(a.last, m.linkSince))
	if !first && (a.state == messages.AgentLost || silent >= 2*m.calm.Beat || a.closed && silent >= m.calm.Beat) {
		m.flap(a)
	}
	if a.state == messages.AgentLost { // it has all the time that loading takes again
		for _, h := range a.all() {
			h.since, h.late = m.now, false
		}
	}
	a.heard, a.seq, a.last, a.beat = true, hb.Seq, m.now, *hb
	a.suspected, a.held, a.closed = time.Time{}, false, false
	m.setState(a, first)
	m.observe(a, hb.Term, hb.Rev, hb.Replicas)
	m.countStrays(a)
	m.applied(a, hb.Term, hb.Rev)
	m.load(a)
}

// setState judges an agent that beats.
func (m *Machine) setState(a *agent, first bool) {
	state, why := messages.AgentReady, "it beats"
	switch {
	case messages.Millis(a.beat.DataAge) > m.calm.StaleAfter:
		state, why = messages.AgentStale, "it beats, but its data connection does not answer"
	case a.beat.State == messages.AgentDraining:
		state, why = messages.AgentDraining, "it finishes its work and leaves"
	}
	if state != messages.AgentStale {
		if !a.staleSince.IsZero() {
			m.flap(a)
		}
		a.staleSince = time.Time{}
	} else if a.staleSince.IsZero() {
		a.staleSince = m.now
	}
	if state == a.state && !first {
		return
	}
	a.state, a.why = state, why
	m.record("agent_"+string(state), a.id, "", "%s", why)
	m.touchRoutes(a)
	m.need("agent " + a.id + " is " + string(state))
}

func (m *Machine) goodbye(g *messages.Goodbye) {
	a := m.agents[g.Agent]
	if a == nil || a.inc != g.Inc || a.left {
		return
	}
	a.left = true
	why := "it said goodbye"
	if g.Reason != "" {
		why += ": " + g.Reason
	}
	m.lose(a, why, "agent_left")
}

// lose declares a lost: nothing of it is routed any more, what can go elsewhere does.
func (m *Machine) lose(a *agent, why, kind string) {
	if a.state == messages.AgentLost && kind == "agent_lost" {
		return
	}
	a.state, a.why = messages.AgentLost, why
	a.hot, a.hotSince, a.coolSince, a.foreign = false, time.Time{}, time.Time{}, [3]latch{}
	m.record(kind, a.id, "", "%s", why)
	m.touchRoutes(a)
	for _, h := range a.all() {
		m.hostLost(h, kind == "agent_removed")
	}
	m.need("agent " + a.id + " is lost")
}

// touchRoutes marks the routes of everything that a hosts.
func (m *Machine) touchRoutes(a *agent) {
	for _, h := range a.hosted {
		m.dirtyRoutes[h.task.Name] = true
	}
}

// suspect notes evidence that a is gone. A living agent beats within Calm.Beat; if it
// does not, judge declares it lost.
func (m *Machine) suspect(a *agent, why string) {
	if a.state != messages.AgentLost && a.suspected.IsZero() {
		a.suspected, a.evidence = m.now, why
		m.at(m.now.Add(m.calm.Beat))
	}
}
