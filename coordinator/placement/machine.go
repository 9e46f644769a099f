package placement

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// Machine is the coordinator's picture of the fleet and its decisions. The zero value
// is not ready; see [New].
type Machine struct {
	calm Calm

	// What is known, by leader and follower alike.
	agents    map[string]*agent
	tasks     []messages.Task // sorted by name, defaults filled in
	settings  messages.Settings
	drains    map[string]string // agent → reason
	haveTasks bool
	linkUp    bool
	linkSince time.Time // since when silence means something; see judge
	linkHeard time.Time // when it answered last
	linkTells bool      // the shell tells when it answers
	unproven  bool      // somebody would be lost, had the link answered since
	holdUntil time.Time // mass loss is suspected until then
	tremor    bool      // most of the fleet comes and goes; see flap.go
	meter     alloc.Meter

	// What a leader decides.
	leading   bool
	listening bool      // it does so now
	listenTo  time.Time // elected with nothing saved: until then it hears what agents serve first
	term      messages.Term
	outrank   messages.Term // the newest that an agent had a document of, and that we were asked to yield to
	replicas  map[string]*replica
	docs      map[string]*document
	rollouts  map[string]*rollout // tasks whose new version is on its way
	routes    routeTable
	leaving   map[string]map[string]messages.Class // tasks that are no more, by name: the sites they were in
	cycleEnd  time.Time                            // moves for gain are counted until then
	moved     int
	reserved  map[*agent][]*replica // rooms that are made, for whom; see makeRoom
	keptOff   map[string]string     // of the last problem: what keeps a replica off some environments
	reviewAt  time.Time             // a plan is due then: what was held back may move

	// Of the Step that runs.
	now         time.Time
	planWhy     string          // why a plan is due; "" for none
	dirtyRanks  map[string]bool // tasks whose hostings changed
	dirtyRoutes map[string]bool // tasks that clients are to hear of
	dirtyDocs   map[string]bool
	heldDocs    map[string]bool // saved documents that wait for the routes; see flush
	saves       []Effect
	sends       []Effect
	records     []Effect

	// Caches of the above, in order; nil when they are to be made again.
	agentList   []*agent
	replicaList []*replica
	docList     []*document

	placer, mover alloc.Solver // for what needs a place, for what may move
	solveAt       time.Time    // a full solve for gain is due then
	planAt        time.Time    // no plan before
	sweptAt       time.Time
	trails        map[string][]messages.Event // what was decided, by replica and by agent

	due   time.Time // the earliest moment at which time alone changes something
	wake  time.Time // what the last WakeAt asked for
	stamp uint64    // of the beat that is folded; see observe
	gen   int       // of the desired tasks
	begun int       // places and moves that were begun, ever
}

// New returns a Machine that knows nothing, does not lead, and whose link is down.
func New(calm Calm) *Machine {
	m := &Machine{calm: calm.normal(), agents: make(map[string]*agent), drains: make(map[string]string),
		settings: messages.DefaultSettings(), dirtyRanks: make(map[string]bool),
		dirtyRoutes: make(map[string]bool), dirtyDocs: make(map[string]bool)}
	m.forget()
	return m
}

// forget drops everything that only a leader knows.
func (m *Machine) forget() {
	m.replicas, m.docs, m.routes = make(map[string]*replica), make(map[string]*document), routeTable{}
	m.reserved, m.heldDocs = nil, make(map[string]bool)
	m.leaving = make(map[string]map[string]messages.Class)
	m.replicaList, m.docList, m.rollouts, m.trails = nil, nil, make(map[string]*rollout), make(map[string][]messages.Event)
	m.planWhy, m.reviewAt, m.moved, m.cycleEnd, m.listening = "", time.Time{}, 0, time.Time{}, false
	m.placer, m.mover, m.solveAt, m.planAt = alloc.Solver{}, alloc.Solver{}, time.Time{}, time.Time{}
	clear(m.dirtyRanks)
	clear(m.dirtyRoutes)
	clear(m.dirtyDocs)
	for _, a := range m.agents {
		a.clear()
	}
}

// Step folds one event and returns what is to be done now, in the order in which it is
// to be done. now must not go back.
func (m *Machine) Step(now time.Time, ev Event) []Effect {
	m.now, m.saves, m.sends, m.records = now, nil, nil, nil
	m.checkLate()
	m.fold(ev)
	_, tick := ev.(Tick)
	if tick || m.wake.IsZero() || !now.Before(m.wake) {
		m.sweep()
	}
	if m.leading && m.linkUp && m.haveTasks {
		if m.planWhy != "" && m.now.Before(m.planAt) {
			m.at(m.planAt)
		} else if m.planWhy != "" {
			m.replan()
			m.planAt = m.now.Add(m.rest(planRest))
		}
		if !m.listening { // clients go on with the routes that they have
			m.flush()
		}
	}
	if !m.leading {
		m.planWhy, m.saves, m.sends, m.records = "", nil, nil, nil
		clear(m.dirtyRanks)
		clear(m.dirtyRoutes)
		clear(m.dirtyDocs)
	}
	out := slices.Concat(m.saves, m.sends, m.records)
	// A Tick has used the shell's timer up, also one that came a moment early.
	if tick || !m.due.Equal(m.wake) {
		m.wake = m.due
		out = append(out, WakeAt{m.wake})
	}
	return out
}

