package placement

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// adopt takes over what the leader before has saved. What runs stays where it is.
func (m *Machine) adopt(ev PlacementsLoaded) {
	if m.leading {
		return
	}
	m.forget()
	routed := make(map[string]messages.Route) // by replica
	if ev.Routes != nil {
		for _, t := range ev.Routes.Tasks {
			for _, r := range t.Replicas {
				routed[r.ID] = r
			}
		}
	}
	docs := make(map[string]messages.Placement, len(ev.Docs))
	for _, d := range ev.Docs {
		docs[d.Agent] = d
	}
	serving := make(map[string][]*hosting) // by replica, sorted by agent
	for _, id := range sorted(docs) {
		doc := docs[id]
		d := m.document(id)
		d.doc, d.saved = doc, doc.Rev
		a := m.agents[id]
		if a == nil {
			continue // its registration is gone; the revisions go on where they were
		}
		for _, p := range doc.Replicas {
			if h := m.adoptHosting(a, p, doc); !h.drain {
				h.goOn(routed[p.ID])
				serving[p.ID] = append(serving[p.ID], h)
			}
		}
	}
	for _, id := range sorted(serving) {
		m.adoptHome(serving[id], routed[id].Agent)
	}
	for _, a := range m.allAgents() {
		m.observe(a, a.beat.Term, a.beat.Rev, a.beat.Replicas)
		m.countStrays(a)
		m.load(a) // what is measured is not to be learned anew

		if a.state == messages.AgentLost { // since before the election: nobody says it again
			for _, h := range a.all() {
				m.hostLost(h, false)
			}
		}
	}
}

func (m *Machine) adoptHosting(a *agent, p messages.PlacedReplica, doc messages.Placement) *hosting {
	r := m.replicas[p.ID]
	if r == nil {
		r = &replica{id: p.ID, why: "adopted: it drained before the election"}
		r.spec.ID, r.spec.Task = p.ID, p.Task
		m.addReplica(r)
	}
	h := &hosting{replica: r, agent: a, task: p.Task, work: p.Task.WorkGFLOP(), rank: p.Rank, drain: p.Drain, since: m.now,
		state: messages.ReplicaPending, term: doc.Term, rev: doc.Rev}
	h.status, h.adopted = messages.ReplicaStatus{ID: p.ID, State: h.state}, true
	if h.drain {
		h.state = messages.ReplicaDraining
		r.old = append(r.old, h)
	}
	a.add(h)
	return h
}

// goOn takes the leader's word before for it that h is ready, until a beat says
// otherwise: a leader that was elected before it heard one would tell all clients that
// nothing is ready. A dead agent is found as always, by its silence.
func (h *hosting) goOn(r messages.Route) {
	if r.State == messages.ReplicaReady && r.Agent == h.agent.id && r.Inc == h.agent.inc && h.agent.state != messages.AgentLost {
		h.state, h.status.State, h.proved = r.State, r.State, true
	}
}

// adoptHome tells the home of a replica from the next: the routes name it; where they
// do not, the one that says that it is ready, else the first. The election came in the
// middle of a move, which goes on.
func (m *Machine) adoptHome(list []*hosting, routed string) {
	home := list[0]
	for _, h := range list {
		if h.reported() == messages.ReplicaReady && home.reported() != messages.ReplicaReady {
			home = h
		}
	}
	for _, h := range list {
		if h.agent.id == routed {
			home = h
		}
	}
	r := home.replica
	r.home, r.since, r.why = home, m.now, "adopted: it was there before the election"
	for _, h := range list {
		switch {
		case h == home:
		case r.next == nil:
			r.next = h
		default:
			m.retire(h, "one replica needs one home")
		}
	}
}

// reported is what the agent said last of a replica.
func (h *hosting) reported() messages.ReplicaState {
	for _, st := range h.agent.beat.Replicas {
		if st.ID == h.replica.id {
			return st.State
		}
	}
	return messages.ReplicaPending
}

