package agent

import (
	"context"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// journalTime bounds the wait for the journal to confirm an outcome. The caller waits
// for its reply meanwhile, and an action has run: so the wait is short, and a failure
// is counted rather than turned into an error. The intent, which the client wrote
// before it sent, stays in the journal either way.
const journalTime = time.Second

// directReader takes in the requests that come straight from a client. One of the crew at a
// time reads, so it may keep what only the reader needs.
type directReader struct {
	a        *Agent
	ctx      context.Context
	msgs     <-chan *nats.Msg
	pongs    <-chan time.Time
	barriers <-chan chan struct{} // nil: of no robot
	pinged   time.Time            // when the ping was sent that was answered last
	over     chan struct{}        // closed when nobody reads any more
}

// serveDirect handles requests that come straight from a client, until ctx ends. Nothing in
// it waits: a request that finds a free slot has a goroutine, any other is answered at once.
//
// pongs tells when each answered ping was sent. What is in msgs when a pong is read may
// have come before it, so it is served before the pong counts.
func (a *Agent) serveDirect(ctx context.Context, msgs <-chan *nats.Msg, pongs <-chan time.Time) {
	d := &directReader{a: a, ctx: ctx, msgs: msgs, pongs: pongs, over: make(chan struct{}),
		pinged: time.Now()} // the subscription was confirmed just now
	if a.safety != nil {
		d.barriers = a.safety.barriers
	}
	a.crew.read = d.read
	a.crew.lead()
	<-d.over
}

// largeBody is from which size on whoever reads a request serves it too. Bodies of that
// size keep the garbage collector at work, and it takes a processor before a goroutine
// that was just woken: handed over, a camera frame waits for it. Small requests come in
// bursts, and one goroutine serves a burst better than one each.
const largeBody = 32 << 10

// read takes in messages. It returns a large request that is alone, when another one reads.
func (d *directReader) read() *execution {
	for {
		select {
		case <-d.ctx.Done():
			close(d.over)
			return nil
		case m := <-d.msgs:
			e := d.a.beginOne(m, d.pinged)
			switch {
			case e == nil:
			case len(e.body) < largeBody || len(d.msgs) > 0:
				d.a.crew.run(e)
			default:
				d.a.lives.enter()
				d.a.crew.lead()
				return e
			}
		case sent := <-d.pongs:
			d.rest()
			d.pinged = sent
		case done := <-d.barriers:
			d.rest()
			close(done)
		}
	}
}

// rest takes in what has come already.
func (d *directReader) rest() {
	for n := len(d.msgs); n > 0; n-- {
		if e := d.a.beginOne(<-d.msgs, d.pinged); e != nil {
			d.a.crew.run(e)
		}
	}
}

// beginOne begins a direct request, or refuses it.
func (a *Agent) beginOne(m *nats.Msg, pinged time.Time) *execution {
	late := lateness(pinged, time.Now())
	req, err := a.parseDirect(m)
	if err != nil {
		a.garbage.Note(a.cfg.Logger, "do", err)
		a.refuseMalformed(m, err)
		return nil
	}
	e, fault := a.admit(req, m, late)
	switch {
	case e != nil && req.Class == messages.Inference:
		a.accepts.begun()
	case e != nil:
		a.acceptNow(e)
	default:
		a.answerNow(m.Reply, req, fault)
	}
	return e
}

// answerNow answers a request that is not begun: with what is wrong, or that it runs
// already.
func (a *Agent) answerNow(to string, req messages.Request, fault *messages.Error) {
	if to == "" {
		return
	}
	kind := messages.ReplyAccepted
	if fault != nil {
		kind = messages.ReplyResult
	}
	reply := a.reply(req, kind)
	reply.Err = fault
	if err := a.nc.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header(reply.Header())}); err != nil {
		a.cfg.Logger.Debug("reply not sent", "kind", kind, "request", req.ID, "error", err)
	}
}

// refuseMalformed tells the sender of a malformed request what was wrong with it, where
// the request says at least its id.
func (a *Agent) refuseMalformed(m *nats.Msg, err error) {
	id := m.Header.Get(messages.HeaderID)
	if m.Reply == "" || messages.CheckName(messages.HeaderID, id) != nil {
		return
	}
	reply := messages.Reply{Kind: messages.ReplyResult, ID: id, Agent: a.id, Inc: a.incarnation(), Err: messages.AsError(err, messages.CodeBadRequest)}
	_ = a.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(reply.Header())}) // a courtesy: it is counted either way
}

