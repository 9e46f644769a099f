package placement

import "time"

// An agent that comes and goes again and again (a process that is restarted every two
// seconds, a link that is as often cut) is never gone for long enough to be lost, and
// never there for long enough to serve. Each time counts; from Calm.FlapLimit on it is
// unsteady: what it hosts moves, make-before-break where it serves just now, and nothing
// new comes, until it has been steady for Calm.FlapHold, twice as long with every further
// time up to Calm.FlapHoldMax. What can be nowhere else stays.
//
// Where most of the fleet is unsteady, the network is, and there is nowhere to go: then
// nobody counts as unsteady.

// flap notes that a came or went. One incident has several signs; they count once.
func (m *Machine) flap(a *agent) {
	if !m.linkUp || m.now.Sub(m.linkSince) < m.calm.LostAfter || !a.flapAt.IsZero() && m.now.Sub(a.flapAt) < m.calm.Beat {
		return // it may have been our own link, or the same incident
	}
	a.flaps, a.flapAt = a.flaps+1, m.now
	if a.flaps < m.calm.FlapLimit {
		return
	}
	if a.unsteadyTo.IsZero() {
		m.record("agent_unsteady", a.id, "", "it came and went %d times within %v", a.flaps, m.calm.FlapWindow)
		m.need("agent " + a.id + " is unsteady")
	}
	a.unsteadyTo = m.now.Add(backoff(m.calm.FlapHold, m.calm.FlapHoldMax, a.flaps-m.calm.FlapLimit))
	m.at(a.unsteadyTo)
}

// steady forgets what is long enough ago.
func (m *Machine) steady(a *agent) {
	if a.flaps == 0 {
		return
	}
	if !a.unsteadyTo.IsZero() {
		if m.now.Before(a.unsteadyTo) {
			m.at(a.unsteadyTo)
			return
		}
		a.unsteadyTo = time.Time{}
		m.record("agent_steady", a.id, "", "it did not come and go for %v", m.now.Sub(a.flapAt).Round(time.Second))
		m.need("agent " + a.id + " is steady again")
	}
	// An agent that was unsteady has to be steady for longer: what flaps once in a hold
	// would else be trusted each time.
	window := m.calm.FlapWindow
	if a.flaps >= m.calm.FlapLimit {
		window = m.calm.FlapHoldMax
	}
	if m.now.Sub(a.flapAt) >= window {
		a.flaps = 0
	}
}

// unsteady reports whether a is not to be relied upon.
func (m *Machine) unsteady(a *agent) bool { return !a.unsteadyTo.IsZero() && !m.tremor }
