package placement

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// replica is one replica that is wanted, or was and has not stopped everywhere.
type replica struct {
	id     string
	spec   alloc.Replica // as it is wanted now
	wanted bool
	home   *hosting   // serves, or will
	next   *hosting   // loads, and takes over when it is ready
	old    []*hosting // finish what they have and stop

	why     string // it is where it is, or waits
	waiting bool   // it is not where it should be, and nothing can be done now
	since   time.Time
	claim   latch   // TFLOPS measured; see load.go
	rate    float64 // 1/s, smoothed, and when; in mode adaptive only
	rateAt  time.Time

	updating bool     // a new version of its task is on its way; see rollout.go
	blocked  bool     // it would be, but cannot
	tried    []string // environments that are avoided because a new version failed there

	fails       int // of this home
	tries       int // how often it was placed anew for failing, since it was last steady
	retryAt     time.Time
	failedSince time.Time
	readySince  time.Time
	avoid       map[string]time.Time // environment → until when
}

// hosting is one replica in the document of one agent.
type hosting struct {
	replica *replica
	agent   *agent
	task    messages.Task // the version that the agent is told to serve
	work    float64       // GFLOP a request of it
	gen     int           // the desired state of which it is known to be the version
	seen    uint64        // the sequence of the last beat that spoke of it
	rank    int
	drain   bool
	proved  bool // this version was ready here
	late    bool // it was not, for Calm.LoadFor
	state   messages.ReplicaState
	status  messages.ReplicaStatus
	since   time.Time
	changed bool               // since the last document was made
	reopens bool               // by that: what serves stops first
	adopted bool               // from the leader before, and its agent has not said yet that it serves this version
	before  messages.Resources // what the version before takes until it has stopped
	term    messages.Term      // of the document that last changed it: what an agent says
	rev     uint64             // of it under an older one does not count
}

// need is what h takes of its environment.
func (h *hosting) need() messages.Resources {
	return h.replica.claimed(h.task.Demand).Max(h.before)
}

// claimed is the demand that the plan counts for r: what was declared, or what was
// measured where that is more.
func (r *replica) claimed(declared messages.Resources) messages.Resources {
	declared.Compute = max(declared.Compute, r.claim.v)
	return declared
}

// empty reports whether no document lists r.
func (r *replica) empty() bool { return r.home == nil && r.next == nil && len(r.old) == 0 }

// serves reports whether h answers requests now.
func (h *hosting) serves() bool {
	return h != nil && h.state == messages.ReplicaReady && h.agent.state != messages.AgentLost
}

// host puts r into the document of a, as its home or as what comes after it.
func (m *Machine) host(r *replica, a *agent) *hosting {
	h := &hosting{replica: r, agent: a, task: r.spec.Task, work: r.spec.Task.WorkGFLOP(), state: messages.ReplicaPending, since: m.now, changed: true}
	h.status = messages.ReplicaStatus{ID: r.id, State: h.state}
	a.add(h)
	m.touch(h)
	return h
}

// touch marks what depends on h to be made again.
func (m *Machine) touch(h *hosting) {
	m.dirtyDocs[h.agent.id] = true
	m.dirtyRanks[h.task.Name], m.dirtyRoutes[h.task.Name] = true, true
}

// place brings r to a. A home that serves goes on until the new one is ready; one that
// does not is left at once.
func (m *Machine) place(r *replica, a *agent, why string) {
	r.why, r.waiting, r.blocked = why, false, false
	m.begun++
	if r.home.serves() {
		r.next = m.host(r, a)
		m.record("replica_moving", a.id, r.id, "from %s: %s", r.home.agent.id, why)
		return
	}
	left := r.home
	if m.failing(r) { // the next environment may fail it too: not all of them in a row
		r.retryAt = m.now.Add(backoff(m.calm.FailBackoff, m.calm.FailBackoffMax, r.tries))
		r.tries++
	}
	r.home, r.since = m.host(r, a), m.now
	r.fails, r.failedSince, r.readySince = 0, time.Time{}, time.Time{}
	m.onItsWay(r)
	if left != nil {
		m.record("replica_moved", a.id, r.id, "from %s: %s", left.agent.id, why)
		m.retire(left, why)
		return
	}
	m.record("replica_placed", a.id, r.id, "%s", why)
}

// promote makes the next the home: traffic shifts, then the old home drains. The routes
// are saved and sent before the document that drains it.
func (m *Machine) promote(r *replica, why string) {
	left := r.home
	r.home, r.next, r.since = r.next, nil, m.now
	r.fails, r.failedSince, r.readySince = 0, time.Time{}, time.Time{}
	if r.home.state == messages.ReplicaReady {
		r.readySince = m.now
	}
	m.onItsWay(r)
	m.touch(r.home)
	if left != nil {
		m.record("replica_moved", r.home.agent.id, r.id, "from %s: %s", left.agent.id, why)
		m.retire(left, "it moved to "+r.home.agent.id)
	}
}

// rollback gives a move up: the home goes on.
func (m *Machine) rollback(r *replica, why string) {
	h := r.next
	r.next, r.why = nil, "stays: the move to "+h.agent.id+" was given up: "+why
	m.record("move_given_up", h.agent.id, r.id, "%s", why)
	m.retire(h, why)
	m.need("a move was given up")
}