// maxSubjects bounds the cache of subjects taken apart: origins times tasks.
const maxSubjects = 4096

// parseDirect reads a direct request; whoever reads calls it, nobody else.
func (a *Agent) parseDirect(m *nats.Msg) (messages.Request, error) {
	s, ok := a.subjects[m.Subject]
	if !ok {
		var err error
		if s, err = messages.ParseSubject(m.Subject); err != nil {
			return messages.Request{}, err
		}
		if len(a.subjects) >= maxSubjects {
			clear(a.subjects)
		}
		a.subjects[strings.Clone(m.Subject)] = s
	}
	return messages.ParseRequest(s, messages.Header(m.Header))
}

// admit decides whether a direct request may run and takes a slot for it. Without an
// error and without an execution it runs already. late is what it may have spent on the
// way, unseen; it counts for actions alone, where an old command is dangerous and an
// old observation only useless.
func (a *Agent) admit(req messages.Request, m *nats.Msg, late time.Duration) (*execution, *messages.Error) {
	if a.closed.Load() {
		return nil, messages.Errorf(messages.CodeDraining, "agent %q finishes its work and takes no more", a.id)
	}
	local := (*a.byTask.Load())[req.Task]
	if len(local) == 0 {
		return nil, messages.Errorf(messages.CodeNotPlaced, "task %q is not placed on agent %q", req.Task, a.id)
	}
	if class := local[0].task.Class; class != req.Class || class == messages.Training {
		return nil, messages.Errorf(messages.CodeBadRequest, "task %q is of class %s and was asked for %s; training goes through the queue alone", req.Task, class, req.Class)
	}
	switch runs, handed := a.flight.look(req.ID); {
	case handed: // whoever asks would rely on its being accepted
		err := messages.Errorf(messages.CodeBusy, "agent %q has become too slow for it and gave it back to the queue; ask another replica", a.id)
		err.RetryAfter = handoverGrace
		return nil, err
	case runs:
		return nil, nil
	}
	left := req.Left
	if req.Class == messages.Action {
		if err := a.safety.allows(local[0].task); err != nil {
			return nil, err
		}
		if err := a.addressed(req); err != nil {
			return nil, err
		}
		left -= late
	}
	if left <= 0 {
		return nil, messages.Errorf(messages.CodeExpired, "nothing of its %v was left on agent %q (%v may have passed on the way)", req.Left, a.id, late.Round(time.Millisecond))
	}
	r := takeAny(local)
	if r == nil {
		return nil, a.refusal(req.Task, local)
	}
	// The guards remember what they admit, so they come last, when a slot is certain.
	guard := a.guards.observe
	if req.Class == messages.Action {
		guard = a.guards.command
	}
	fault := guard(req)
	if fault == nil && req.Class == messages.Inference {
		fault = r.tooLong(left)
	}
	if fault != nil {
		r.release(0, false)
		return nil, fault
	}
	e := r.begin(req, m.Data, "", left)
	e.word.subject = m.Reply
	if !a.flight.add(e) { // a delivery out of the queue was quicker
		e.cancel()
		r.release(0, false)
		return nil, nil
	}
	if fault := a.safety.begins(e); fault != nil && req.Class == messages.Action {
		a.flight.remove(e)
		e.cancel()
		r.release(0, false)
		return nil, fault
	}
	return e, nil
}

// addressed refuses a command that was meant for another life of this agent.
func (a *Agent) addressed(req messages.Request) *messages.Error {
	own := a.incarnation()
	switch {
	case req.Inc.IsZero():
		return messages.Errorf(messages.CodeBadRequest, "header %s: none found; an action names the incarnation of its robot, so that one meant for a former life cannot run", messages.HeaderIncarnation)
	case req.Inc != own:
		return messages.Errorf(messages.CodeStale, "the action is for incarnation %s of robot %q, which is now %s; look before acting again", req.Inc, a.id, own)
	}
	return nil
}

// takeAny takes a slot of any of the replicas.
func takeAny(local []*replica) *replica {
	for _, r := range local {
		if r.take() {
			return r
		}
	}
	return nil
}

// refusal tells why no replica of a task has a slot.
func (a *Agent) refusal(task string, local []*replica) *messages.Error {
	var why messages.ReplicaStatus
	for _, r := range local {
		why = r.status(time.Now())
		if why.State == messages.ReplicaReady {
			err := messages.Errorf(messages.CodeBusy, "all %d slots of replica %s on agent %q are taken", r.slots, r.id, a.id)
			err.RetryAfter = r.freeAfter()
			return err
		}
	}
	return messages.Errorf(messages.CodeNotPlaced, "replica %s of task %q on agent %q is %s: %s", why.ID, task, a.id, why.State, why.Reason)
}

