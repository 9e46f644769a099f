package placement

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// sorted returns the keys in order: nothing here may depend on the order of a map.
func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil // most are empty at most times
	}
	return slices.Sorted(maps.Keys(m))
}

// values returns the values in the order of their keys.
func values[V any](m map[string]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range sorted(m) {
		out = append(out, m[k])
	}
	return out
}

// What is looked through every second is kept in order, and made again only when
// somebody came or went. The lists are of the moment: whoever adds or removes while he
// goes through one sees what was there when he began.

// allAgents returns the agents in the order of their ids.
func (m *Machine) allAgents() []*agent {
	if m.agentList == nil {
		m.agentList = values(m.agents)
	}
	return m.agentList
}

// allReplicas returns the replicas in the order of their ids.
func (m *Machine) allReplicas() []*replica {
	if m.replicaList == nil {
		m.replicaList = values(m.replicas)
	}
	return m.replicaList
}

// allDocs returns the documents in the order of their agents.
func (m *Machine) allDocs() []*document {
	if m.docList == nil {
		m.docList = values(m.docs)
	}
	return m.docList
}

// ofTask returns the replicas of a task in the order of their ids, which all begin with
// its name and a slash.
func (m *Machine) ofTask(task string) []*replica {
	list, prefix := m.allReplicas(), task+"/"
	from, _ := slices.BinarySearchFunc(list, prefix, func(r *replica, p string) int { return cmp.Compare(r.id, p) })
	to := from
	for to < len(list) && strings.HasPrefix(list[to].id, prefix) {
		to++
	}
	return list[from:to]
}

func (m *Machine) addAgent(a *agent)     { m.agents[a.id], m.agentList = a, nil }
func (m *Machine) dropAgent(id string)   { delete(m.agents, id); m.agentList = nil }
func (m *Machine) addReplica(r *replica) { m.replicas[r.id], m.replicaList = r, nil }
func (m *Machine) dropReplica(r *replica) {
	delete(m.replicas, r.id)
	m.replicaList = nil
	delete(m.trails, r.id)
}
func (m *Machine) addDocument(d *document) { m.docs[d.agent], m.docList = d, nil }

// all returns what a hosts in the order of the replicas' ids.
func (a *agent) all() []*hosting {
	if a.list == nil {
		a.list = values(a.hosted)
	}
	return a.list
}

func (a *agent) add(h *hosting)  { a.hosted[h.replica.id], a.list = h, nil }
func (a *agent) drop(h *hosting) { delete(a.hosted, h.replica.id); a.list = nil }
func (a *agent) clear()          { a.hosted, a.list = make(map[string]*hosting), nil }