func (m *Machine) fold(ev Event) {
	switch ev := ev.(type) {
	case Registered:
		m.registered(ev.Registration.Environment.Normal(), ev.Inc)
	case Unregistered:
		m.unregistered(ev.Agent)
	case Heartbeat:
		m.heartbeat(&ev.Heartbeat)
	case Goodbye:
		m.goodbye(&ev.Goodbye)
	case ConnClosed:
		if a := m.agents[ev.Agent]; a != nil && a.inc == ev.Inc {
			m.suspect(a, "its connection was closed")
			a.closed = true
		}
	case Unreached:
		if a := m.agents[ev.Agent]; a != nil && a.inc == ev.Inc {
			m.suspect(a, "nobody answers there, says "+ev.By)
		}
	case Reached:
		if a := m.agents[ev.Agent]; a != nil && a.inc == ev.Inc {
			a.suspected = time.Time{}
		}
	case Ack:
		m.ack(&ev.PlacementAck)
	case SendFailed:
		m.sendFailed(ev)
	case Saved:
		m.saved(ev)
	case SaveFailed:
		m.saveFailed(ev)
	case RoutesSaved:
		m.routesSaved(ev.Term, ev.Rev, true)
	case RoutesSaveFailed:
		m.routesSaved(ev.Term, ev.Rev, false)
	case TasksChanged:
		m.tasksChanged(ev)
	case PlacementsLoaded:
		m.adopt(ev)
	case Elected:
		m.elected(ev.Term)
	case Deposed:
		m.leading, m.linkTells = false, false // it may be only a leader's lease that told
		m.forget()
	case LinkUp:
		if !m.linkUp {
			m.linkUp, m.linkSince = true, m.now
			m.need("the link is back")
		}
	case LinkHeard:
		m.linkHeard, m.linkTells = m.now, true
		if m.unproven {
			m.judge()
		}
	case LinkDown:
		m.linkUp = false
	}
}

// need asks for a plan at the end of the Step; the first reason stands.
func (m *Machine) need(why string) {
	if m.planWhy == "" {
		m.planWhy = why
	}
}

// at asks for a Step at t at the latest. What is over already waits for the next sweep:
// so a mistake here costs a second and never becomes a busy loop. In a large fleet
// moments that are close together become one.
func (m *Machine) at(t time.Time) {
	if !t.After(m.now) {
		return
	}
	if rest := m.sweptAt.Add(m.rest(sweepRest)); t.Before(rest) {
		t = rest
	}
	if t.Before(m.due) {
		m.due = t
	}
}

// How long the Machine rests after it looked at everything, and after a plan, for each
// agent and replica that there is: ten times what that takes, so that neither ever has
// more than a tenth of its goroutine, whatever happens. Counts and not a clock, so that
// equal histories give equal effects. A fleet of 50,000 robots is swept once a second and
// planned every two; what is smaller than restFrom is never kept waiting.
const (
	sweepRest = 10 * time.Microsecond
	planRest  = 20 * time.Microsecond
	restFrom  = 500
)

func (m *Machine) rest(each time.Duration) time.Duration {
	if n := len(m.agents) + len(m.replicas); n >= restFrom {
		return time.Duration(n) * each
	}
	return 0
}

// sweepEvery is how long the Machine is left without a Step at most: back-offs are
// judged at this grain. Load is judged with every beat.
const sweepEvery = time.Second

// sweep does what time alone brings about, and sets the next time.
func (m *Machine) sweep() {
	m.sweptAt, m.due = m.now, m.now.Add(sweepEvery)
	m.judge()
	if !m.leading {
		return
	}
	for _, r := range m.allReplicas() {
		m.age(r)
	}
	for _, d := range m.allDocs() {
		m.resend(d)
	}
	if !m.reviewAt.IsZero() {
		if m.now.Before(m.reviewAt) {
			m.at(m.reviewAt)
		} else {
			m.reviewAt = time.Time{}
			m.need("review of what was held back")
		}
	}
}

// review asks for a plan at t at the latest.
func (m *Machine) review(t time.Time) {
	if m.reviewAt.IsZero() || t.Before(m.reviewAt) {
		m.reviewAt = t
	}
	m.at(t)
}