// runDirect executes a direct request and answers it.
func (e *execution) runDirect() {
	r := e.replica
	defer e.cancel()
	defer r.a.flight.remove(e)
	s := slot{r: r}
	defer s.free(0, false) // all deferred: a handler may end its goroutine with runtime.Goexit
	if e.req.Class == messages.Action {
		r.a.journal(e.req, messages.GoalAccepted, nil, 0)
	}
	var resp Response
	var fault *messages.Error
	var took time.Duration
	switch why := e.stopped.Load(); {
	// Between its acceptance and now: the handler has not seen it.
	case why != nil:
		fault = messages.Errorf(messages.CodeStopped, "robot %q is %s; the action did not run", r.a.id, *why)
	case e.req.Class == messages.Action && over(e.ctx, time.Now()):
		fault = e.notBegun()
	default:
		resp, fault, took = r.execute(e)
	}
	// As with the queue, the slot is free before the caller has its answer; of an action
	// only when its outcome is in the journal, so that commands do not overtake outcomes.
	if e.req.Class == messages.Action {
		state := messages.GoalSucceeded
		switch {
		case fault != nil && (fault.Code == messages.CodeCanceled || e.gaveUp.Load() || e.stopped.Load() != nil):
			state = messages.GoalCanceled
		case fault != nil:
			state = messages.GoalAborted
		}
		// Persist, then send: who reads an answer finds the outcome in the journal.
		r.a.journal(e.req, state, fault, took)
	}
	s.free(took, e.cutOff(fault))
	r.a.ended(e, fault)
	r.a.answer(e.req, resp, fault, took, deadlineOf(e), e.parts.end())
}

// over reports whether the time of an action is over. The clock is asked too: the timers of
// a process that was frozen fire when it is their turn, which may be after this.
func over(ctx context.Context, now time.Time) bool {
	until, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !now.Before(until)
}

// notBegun is for an action whose context ended before its handler was called.
func (e *execution) notBegun() *messages.Error {
	a := e.replica.a
	switch {
	case e.gaveUp.Load():
		return messages.Errorf(messages.CodeCanceled, "the caller gave up before robot %q had begun; it did not run", a.id)
	case a.work.Err() != nil:
		return messages.Errorf(messages.CodeDraining, "robot %q stopped before it had begun; it did not run", a.id)
	}
	return messages.Errorf(messages.CodeExpired, "its time was over before robot %q had begun; it did not run", a.id)
}

// journal writes how far an action has come: that it was accepted without waiting, its
// outcome with a confirmation.
func (a *Agent) journal(q messages.Request, state messages.GoalState, fault *messages.Error, took time.Duration) {
	out := &messages.Outcome{ID: q.ID, Task: q.Task, Agent: a.id, Inc: a.incarnation(), Episode: q.Episode, Seq: q.Seq, State: state, Service: millis(took)}
	if fault != nil {
		out.Code, out.Reason = fault.Code, fault.Message
	}
	s := a.subject(messages.KindOutcome)
	s.Origin, s.ID = q.Origin, q.ID
	data, err := messages.Encode(out)
	if err == nil && !state.Ended() {
		err = a.nc.Publish(s.String(), data)
	} else if err == nil {
		m := letter{subject: s.String(), data: data, id: q.ID + "/" + string(state)}
		if err = a.record(m); err != nil {
			a.outbox.put(m) // the link may be cut; it is written when it is back
		}
	}
	if err != nil {
		a.faults.add("journal")
		a.cfg.Logger.Warn("not journaled", "request", q.ID, "task", q.Task, "state", state, "error", err)
	}
}

// record publishes to the journal and waits for the confirmation; a journal that is
// missing is made.
func (a *Agent) record(m letter) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.work), journalTime)
	defer cancel()
	// The library's own retries wait 250 ms each; ours follow the making of the stream.
	options := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0), jetstream.WithMsgID(m.id)}
	_, err := a.bus.JS.Publish(ctx, m.subject, m.data, options...)
	if err == nil {
		return nil
	}
	a.bus.Forget()
	if err := a.bus.Stream(ctx, a.site, messages.Action); err != nil {
		return err
	}
	if _, err = a.bus.JS.Publish(ctx, m.subject, m.data, options...); err != nil {
		return bus.Explain(err, "journal an outcome")
	}
	return nil
}
