package placement

import (
	"fmt"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// trailLength is how many decisions are remembered of one replica or agent: some moves
// with what led to them. What is older is in the stream of events.
const trailLength = 16

// record notes a decision: for the stream of events, and in the trails of the replica
// and the agent that it is about.
func (m *Machine) record(kind, agent, replica, format string, args ...any) {
	if !m.leading {
		return // whoever decides tells
	}
	task, _, err := messages.ParseReplica(replica)
	if err != nil {
		task = ""
	}
	m.tell(messages.Event{Kind: kind, Task: task, Agent: agent, ID: replica, Reason: fmt.Sprintf(format, args...)})
}

// recordTask notes a decision about a task as a whole.
func (m *Machine) recordTask(kind, task, format string, args ...any) {
	if m.leading {
		m.tell(messages.Event{Kind: kind, Task: task, Reason: fmt.Sprintf(format, args...)})
	}
}

func (m *Machine) tell(e messages.Event) {
	e.Time, e.Term = m.now, m.term
	agent, replica := e.Agent, e.ID
	m.records = append(m.records, Record{e})
	for _, id := range []string{agent, replica} {
		if id == "" || m.agents[id] == nil && m.replicas[id] == nil {
			continue
		}
		t := m.trails[id]
		if len(t) >= trailLength {
			t = slices.Delete(t, 0, len(t)-trailLength+1)
		}
		m.trails[id] = append(t, e)
	}
}

// History returns what this Machine decided about a replica or an agent, by its id, the
// oldest first: at most the last 16 decisions since it was elected. Its reader may keep
// it.
func (m *Machine) History(id string) []messages.Event { return slices.Clone(m.trails[id]) }
