package sim

import (
	"reflect"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// place takes a document from a coordinator.
func (p *process) place(doc messages.Placement, from *coordinator) (messages.PlacementAck, bool) {
	if !p.up || p.a.node.cut {
		return messages.PlacementAck{}, false
	}
	if p.frozen {
		p.backlog = append(p.backlog, func() { p.apply(doc, from) })
		return messages.PlacementAck{}, false
	}
	return p.apply(doc, from), true
}

func (p *process) apply(doc messages.Placement, from *coordinator) messages.PlacementAck {
	p.a.w.ledger.received(p, doc)
	ack := messages.PlacementAck{Agent: p.a.id, Inc: p.inc}
	switch {
	case p.inc.Before(doc.Inc):
		ack.Error = "superseded"
		p.superseded()
	case p.doc == nil || doc.Newer(p.doc.Term, p.doc.Rev) || p.a.w.faults.anyTerm && doc.Term.Before(p.doc.Term):
		p.a.w.ledger.applied(p, doc, from)
		p.doc = &doc
		p.reconcile()
	case p.doc.Newer(doc.Term, doc.Rev):
		ack.Error = "stale"
	}
	if p.doc != nil {
		ack.Term, ack.Rev = p.doc.Term, p.doc.Rev
	}
	ack.Replicas = p.statuses()
	p.beat()
	return ack
}

// superseded: a newer incarnation is there; this one ends.
func (p *process) superseded() {
	p.a.w.note("%s incarnation %s hears of a newer one", p.a.id, p.inc)
	p.over = true
	if p.a.w.faults.undead {
		return
	}
	p.kill()
}

// reconcile does what the document asks for; see agent.reconcile.
func (p *process) reconcile() {
	want := make(map[string]bool, len(p.doc.Replicas))
	for _, w := range p.doc.Replicas {
		want[w.ID] = true
		r := p.reps[w.ID]
		switch {
		case w.Drain:
			if r != nil {
				if sameService(r.placed.Task, w.Task) { // what is declared of it may have changed
					r.placed.Task = w.Task
				}
				p.stop(r)
			}
		case r == nil || r.state == messages.ReplicaStopped:
			p.open(w)
		case r.stopping:
		case !sameService(r.placed.Task, w.Task):
			p.stop(r)
		default:
			r.placed = w
		}
	}
	for _, id := range sortedKeys(p.reps) {
		switch r := p.reps[id]; {
		case want[id]:
		case r.state == messages.ReplicaStopped:
			delete(p.reps, id)
		default:
			p.stop(r)
		}
	}
	p.a.w.ledger.room(p)
}

func sameService(a, b messages.Task) bool { return reflect.DeepEqual(a.Service(), b.Service()) }

func (p *process) open(w messages.PlacedReplica) {
	r := &running{placed: w, state: messages.ReplicaLoading}
	p.reps[w.ID] = r
	p.later(p.a.load, func() { p.loaded(r) })
}

func (p *process) loaded(r *running) {
	if p.reps[r.placed.ID] != r || r.stopping || r.state == messages.ReplicaReady {
		return
	}
	if p.a.fails[r.placed.Task.HandlerName()] {
		p.failed(r)
		return
	}
	r.state = messages.ReplicaReady
	if after := p.a.crash[r.placed.Task.HandlerName()]; after > 0 {
		p.later(after, func() {
			if p.reps[r.placed.ID] == r && r.state == messages.ReplicaReady && !r.stopping {
				p.failed(r)
			}
		})
	}
	p.beat()
}

// failed follows a failure: the process tries again.
func (p *process) failed(r *running) {
	r.state = messages.ReplicaFailed
	p.later(time.Second, func() { // its own back-off
		if r.state == messages.ReplicaFailed && !r.stopping {
			r.state = messages.ReplicaLoading
			p.beat()
			p.later(p.a.load, func() { p.loaded(r) })
		}
	})
	p.beat()
}

func (p *process) stop(r *running) {
	if r.stopping {
		return
	}
	r.stopping = true
	p.ended(r)
}

// ended follows the end of a request, or of the wish to serve.
func (p *process) ended(r *running) {
	if !r.stopping || r.flight > 0 || r.state == messages.ReplicaStopped {
		return
	}
	p.later(20*time.Millisecond, func() { // closing takes a moment
		if r.flight > 0 {
			return
		}
		r.state = messages.ReplicaStopped
		if p.doc != nil {
			p.reconcile()
		}
		p.beat()
	})
}
