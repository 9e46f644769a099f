package placement

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// checkLate notices that this process stood still (a stopped process, a frozen
// machine): every deadline would then seem to pass at once. All agents get a new
// window.
func (m *Machine) checkLate() {
	if m.wake.IsZero() || !m.linkUp {
		return
	}
	if late := m.now.Sub(m.wake); late > m.calm.LateWake {
		m.linkSince = m.now
		m.record("self_suspected", "", "", "this coordinator stood still for %v: nobody is declared lost for %v", late.Round(time.Millisecond), m.calm.LostAfter)
	}
}

// judge declares lost who is silent for too long, unless the coordinator has more
// reason to doubt itself.
//
// Blindness gate: silence counts from when the own link came up, and only if the link has
// answered since the agent should have been heard: else it may be the link that is dead and
// has not noticed yet, which takes the client library seconds. Mass loss: when more
// than half of the fleet (three at least) is silent at once, it is likelier that the
// coordinator is cut off from them than that all died; it waits for another window, in
// which those that live are heard.
func (m *Machine) judge() {
	if !m.linkUp {
		return // nothing can be heard
	}
	sighted := m.now.Sub(m.linkSince) >= m.calm.LostAfter
	if !sighted {
		m.at(m.linkSince.Add(m.calm.LostAfter))
	}
	var gone []*agent
	var alive, quiet int
	unheld, unproven := false, false
	unsteady, there := 0, 0
	for _, a := range m.allAgents() {
		m.steady(a)
		if !a.unsteadyTo.IsZero() {
			unsteady++
		}
		if !a.unsteadyTo.IsZero() || a.state != messages.AgentLost {
			there++ // what is gone for good says nothing of the network
		}
		if a.state == messages.AgentLost {
			continue
		}
		alive++
		silent := m.now.Sub(later(a.last, m.linkSince))
		// Agents that died together do not miss their third beat together: they had
		// beaten at different moments of the last second. Those that have missed two
		// count as quiet too.
		if silent >= m.calm.LostAfter-m.calm.Beat || !a.suspected.IsZero() {
			quiet++
		}
		suspectedLong := !a.suspected.IsZero() && m.now.Sub(later(a.suspected, m.linkSince)) >= m.calm.Beat
		if sighted && (silent >= m.calm.LostAfter || suspectedLong) {
			if !m.answered(a) {
				unproven = true
				continue // the next answer of the link, or its end, decides
			}
			gone = append(gone, a)
			unheld = unheld || !a.held
			continue
		}
		m.at(later(a.last, m.linkSince).Add(m.calm.LostAfter))
		if !a.suspected.IsZero() {
			m.at(a.suspected.Add(m.calm.Beat))
		}
		if !a.staleSince.IsZero() {
			m.staleTimer(a)
		}
	}
	m.unproven = unproven
	m.tremor = 2*unsteady > there
	if unheld && quiet >= 3 && 2*quiet > alive && m.now.After(m.holdUntil) {
		m.hold(quiet, alive)
	}
	if m.now.Before(m.holdUntil) {
		m.at(m.holdUntil)
		return
	}
	for _, a := range gone {
		why := "no beat for " + m.now.Sub(a.last).Round(100*time.Millisecond).String()
		if !a.suspected.IsZero() {
			why = a.evidence + ", and no beat came after it"
		}
		m.lose(a, why, "agent_lost")
	}
}

// answered reports whether the own link is known to have worked while a was silent: after
// two of its beats were due, or after what spoke against it.
func (m *Machine) answered(a *agent) bool {
	if !m.linkTells || !a.suspected.IsZero() && m.linkHeard.After(a.suspected) {
		return true
	}
	return m.linkHeard.Sub(later(a.last, m.linkSince)) >= 2*m.calm.Beat
}

func (m *Machine) hold(quiet, alive int) {
	m.holdUntil = m.now.Add(m.calm.LostAfter)
	for _, a := range m.agents {
		a.held = a.state != messages.AgentLost
	}
	m.record("self_suspected", "", "", "%d of %d agents fell silent together: this coordinator may be cut off, it waits for %v", quiet, alive, m.calm.LostAfter)
}

// staleTimer asks for a plan when an agent has been stale for long enough to be left.
func (m *Machine) staleTimer(a *agent) {
	leave := a.staleSince.Add(m.calm.StaleAfter)
	if m.now.Before(leave) {
		m.at(leave)
		return
	}
	for _, h := range a.hosted {
		if h.replica.home == h && h.replica.next == nil && !h.replica.waiting {
			m.need("agent " + a.id + " stays stale")
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
