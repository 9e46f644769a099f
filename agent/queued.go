package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Pauses before a robot looks into the journal again although nothing told it to: after a
// failure, and while something waits there for a slot, or for the orders to be read. The
// last is short beside an action, and a look takes a millisecond.
const (
	queuedFirst = 50 * time.Millisecond
	queuedMost  = 2 * time.Second
	queuedSoon  = 100 * time.Millisecond
)

// queued is what a robot knows of the actions that wait for it in the journal. It looks
// there when it starts, when its connection is back, when a replica that acts gets ready,
// and when a client says that it has put something there.
type queued struct {
	wake     chan struct{}
	released atomic.Pointer[time.Time] // when the robot was last released; nil: it was not
}

// release notes that the robot takes actions again. What waited before it does so no more:
// a release runs nothing old.
func (q *queued) release(now time.Time) { q.released.Store(&now) }

// before reports whether something of this age is older than the last release.
func (q *queued) before(now time.Time, age time.Duration) bool {
	at := q.released.Load()
	return at != nil && age >= now.Sub(*at)
}

// takeQueued serves what waits in the journal until ctx ends.
func (a *Agent) takeQueued(ctx context.Context) {
	if a.safety == nil {
		return // no robot
	}
	wait := backoff{least: queuedFirst, most: queuedMost}
	failing := false
	for ctx.Err() == nil {
		again := a.reconnected.next()
		waiting, err := a.lookQueued(ctx)
		var due <-chan time.Time
		switch {
		case err != nil && ctx.Err() == nil:
			if !failing && a.nc.IsConnected() {
				a.cfg.Logger.Warn("not read which actions wait in the journal; trying on", "error", err)
				failing = true
			}
			due = time.After(wait.step())
		case waiting:
			due = time.After(queuedSoon)
		}
		if err == nil {
			wait.reset()
			failing = false
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-a.queued.wake:
		case <-due:
		}
	}
}

// acts reports whether a replica here executes actions now.
func (a *Agent) acts() bool {
	for _, local := range *a.byTask.Load() {
		if local[0].task.Class == messages.Action {
			return true
		}
	}
	return false
}

