package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// readOwn reads the agent's document from the bucket and applies it. That there is none
// is no error.
func (a *Agent) readOwn(ctx context.Context) error {
	ctx, cancel := a.apiContext(ctx, apiTime)
	defer cancel()
	kv, err := a.bus.KV(ctx, bus.Placements)
	if err != nil {
		return err
	}
	e, err := kv.Get(ctx, a.id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return bus.Explain(err, "read the placement of agent "+a.id)
	}
	var doc messages.Placement
	if err := a.decodePlacement(e.Value(), &doc); err != nil {
		return nil // noted; the coordinator writes a good one when it sees the old revision in a heartbeat
	}
	a.apply(&doc)
	return nil
}

// place handles a document that a coordinator sent.
func (a *Agent) place(m *nats.Msg) {
	var doc messages.Placement
	if err := a.decodePlacement(m.Data, &doc); err != nil {
		return
	}
	ack := a.apply(&doc)
	if m.Reply == "" {
		return
	}
	data, err := messages.Encode(&ack)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		a.cfg.Logger.Warn("placement not acknowledged; the heartbeat will say it", "error", err)
	}
}

func (a *Agent) decodePlacement(data []byte, doc *messages.Placement) error {
	err := messages.Decode(data, doc)
	if err == nil && doc.Agent != a.id {
		err = messages.Errorf(messages.CodeBadRequest, "the document is for agent %q", doc.Agent)
	}
	if err != nil {
		a.garbage.Note(a.cfg.Logger, "place", err)
	}
	return err
}

// apply takes a document over, unless it is not newer than the one that is held, and
// tells what is held now. It only begins what the document asks for; heartbeats tell
// how it goes on.
func (a *Agent) apply(doc *messages.Placement) messages.PlacementAck {
	now := time.Now()
	refusal := ""
	if own := a.incarnation(); own.Before(doc.Inc) {
		err := a.superseded(doc.Inc, "")
		a.fail(err)
		refusal = err.Error()
	}

	a.mu.Lock()
	switch {
	case refusal != "":
	case a.doc == nil || doc.Newer(a.doc.Term, a.doc.Rev):
		a.doc = doc
		if !a.closing {
			a.reconcile()
		}
	case a.doc.Newer(doc.Term, doc.Rev):
		refusal = messages.Errorf(messages.CodeStale, "document of term %s revision %d: agent %q holds term %s revision %d",
			doc.Term, doc.Rev, a.id, a.doc.Term, a.doc.Rev).Error()
	default: // the same again: its acknowledgement was lost
	}
	ack := messages.PlacementAck{Agent: a.id, Inc: a.incarnation(), Error: refusal, Replicas: a.statuses(now)}
	if a.doc != nil {
		ack.Term, ack.Rev = a.doc.Term, a.doc.Rev
	}
	a.mu.Unlock()

	nudge(a.placed)
	a.beatNow()
	return ack
}

// reconcile does what the document asks for. a.mu is held.
func (a *Agent) reconcile() {
	if d := a.cfg.Deployer; d != nil {
		tasks := make([]messages.Task, 0, len(a.doc.Replicas))
		for _, r := range a.doc.Replicas {
			tasks = append(tasks, r.Task)
		}
		d.Placed(tasks)
	}
	have := make(map[string]held, len(a.replicas))
	for id, r := range a.replicas {
		have[id] = r.held()
	}
	for _, s := range reconcile(have, a.doc.Replicas) {
		a.cfg.Logger.Info("replica", "do", s.deed, "replica", s.id)
		switch s.deed {
		case deedStart:
			r := newReplica(a, s.replica)
			a.replicas[s.id] = r
			a.lives.begin(r.live)
		case deedRank:
			a.replicas[s.id].setRank(s.replica)
		case deedStop:
			a.replicas[s.id].stop()
		case deedForget:
			delete(a.replicas, s.id)
		}
	}
	a.reindex()
}

// reindex makes the tables that the data path reads. a.mu is held.
func (a *Agent) reindex() {
	byTask := make(map[string][]*replica, len(a.replicas))
	acts := false
	for _, r := range a.replicas {
		byTask[r.task.Name] = append(byTask[r.task.Name], r)
		acts = acts || r.task.Class == messages.Action
	}
	a.byTask.Store(&byTask)
	a.link.setOften(acts)
}

// replicaEnded is called by a replica that has stopped: the document may want it again,
// with another service, or forget it.
func (a *Agent) replicaEnded() {
	a.mu.Lock()
	if !a.closing && a.doc != nil {
		a.reconcile()
	}
	a.mu.Unlock()
	a.beatNow()
}

// statuses returns the state of every replica, sorted by id. A replica that the
// document drains and that is not here has stopped. a.mu is held.
func (a *Agent) statuses(now time.Time) []messages.ReplicaStatus {
	list := make([]messages.ReplicaStatus, 0, len(a.replicas))
	for _, r := range a.replicas {
		list = append(list, r.status(now))
	}
	if a.doc != nil {
		for _, w := range a.doc.Replicas {
			if w.Drain && a.replicas[w.ID] == nil {
				list = append(list, messages.ReplicaStatus{ID: w.ID, State: messages.ReplicaStopped})
			}
		}
	}
	slices.SortFunc(list, func(x, y messages.ReplicaStatus) int { return strings.Compare(x.ID, y.ID) })
	return list
}
