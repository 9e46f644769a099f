package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
)

// ledger checks the invariants. It keeps its own books and asks no Machine:
//
//   - room: what a process really runs, starting and stopping replicas included, is never
//     more than what may be planned of its machine, in any resource.
//   - terms: the documents that agents apply under one term come from one coordinator, and
//     what an agent applies only ever gets newer.
//   - fence: nobody takes a request for a replica that the newest document that reached it
//     does not list, or drains; nor after it heard of a newer incarnation of itself. What is
//     drained is no longer routed to when it is told so.
//   - calm, lost: how often replicas moved, and who was declared lost; the plays say how
//     much is too much.
type ledger struct {
	w       *world
	byTerm  map[messages.Term]*coordinator
	newest  map[*process]messages.Placement // that reached it
	held    map[*process]messages.Placement // that it applied
	learned map[*process]bool               // that it is superseded

	routed    messages.Routes                              // the newest broadcast
	sentBy    map[messages.Term]map[string]map[string]bool // by term: the last broadcast, replica → agents
	where     map[string]string                            // where each replica was routed last
	moves     []time.Time
	movedBy   map[string]int // by replica
	lost      []string       // who was declared lost, in order
	decisions int            // that were told
}

func newLedger(w *world) *ledger {
	return &ledger{w: w, byTerm: make(map[messages.Term]*coordinator), newest: make(map[*process]messages.Placement),
		held: make(map[*process]messages.Placement), learned: make(map[*process]bool),
		sentBy: make(map[messages.Term]map[string]map[string]bool), where: make(map[string]string),
		movedBy: make(map[string]int)}
}

// stepped looks at what a Machine wants done.
func (l *ledger) stepped(c *coordinator, ev placement.Event, effects []placement.Effect) {
	if c.leading {
		return
	}
	if _, deposed := ev.(placement.Deposed); deposed {
		return
	}
	for _, e := range effects {
		if _, wake := e.(placement.WakeAt); !wake {
			l.w.fail("%s does not lead and wants %s", c.node.name, e)
		}
	}
}

// room: no over-commit of any capacity.
func (l *ledger) room(p *process) {
	var sum messages.Resources
	for _, id := range sortedKeys(p.reps) {
		if r := p.reps[id]; r.state != messages.ReplicaStopped {
			sum = sum.Add(r.placed.Task.Demand)
		}
	}
	if have := p.a.env.Capacity.Scale(1 - l.w.server.desired.Settings.Reserve); !sum.Within(have) {
		l.w.fail("over-commit: %s runs %s, together %+v of %+v", p.a.id, list(p), sum, have)
	}
}

func list(p *process) string {
	var parts []string
	for _, s := range p.statuses() {
		parts = append(parts, fmt.Sprintf("%s %s", s.ID, s.State))
	}
	return strings.Join(parts, ", ")
}

// received notes that a document reached a process, whatever it makes of it.
func (l *ledger) received(p *process, doc messages.Placement) {
	if p.inc.Before(doc.Inc) {
		l.learned[p] = true
		return
	}
	if was := l.newest[p]; doc.Newer(was.Term, was.Rev) {
		l.newest[p] = doc
	}
}

// applied: one leader a term, and terms never go back.
func (l *ledger) applied(p *process, doc messages.Placement, from *coordinator) {
	if was, ok := l.held[p]; ok && !doc.Newer(was.Term, was.Rev) {
		l.w.fail("terms: %s went back from term %s revision %d to term %s revision %d", p.a.id, was.Term, was.Rev, doc.Term, doc.Rev)
	}
	l.held[p] = doc
	if from != nil {
		if by := l.byTerm[doc.Term]; by != nil && by != from {
			l.w.fail("terms: %s applied documents of %s and of %s under term %s", p.a.id, by.node.name, from.node.name, doc.Term)
		}
		l.byTerm[doc.Term] = from
	}
	for _, r := range doc.Replicas {
		if run := p.reps[r.ID]; r.Drain && run != nil && !run.stopping && run.state == messages.ReplicaReady && l.sentBy[doc.Term] != nil {
			if l.sentBy[doc.Term][r.ID][p.a.id] {
				l.w.fail("fence: %s is told to drain %s, and the routes of term %s still lead there", p.a.id, r.ID, doc.Term)
			}
		}
	}
}

// served: nobody serves what was fenced.
func (l *ledger) served(p *process, replica string) {
	if l.learned[p] {
		l.w.fail("fence: %s incarnation %s serves %s after it heard of a newer one", p.a.id, p.inc, replica)
	}
	doc, ok := l.newest[p]
	i := slices.IndexFunc(doc.Replicas, func(r messages.PlacedReplica) bool { return r.ID == replica })
	if !ok || i < 0 || doc.Replicas[i].Drain {
		l.w.fail("fence: %s serves %s, and term %s revision %d, which reached it, says otherwise", p.a.id, replica, doc.Term, doc.Rev)
	}
}

// broadcast notes where clients are sent, and what moved.
func (l *ledger) broadcast(c *coordinator, r messages.Routes) {
	to := make(map[string]map[string]bool)
	for _, t := range r.Tasks {
		for _, e := range t.Replicas {
			if to[e.ID] == nil {
				to[e.ID] = make(map[string]bool)
			}
			to[e.ID][e.Agent] = true
		}
	}
	l.w.in(l.w.faults.lateRoutes, func() { l.sentBy[r.Term] = to })
	if l.w.faults.lateRoutes == 0 {
		l.sentBy[r.Term] = to
	}
	if !r.Newer(l.routed.Term, l.routed.Rev) {
		return
	}
	l.routed = r
	for _, t := range r.Tasks {
		for _, e := range t.Replicas {
			if was := l.where[e.ID]; was != "" && was != e.Agent {
				l.moves = append(l.moves, l.w.now)
				l.movedBy[e.ID]++
				l.w.note("%s: %s is on %s now, was on %s", c.node.name, e.ID, e.Agent, was)
			}
			l.where[e.ID] = e.Agent
		}
	}
}

func (l *ledger) recorded(e messages.Event) {
	l.decisions++
	if e.Kind == "agent_lost" {
		l.lost = append(l.lost, e.Agent)
	}
}

// movesSince counts the moves from a time on.
func (l *ledger) movesSince(t time.Time) (n int) {
	for _, at := range l.moves {
		if !at.Before(t) {
			n++
		}
	}
	return n
}

// busiest is the most moves in any minute from a time on.
func (l *ledger) busiest(since time.Time) (most int) {
	for i, at := range l.moves {
		if at.Before(since) {
			continue
		}
		j := i
		for j < len(l.moves) && l.moves[j].Sub(at) < time.Minute {
			j++
		}
		most = max(most, j-i)
	}
	return most
}