// lookQueued goes once through the journal. waiting says that something there is to be
// looked at again soon.
func (a *Agent) lookQueued(ctx context.Context) (waiting bool, err error) {
	if !a.acts() || a.closed.Load() {
		return false, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer a.reconnected.call(cancel)() // what was asked on the old connection is lost
	clock := a.clocks[messages.Action]
	held := make(map[string]bool) // tasks of which one waits: the next one must not overtake it
	err = a.bus.Queued(ctx, a.site, a.id, func(m jetstream.Msg) error {
		if m.Headers().Get(messages.HeaderSettled) != "" {
			return nil
		}
		if clock.Due(time.Now()) {
			limit, done := context.WithTimeout(ctx, apiTime)
			defer done()
			if err := clock.Sync(limit, a.bus, a.site, messages.Action); err != nil {
				return err
			}
		}
		soon, err := a.lookAt(ctx, m, held)
		waiting = waiting || soon
		return err
	})
	return waiting, err
}

// lookAt decides about one action that waits. soon says that it is to be looked at again.
func (a *Agent) lookAt(ctx context.Context, m jetstream.Msg, held map[string]bool) (soon bool, err error) {
	req, meta, err := parseQueued(m)
	if err != nil {
		a.garbage.Note(a.cfg.Logger, "queued", err)
		return false, nil
	}
	now := time.Now()
	age, ok := a.clocks[messages.Action].Age(meta.Timestamp, now)
	if !ok {
		return true, nil // its age will be known when the clock was read
	}
	left, seq := req.Left-age, meta.Sequence.Stream
	if left <= 0 {
		return false, a.refuseQueued(ctx, m, req, seq, messages.Errorf(messages.CodeExpired, "it waited %v for robot %q and had %v; it did not run", age.Round(time.Millisecond), a.id, req.Left))
	}
	local := (*a.byTask.Load())[req.Task]
	if len(local) == 0 || held[req.Task] {
		return false, nil // a replica of its task may be placed here before its time is over
	}
	if class := local[0].task.Class; class != messages.Action {
		return false, a.refuseQueued(ctx, m, req, seq, messages.Errorf(messages.CodeBadRequest, "task %q is of class %s", req.Task, class))
	}
	switch fault := a.safety.allows(local[0].task); {
	case fault == nil:
	case fault.Code == messages.CodeUnavailable: // the orders are being read
		held[req.Task] = true
		return true, nil
	default:
		return false, a.refuseQueued(ctx, m, req, seq, fault)
	}
	if a.queued.before(now, age) {
		return false, a.refuseQueued(ctx, m, req, seq, messages.Errorf(messages.CodeStopped, "it waited in the journal while robot %q was stopped; a release runs nothing old", a.id))
	}
	r := takeAny(local)
	if r == nil {
		held[req.Task] = true
		return a.refusal(req.Task, local).Code == messages.CodeBusy, nil
	}
	return false, a.beginQueued(ctx, m, req, r, seq, now.Add(left))
}

// beginQueued takes an action out of the journal and executes it. The slot is taken.
//
// Persist, then execute: the journal has it that this robot took the action before its
// handler is called, and says so at most once. Whether that was stored must be known: who
// cannot find out keeps the slot and asks again until the action's time is over.
func (a *Agent) beginQueued(ctx context.Context, m jetstream.Msg, req messages.Request, r *replica, seq uint64, until time.Time) error {
	drop := func() { r.release(0, false) }
	if fault := a.guards.command(req); fault != nil {
		drop()
		return a.refuseQueued(ctx, m, req, seq, fault)
	}
	e := r.begin(req, m.Data(), "", time.Until(until))
	e.word.said.Store(true) // it is said below, when the journal has it
	if !a.flight.add(e) {
		e.cancel()
		drop()
		return nil
	}
	giveUp := func() {
		a.flight.remove(e)
		e.cancel()
		drop()
	}
	if fault := a.safety.begins(e); fault != nil {
		giveUp()
		return a.refuseQueued(ctx, m, req, seq, fault)
	}
	wait := backoff{least: queuedFirst, most: queuedMost}
	for {
		again := a.reconnected.next()
		mine, err := a.take(e.ctx, m, seq)
		if err == nil && !mine {
			giveUp()
			return nil // withdrawn, or another life of this robot has it
		}
		if err == nil {
			break
		}
		sleep(e.ctx, wait.step(), again)
		if e.ctx.Err() != nil {
			giveUp()
			return err
		}
	}
	// Its caller, if there still is one, waits for this word on its inbox.
	a.answerKind(req, messages.ReplyAccepted)
	a.lives.begin(e.runDirect)
	return nil
}

// take writes that this life of the robot has the action.
func (a *Agent) take(ctx context.Context, m jetstream.Msg, seq uint64) (mine bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, journalTime)
	defer cancel()
	inc := a.incarnation().String()
	mark := &nats.Msg{Subject: m.Subject(), Header: nats.Header{
		messages.HeaderSettled: {messages.SettledTaken}, messages.HeaderAgent: {a.id}, messages.HeaderIncarnation: {inc},
	}}
	return a.bus.Settle(ctx, mark, seq)
}

// refuseQueued settles an action that is not executed: its reason is in the journal before
// its caller has it.
func (a *Agent) refuseQueued(ctx context.Context, m jetstream.Msg, req messages.Request, seq uint64, fault *messages.Error) error {
	mine, err := a.take(ctx, m, seq)
	if err != nil || !mine {
		return err
	}
	a.journal(req, messages.GoalAborted, fault, 0)
	a.answer(req, backend.Response{}, fault, 0, time.Now(), 0)
	return nil
}

// answerKind sends a reply without a body to the caller's inbox. That it may be lost is
// fine: the caller has its own clock.
func (a *Agent) answerKind(req messages.Request, kind messages.ReplyKind) {
	if req.Inbox == "" {
		return
	}
	header := nats.Header(a.reply(req, kind).Header())
	if err := a.nc.PublishMsg(&nats.Msg{Subject: a.replySubject(req), Header: header}); err != nil {
		a.cfg.Logger.Debug("reply not sent", "kind", kind, "request", req.ID, "error", err)
	}
}

// parseQueued reads an action out of the journal.
func parseQueued(m jetstream.Msg) (messages.Request, *jetstream.MsgMetadata, error) {
	s, err := messages.ParseSubject(m.Subject())
	if err != nil {
		return messages.Request{}, nil, err
	}
	req, err := messages.ParseRequest(s, messages.Header(m.Headers()))
	if err != nil {
		return messages.Request{}, nil, err
	}
	if s.Kind != messages.KindQueued || s.ID != req.ID {
		return messages.Request{}, nil, messages.Errorf(messages.CodeBadRequest, "subject %q and the headers disagree: id %q", m.Subject(), req.ID)
	}
	meta, err := m.Metadata()
	return req, meta, err
}