// retire takes h out of service. An agent that lives is told to drain it and keeps it
// in its document until it has stopped; of a lost one there is nothing to wait for.
func (m *Machine) retire(h *hosting, why string) {
	r := h.replica
	if r.home == h {
		r.home = nil
	}
	if r.next == h {
		r.next = nil
	}
	if h.agent.state == messages.AgentLost {
		m.remove(h)
		return
	}
	if !h.drain {
		h.drain, h.changed, h.state = true, true, messages.ReplicaDraining
		r.old = append(r.old, h)
		m.record("replica_draining", h.agent.id, r.id, "%s", why)
		m.touch(h)
	}
}

// remove takes h out of its agent's document: it has stopped, or is gone.
func (m *Machine) remove(h *hosting) {
	r := h.replica
	h.agent.drop(h)
	if h.agent.state == messages.AgentLost {
		h.agent.straying = true // it may run it still, and nobody hears of its end
	}
	m.touch(h)
	if r.home == h {
		r.home = nil
	}
	if r.next == h {
		r.next = nil
	}
	r.old = slices.DeleteFunc(r.old, func(o *hosting) bool { return o == h })
	m.left(h)
	if !r.wanted && r.empty() {
		m.dropReplica(r)
	}
	m.need("room on " + h.agent.id)
}

// hostLost follows the loss of an agent. What only that agent could serve stays in its
// document, which waits for it; the plan takes away what it can place elsewhere.
func (m *Machine) hostLost(h *hosting, removed bool) {
	r := h.replica
	h.state = messages.ReplicaPending
	switch {
	case h.drain:
		m.remove(h)
	case h == r.next:
		m.rollback(r, "its agent is lost")
	case r.next != nil:
		m.promote(r, "agent "+h.agent.id+" is lost: "+h.agent.why)
	case removed:
		m.remove(h)
	}
}

// observe folds what an agent that has applied (term, rev) says of its replicas.
func (m *Machine) observe(a *agent, term messages.Term, rev uint64, list []messages.ReplicaStatus) {
	m.stamp++
	known, ours := 0, len(a.hosted)
	for i := range list {
		if h := a.hosted[list[i].ID]; h != nil {
			if h.seen != m.stamp {
				h.seen = m.stamp
				known++
			}
			m.status(h, term, rev, &list[i])
		}
	}
	if known == ours {
		return
	}
	for _, h := range a.all() {
		if h.seen == m.stamp {
			continue
		}
		gone := messages.ReplicaStatus{ID: h.replica.id, State: messages.ReplicaPending}
		if h.drain {
			gone.State = messages.ReplicaStopped
		}
		m.status(h, term, rev, &gone)
	}
}

func (m *Machine) status(h *hosting, term messages.Term, rev uint64, st *messages.ReplicaStatus) {
	if h.changed || !reached(term, rev, h.term, h.rev) {
		return // said before it knew
	}
	if m.leading && m.term.Before(term) {
		return // said of another's document; see outranked
	}
	r, before := h.replica, h.state
	switch st.State {
	case messages.ReplicaLoading, messages.ReplicaReady, messages.ReplicaFailed:
		if (h.before != messages.Resources{}) {
			h.before = messages.Resources{}
			m.need("room on " + h.agent.id)
		}
	}
	if h.adopted && (h.drain || st.State != messages.ReplicaDraining) {
		h.adopted = false
		if m.closed(h.agent) == "" {
			m.need("it is known what " + h.agent.id + " runs")
		}
	}
	goesOn := st.State == messages.ReplicaLoading && st.Done > h.status.Done
	h.state, h.status = st.State, *st
	if goesOn {
		h.since = m.now // what it fetches is coming: that is not late, however long it takes
	}
	if before == messages.ReplicaReady {
		h.since = m.now // it is not any more, or nothing changed
	}
	if h.drain {
		if st.State == messages.ReplicaStopped || st.State == messages.ReplicaFailed {
			m.record("replica_stopped", h.agent.id, r.id, "it has finished what it had")
			m.remove(h)
		}
		return
	}
	if before == st.State {
		return
	}
	m.dirtyRoutes[h.task.Name] = true
	switch st.State {
	case messages.ReplicaReady:
		late := h.late
		h.proved, h.late = true, false
		if h == r.home && (r.waiting || late || before == messages.ReplicaFailed) {
			r.waiting, r.blocked, r.why = false, false, "it serves again on "+h.agent.id
		}
		m.record("replica_ready", h.agent.id, r.id, "%s", r.why)
		if h == r.next {
			m.promote(r, r.why)
		} else {
			r.readySince, r.failedSince = m.now, time.Time{}
		}
		switch ro := m.rollouts[h.task.Name]; {
		case r.updating:
			m.review(m.now.Add(m.calm.Soak))
		case ro != nil && !ro.held(m.now):
			m.need("replica " + r.id + " is ready for the update of its task")
		}
	case messages.ReplicaFailed:
		m.failed(h, st.Reason)
	case messages.ReplicaStopped:
		// Nobody told it to: it opens again for a changed task, its agent leaves, or it is a
		// kind of failure.
		if m.closed(h.agent) == "" && (before == messages.ReplicaDraining || r.updating && before != messages.ReplicaReady) {
			h.state = messages.ReplicaPending
		} else if m.closed(h.agent) == "" {
			h.state = messages.ReplicaFailed
			m.failed(h, "it stopped by itself")
		} else if h == r.next {
			m.rollback(r, "its agent leaves")
		} else {
			m.need("replica " + r.id + " stopped")
		}
	}
	if before == messages.ReplicaReady && h == r.home {
		r.readySince = time.Time{}
	}
}

// reached reports whether (term, rev) is not older than (wantTerm, want).
func reached(term messages.Term, rev uint64, wantTerm messages.Term, want uint64) bool {
	if c := term.Compare(wantTerm); c != 0 {
		return c > 0
	}
	return rev >= want
}
