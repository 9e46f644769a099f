package placement

import (
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// State returns the picture of the fleet. It shares nothing with the Machine that a
// later Step changes. Leader and Bad are the shell's to fill in.
func (m *Machine) State() messages.State {
	s := messages.State{Term: m.term, Settings: m.settings, Tasks: slices.Clone(m.tasks)}
	for _, a := range m.allAgents() {
		id := a.id
		info := messages.AgentInfo{Environment: a.env, State: a.state, Inc: a.inc, Planned: m.used(a), Foreign: a.beat.Foreign,
			BeatAge: float64(m.now.Sub(a.last).Microseconds()) / 1000, RTT: a.beat.RTT, Readings: a.beat.Readings}
		_, info.Drain = m.drains[id]
		if d := m.docs[id]; d != nil {
			info.Rev, info.Applied = d.doc.Rev, d.applied
		}
		s.Agents = append(s.Agents, info)
	}
	s.Measured = m.beliefs()
	for _, r := range m.allReplicas() {
		s.Replicas = append(s.Replicas, m.replicaInfo(r))
	}
	return s
}

func (m *Machine) replicaInfo(r *replica) messages.ReplicaInfo {
	info := messages.ReplicaInfo{ID: r.id, Task: r.spec.Task.Name, State: messages.ReplicaPending, Reason: r.why,
		Status: messages.ReplicaStatus{ID: r.id, State: messages.ReplicaPending}}
	h := r.home
	if h == nil && len(r.old) > 0 && !r.wanted {
		h = r.old[0]
	}
	if h != nil {
		info.Agent, info.Tier, info.State, info.Status = h.agent.id, h.agent.env.Tier, h.state, h.status
		info.Delay = alloc.Delay(h.task, h.agent.env)
		if h.state != messages.ReplicaReady {
			info.Reason += m.unanswered(h.agent)
		}
	}
	if r.next != nil {
		info.To = r.next.agent.id
	}
	return info
}
