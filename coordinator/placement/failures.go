package placement

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// failed follows the failure of a replica on its agent, which tries again by itself.
func (m *Machine) failed(h *hosting, why string) {
	r := h.replica
	if why == "" {
		why = "no reason given"
	}
	m.record("replica_failed", h.agent.id, r.id, "%s", why)
	if h == r.next {
		update := r.home != nil && !sameService(h.task, r.home.task)
		m.shun(r, h.agent.id)
		m.rollback(r, "it failed there: "+why)
		if update {
			r.tried = append(r.tried, h.agent.id)
			m.updateFailed(r, why)
		}
		return
	}
	if r.updating && m.rollouts[h.task.Name] != nil {
		m.updateFailed(r, why)
		return
	}
	r.updating = false // that ended without it
	r.fails++
	r.failedSince = m.now
	r.why = "failed on " + h.agent.id + ": " + why
	if r.fails >= m.calm.FailLimit {
		m.shun(r, h.agent.id)
		if m.failing(r) {
			m.need("replica " + r.id + " keeps failing")
		}
	}
}

// shun keeps r off an environment for a while.
func (m *Machine) shun(r *replica, env string) {
	if r.spec.Pin != "" {
		return // there is no other
	}
	if r.avoid == nil {
		r.avoid = make(map[string]time.Time)
	}
	r.avoid[env] = m.now.Add(backoff(m.calm.AvoidFor, m.calm.AvoidForMax, r.tries))
}

// failing reports whether r is to be tried elsewhere now.
func (m *Machine) failing(r *replica) bool {
	return r.home != nil && (r.home.state == messages.ReplicaFailed || r.home.late) && !m.now.Before(r.retryAt) && m.shuns(r, r.home.agent.id)
}

func (m *Machine) shuns(r *replica, env string) bool { return m.now.Before(r.avoid[env]) }

// age does what time alone brings about for a replica.
func (m *Machine) age(r *replica) {
	if r.next != nil {
		if m.now.Sub(r.next.since) >= m.calm.LoadFor {
			to := r.next.agent.id
			late := "it was not ready after " + m.calm.LoadFor.String()
			update := r.home != nil && !sameService(r.next.task, r.home.task)
			m.shun(r, to)
			m.rollback(r, late)
			if update {
				r.tried = append(r.tried, to)
				m.updateFailed(r, late)
			}
		} else {
			m.at(r.next.since.Add(m.calm.LoadFor))
		}
	}
	for _, env := range sorted(r.avoid) {
		if !m.shuns(r, env) {
			delete(r.avoid, env)
		}
	}
	h := r.home
	if h == nil {
		return
	}
	if r.next == nil {
		m.ageLoading(h)
	}
	if r.updating && r.next == nil && h.agent.state != messages.AgentLost && !h.serves() {
		if end := h.since.Add(m.calm.LoadFor); m.now.Before(end) {
			m.at(end)
		} else {
			m.updateFailed(r, "it was not ready after "+m.calm.LoadFor.String())
		}
	}
	if h.state == messages.ReplicaReady && !r.readySince.IsZero() && m.now.Sub(r.readySince) >= m.calm.SteadyAfter {
		r.fails, r.tries = 0, 0
	}
	if h.state == messages.ReplicaFailed && h.agent.state != messages.AgentLost {
		if !m.shuns(r, h.agent.id) && m.now.Sub(r.failedSince) >= m.calm.FailedFor {
			m.shun(r, h.agent.id)
		}
		if m.failing(r) {
			m.need("replica " + r.id + " keeps failing")
		} else {
			m.at(r.retryAt)
		}
	}
}

// ageLoading gives up on a home that is not ready for Calm.LoadFor and says nothing of a
// failure: it is tried elsewhere, and goes on where it is if there is no other place. One
// that is updated goes back; an agent that is away is waited for.
func (m *Machine) ageLoading(h *hosting) {
	r := h.replica
	if h.state != messages.ReplicaPending && h.state != messages.ReplicaLoading || r.updating || h.agent.state != messages.AgentReady {
		return
	}
	if end := h.since.Add(m.calm.LoadFor); m.now.Before(end) {
		m.at(end)
		return
	}
	if !h.late {
		h.late = true
		r.failedSince = m.now
		r.why = m.lateWhy(h)
		m.record("replica_failed", h.agent.id, r.id, "%s", r.why)
	}
	if !m.shuns(r, h.agent.id) {
		m.shun(r, h.agent.id)
	}
	if m.failing(r) {
		m.need("replica " + r.id + " does not get ready")
	} else {
		m.at(r.retryAt)
	}
}

func (m *Machine) lateWhy(h *hosting) string {
	return "it was not ready on " + h.agent.id + " after " + m.calm.LoadFor.String() + m.unanswered(h.agent)
}