// adoptReported heals a lost placements bucket: what no document lists and a living
// agent without a document says it serves, stays there. What else it runs it is told to
// stop, by a document that lists nothing.
func (m *Machine) adoptReported() {
	for _, a := range m.allAgents() {
		id := a.id
		if !a.straying || m.docs[id] != nil || m.closed(a) != "" {
			continue
		}
		m.dirtyDocs[id] = true
		for _, st := range a.beat.Replicas {
			r := m.replicas[st.ID]
			if r == nil || !r.wanted || r.home != nil || st.State != messages.ReplicaReady || m.forbidden(r, a) != "" {
				continue
			}
			if !r.spec.Task.Demand.Within(m.usable(a).Sub(m.used(a))) {
				continue // it ran another version, or more than it was told to: it stops, and is placed anew
			}
			h := m.host(r, a)
			h.adopted, h.proved = true, true
			h.state, h.status = st.State, st
			r.home, r.since, r.why = h, m.now, "adopted: the agent serves it, though its document was lost"
			m.record("replica_adopted", id, r.id, "%s", r.why)
		}
		m.countStrays(a)
	}
}

// listens reports whether the plan waits for agents that are registered and have not
// been heard yet: nothing is saved, so what they serve only they can tell. They beat
// within Calm.Beat, if they live.
func (m *Machine) listens() bool {
	m.listening = m.now.Before(m.listenTo)
	if !m.listening || !slices.ContainsFunc(m.allAgents(), func(a *agent) bool { return !a.heard && a.state == messages.AgentStale }) {
		m.listening = false
		return false
	}
	for _, r := range m.allReplicas() {
		if r.wanted && r.home == nil {
			m.waits(r, "nothing is saved, and agents have yet to say what they serve")
		}
	}
	m.review(m.listenTo)
	return true
}

// elected begins to act. Every document is given out again under the new term, so that
// agents refuse what the old leader may still send; nothing in it changes for that.
func (m *Machine) elected(term messages.Term) {
	m.leading, m.term = true, term
	m.record("elected", "", "", "term %s: %d agents, %d replicas adopted", term, len(m.agents), len(m.replicas))
	for _, a := range m.agents {
		a.outranks = messages.Term{}
	}
	m.listenTo = time.Time{}
	if len(m.docs) == 0 {
		m.listenTo = m.now.Add(m.calm.Beat)
	}
	for _, id := range sorted(m.docs) {
		m.docs[id].force = true
		m.dirtyDocs[id] = true
	}
	for _, t := range m.tasks {
		m.dirtyRanks[t.Name], m.dirtyRoutes[t.Name] = true, true
	}
	for _, r := range m.replicas {
		r.since = m.now // a new leader does not know better at once
		if r.home != nil && r.home.state == messages.ReplicaReady {
			r.readySince = m.now
		} else {
			r.readySince = time.Time{}
		}
	}
	m.wake = m.now // time has passed for whoever only watched: look at everything
	m.need("elected")
}

// left notes that h is in no document any more, and drops the consumers of an inference
// task that is wanted by nobody and runs nowhere. Those of training stay: they know which
// jobs were delivered, and sweepers act on that, also after their task is gone; made
// again, they would deliver every dead letter as if nobody had begun it.
func (m *Machine) left(h *hosting) {
	name := h.task.Name
	if _, ok := m.task(name); ok {
		return
	}
	if m.leaving[name] == nil {
		m.leaving[name] = make(map[string]messages.Class)
	}
	m.leaving[name][h.agent.env.Site] = h.task.Class
	for _, r := range m.ofTask(name) {
		if !r.empty() {
			return
		}
	}
	for _, site := range sorted(m.leaving[name]) {
		if class := m.leaving[name][site]; class == messages.Inference {
			m.sends = append(m.sends, DropConsumer{Task: name, Site: site, Class: class})
		}
	}
	delete(m.leaving, name)
}
