package placement

import (
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// invariants holds after every Step.
func (w *world) invariants(ev Event) {
	m, t := w.m, w.t
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%v after %s: "+format, append([]any{w.now.Sub(begin), eventString(ev)}, args...)...)
	}
	for _, id := range sorted(m.agents) {
		a := m.agents[id]
		// No over-commit of any capacity, moves and leftovers included.
		var sum messages.Resources
		tasks := map[string]int{}
		for rid, h := range a.hosted {
			sum = sum.Add(h.task.Demand)
			r := h.replica
			if m.replicas[rid] != r || h.agent != a || r.home != h && r.next != h && !slices.Contains(r.old, h) {
				fail("%s on %s has no place in its replica", rid, id)
			}
			if h.drain != slices.Contains(r.old, h) {
				fail("%s on %s: drain %v", rid, id, h.drain)
			}
			if !h.drain {
				tasks[h.task.Name]++
				if tasks[h.task.Name] > 1 && !h.task.Colocate {
					fail("two replicas of %s on %s", h.task.Name, id)
				}
			}
		}
		if !sum.Within(m.usable(a)) {
			fail("%s holds %+v of %+v", id, sum, m.usable(a))
		}
	}
	for id, r := range m.replicas {
		if r.why == "" {
			fail("%s has no reason", id)
		}
		if r.next != nil && r.home == nil {
			fail("%s moves from nowhere", id)
		}
		if r.wanted && r.home == nil && !r.waiting && m.linkUp && m.haveTasks {
			fail("%s has no home and does not wait: %s", id, r.why)
		}
		for _, h := range append(slices.Clone(r.old), r.home, r.next) {
			if h != nil && h.agent.hosted[id] != h {
				fail("%s: %s does not host it", id, h.agent.id)
			}
		}
	}
	if !m.leading {
		return
	}
	seen := map[string]bool{}
	for _, task := range m.Routes().Tasks {
		if m.dirtyRoutes[task.Task.Name] {
			continue // the next ones are made as soon as those under way are saved
		}
		for _, e := range task.Replicas {
			if a := m.agents[e.Agent]; m.linkUp && (a == nil || a.state == messages.AgentLost) {
				fail("%s is routed to lost %s", e.ID, e.Agent)
			}
			if seen[e.ID] {
				fail("%s is routed twice", e.ID)
			}
			seen[e.ID] = true
			if m.linkUp && (m.replicas[e.ID] == nil || m.replicas[e.ID].home == nil || m.replicas[e.ID].home.agent.id != e.Agent) {
				fail("%s is routed to %s, which is not its home", e.ID, e.Agent)
			}
		}
	}
	for id, d := range m.docs {
		if m.linkUp && m.agents[id] != nil && len(d.doc.Replicas) != len(m.agents[id].hosted) {
			fail("the document of %s is not what it hosts", id)
		}
	}
}
