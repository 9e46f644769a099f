package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// resultWait is how long a result waits for a connection that is down. A server that
// restarts is back within it; a caller that waits longer has found another executor.
const resultWait = 5 * time.Second

// maxContentType is the longest content type of a handler that is sent; a longer header
// would make the caller drop the whole reply as malformed.
const maxContentType = 256

// slot is a slot that was taken; free gives it back once.
type slot struct {
	r     *replica
	freed bool
}

// took is how long the handler was at it, 0 where it was not called; cut says that it did
// not come to its end.
func (s *slot) free(took time.Duration, cut bool) {
	if !s.freed {
		s.freed = true
		s.r.release(took, cut)
	}
}

// serveWork serves one message out of the queue, or looks at it and serves one that waits
// longer, see returns. A slot is taken.
//
// The slot is free, and pulls, as soon as the handler has returned. A caller that sends
// its next request when it has the answer so finds the nearest replica waiting for it.
func (r *replica) serveWork(m *nats.Msg, now time.Time) {
	s := slot{r: r}
	defer s.free(0, false)
	r.tell(m, r.serve(m, now, &s, false))
}

// serveFound serves a message that was looked at before. A slot is taken.
func (r *replica) serveFound(m *nats.Msg, now time.Time) {
	s := slot{r: r}
	defer s.free(0, false)
	r.tell(m, r.serve(m, now, &s, true))
}

// tell tells the server what became of a message; nil: nothing, so that it is delivered again.
func (r *replica) tell(m *nats.Msg, answer []byte) {
	if answer != nil {
		_ = r.a.nc.Publish(m.Reply, answer) // without a connection the server redelivers
	}
}

// serve serves a message out of the queue, and returns what to tell the server about it. One
// that was not looked at before may have to wait for another.
func (r *replica) serve(m *nats.Msg, now time.Time, s *slot, looked bool) (answer []byte) {
	req, subject, err := r.parseWork(m)
	if err != nil {
		r.a.garbage.Note(r.a.cfg.Logger, "q", err)
		if r.task.Class == messages.Training {
			return r.a.refuseJob(m, err)
		}
		return bus.Term // it would be as malformed next time
	}
	left, fault := r.left(m, req, now)
	if req.Class == messages.Training {
		return r.serveJob(m, subject, req, s, left, fault)
	}
	if fault == nil {
		fault = r.a.guards.observe(req)
	}
	if fault == nil {
		if fault = r.tooLong(left); fault != nil && deliveries(m) < giveBacks {
			r.giveBack(req.ID, m)
			s.free(0, false)
			return nil
		}
	}
	if runs, _ := r.a.flight.look(req.ID); fault == nil && !looked && !runs {
		switch next := r.lookOn(m, now); next {
		case nil:
			s.free(0, false)
			return nil
		case m:
		default:
			r.tell(next, r.serve(next, now, s, true))
			return nil
		}
	}
	if fault != nil {
		s.free(0, false)
		r.a.answer(req, backend.Response{}, fault, 0, now, 0)
		return bus.Ack
	}
	e := r.begin(req, m.Data, m.Reply, left)
	defer e.cancel()
	if req.Inbox != "" {
		e.word.subject = r.a.replySubject(req)
	}
	if !r.a.flight.add(e) {
		if _, handed := r.a.flight.look(req.ID); handed {
			r.giveBack(req.ID, m)
		}
		return nil // it runs here already; its end acknowledges this delivery too
	}
	defer r.a.flight.leave(e) // deferred: a handler may end its goroutine with runtime.Goexit
	if r.task.Idempotent && deliveries(m) > 1 {
		r.a.acceptNow(e) // whoever had it before may have handed it over
	} else {
		r.a.accepts.begun()
	}
	watch := r.watch(e, left)
	defer e.endsHere(watch)
	resp, fault, took := r.execute(e)
	here := e.endsHere(watch)
	s.free(took, e.cutOff(fault))
	if !here && fault != nil {
		return nil // whoever has it now answers
	}
	r.a.ended(e, fault)
	if !r.a.answer(req, resp, fault, took, deadlineOf(e), e.parts.end()) {
		return nil
	}
	// The result was handed over before this acknowledgement, in the same connection:
	// whoever dies in between is served twice rather than not at all.
	return bus.Ack
}

// parseWork reads the request of a message out of the queue.
func (r *replica) parseWork(m *nats.Msg) (messages.Request, messages.Subject, error) {
	s, err := messages.ParseSubject(m.Subject)
	if err != nil {
		return messages.Request{}, s, err
	}
	if r.task.Class == messages.Training {
		req, err := messages.ParseJob(s, messages.Header(m.Header))
		if err == nil && s.Task != r.task.Name {
			err = messages.Errorf(messages.CodeBadRequest, "a job of task %q in the queue of task %q", s.Task, r.task.Name)
		}
		return req, s, err
	}
	req, err := messages.ParseRequest(s, messages.Header(m.Header))
	if err != nil {
		return messages.Request{}, s, err
	}
	if s.Kind != messages.KindWork || req.Class != r.task.Class || req.Task != r.task.Name {
		return messages.Request{}, s, messages.Errorf(messages.CodeBadRequest, "%q in the queue of task %q of class %s", m.Subject, r.task.Name, r.task.Class)
	}
	return req, s, nil
}

// left is what remains of a stored request's time. The age of a message is reckoned on
// the server's clock; where it is not known the request counts as over.
func (r *replica) left(m *nats.Msg, req messages.Request, now time.Time) (time.Duration, *messages.Error) {
	if req.Left == messages.NoDeadline {
		return req.Left, nil
	}
	meta, err := m.Metadata()
	if err != nil {
		return 0, messages.Errorf(messages.CodeExpired, "its age cannot be read from the delivery (%v), so it counts as too old; send it again", err)
	}
	age, ok := r.a.clocks[req.Class].Age(meta.Timestamp, now)
	if !ok {
		return 0, messages.Errorf(messages.CodeExpired, "its age is not known, because agent %q has not read the server's clock lately, so it counts as too old; send it again", r.a.id)
	}
	if left := req.Left - age; left > 0 {
		return left, nil
	}
	return 0, messages.Errorf(messages.CodeExpired, "it waited %v in the queue and had %v left; allow more time or add replicas of task %q", age.Round(time.Millisecond), req.Left, req.Task)
}

// tooLong refuses an inference that would certainly take longer than it has left: its
// caller may have a newer observation, or another replica may be faster. A replica that is
// still to serve its first request refuses nothing.
func (r *replica) tooLong(left time.Duration) *messages.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.load.hopeless(left, time.Now()) {
		return nil
	}
	err := messages.Errorf(messages.CodeBusy, "replica %s on agent %q takes about %.0f ms and %d ms were left, so it did not begin; allow more time, add replicas, or ask less often",
		r.id, r.a.id, r.load.latency, left.Milliseconds())
	err.RetryAfter = r.load.wait()
	return err
}

// execute calls the handler, for this request alone or in a batch. What it returns as an
// error is for the caller. The time is 0 where nothing was executed.
func (r *replica) execute(e *execution) (backend.Response, *messages.Error, time.Duration) {
	if asksMetadata(e.req) {
		return r.describe(e)
	}
	if r.batch.together() {
		return r.executeTogether(e)
	}
	r.mu.Lock()
	r.load.begun()
	replies := r.returns.begun()
	r.mu.Unlock()
	r.nak(replies)
	r.a.event(e, true, nil)
	begun := time.Now()
	from := r.a.crowd.enter(begun)
	resp, err := r.call(e.ctx, e.request())
	e.returned.Store(true)
	took := max(time.Since(begun), 1)
	alone := r.a.crowd.leave(begun.Add(took), from)
	fault := r.fault(e, err)
	if fault == nil { // one that failed says nothing of how long one takes
		r.mu.Lock()
		r.sharing.ended(took, alone, len(e.body)+len(resp.Body))
		r.mu.Unlock()
	}
	r.a.event(e, false, fault)
	return resp, fault, took
}

// call calls Serve. A panic is an error of the handler's, not the agent's end.
func (r *replica) call(ctx context.Context, req *backend.Request) (resp backend.Response, err error) {
	defer r.recovered("Serve", &err)
	return r.server.Serve(ctx, req)
}

// fault maps what a handler returned to what its caller is told.
func (r *replica) fault(e *execution, err error) *messages.Error {
	if err == nil {
		return nil
	}
	if why := e.stopped.Load(); why != nil {
		// Whatever the handler makes of it: it was told to end. The code is not canceled,
		// which promises that it did not run; the journal says CANCELED.
		return messages.Errorf(messages.CodeUnknownOutcome, "the action was canceled on %q while it ran, because the robot was %s (its handler: %v); it ran in part: look before acting again", r.a.id, *why, err)
	}
	if e.job != nil {
		if why := e.job.lost.Load(); why != nil {
			return why // whatever the handler makes of it
		}
	}
	var ours *messages.Error
	if errors.As(err, &ours) && ours.Code.Known() {
		return ours
	}
	ended := e.ctx.Err()
	if ended == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return messages.Errorf(messages.CodeBackendFailed, "handler %q of agent %q: %v", r.task.HandlerName(), r.a.id, err)
	}
	switch {
	case e.req.Class == messages.Action:
		// It had begun: whatever cut it off, canceled, deadline_exceeded or draining would
		// promise that nothing was done. The journal says CANCELED where it was.
		why := "its time was over"
		switch {
		case e.gaveUp.Load():
			why = "its caller gave it up"
		case r.a.work.Err() != nil:
			why = "the agent stopped"
		}
		return messages.Errorf(messages.CodeUnknownOutcome, "the action was cut off on %q while it ran, because %s; look before acting again", r.a.id, why)
	case e.gaveUp.Load():
		return messages.Errorf(messages.CodeCanceled, "the caller gave up while it ran")
	case e.fate.Load() == fateHanded:
		return messages.Errorf(messages.CodeCanceled, "it was handed over to another replica")
	case r.a.work.Err() == nil:
		return messages.Errorf(messages.CodeDeadline, "handler %q of agent %q did not finish in the time that was left; allow more time or a faster tier", r.task.HandlerName(), r.a.id)
	}
	return messages.Errorf(messages.CodeDraining, "agent %q stopped before the request was finished; another replica can serve it", r.a.id)
}

// event tells OnServe.
func (a *Agent) event(e *execution, begin bool, fault *messages.Error) {
	if a.cfg.OnServe == nil {
		return
	}
	q := e.req
	ev := ServeEvent{Begin: begin, ID: q.ID, Attempt: q.Attempt, Class: q.Class, Task: q.Task, Replica: e.replica.id, Agent: a.id,
		Inc: a.incarnation(), Origin: q.Origin, Key: q.Key, Episode: q.Episode, Seq: q.Seq, Body: e.body}
	if fault != nil {
		ev.Code = fault.Code
	}
	a.cfg.OnServe(ev)
}

// deadlineOf returns until when the caller of a request waits.
func deadlineOf(e *execution) time.Time {
	if d, ok := e.ctx.Deadline(); ok {
		return d
	}
	return time.Now().Add(resultWait)
}

// replySubject is where the caller of a request listens.
func (a *Agent) replySubject(req messages.Request) string {
	s := a.subject(messages.KindReply)
	s.Origin, s.ID = req.Origin, req.Inbox
	return s.String()
}

// reply starts a reply to a request.
func (a *Agent) reply(req messages.Request, kind messages.ReplyKind) messages.Reply {
	return messages.Reply{Kind: kind, ID: req.ID, Attempt: req.Attempt, Agent: a.id, Inc: a.incarnation()}
}

// answer hands the result of a request, or its error, over to the connection and
// reports whether that was possible; parts is how many partial results came before it.
// Where the connection is down it waits for it until the caller has given up, at most
// resultWait.
func (a *Agent) answer(req messages.Request, resp backend.Response, fault *messages.Error, took time.Duration, until time.Time, parts int) bool {
	if req.Inbox == "" {
		return true
	}
	reply := a.reply(req, messages.ReplyResult)
	if req.Class == messages.Inference {
		// The subject says who it is, which life does not matter, and the rest is what their
		// absence means; every header costs both sides, and the server, a little.
		reply.Agent, reply.Inc, reply.Kind = "", messages.Incarnation{}, ""
		if reply.Attempt == 1 {
			reply.Attempt = 0
		}
	}
	reply.Service, reply.Err, reply.ContentType, reply.Part = took, fault, resp.ContentType, parts
	if reply.ContentType == "" || len(reply.ContentType) > maxContentType {
		reply.ContentType, _, _ = messages.TakeParams(req.ContentType) // they speak of the request's body
	}
	env := envelopes.Get().(*envelope)
	defer env.free()
	m := &env.msg
	m.Subject, m.Header = a.replySubject(req), nats.Header(env.headers.Reply(&reply))
	if fault == nil {
		m.Data = resp.Body
	}
	if last := time.Now().Add(resultWait); until.After(last) {
		until = last
	}
	for {
		again := a.reconnected.next()
		err := a.nc.PublishMsg(m)
		if err == nil {
			return true
		}
		if errors.Is(err, nats.ErrMaxPayload) && m.Data != nil {
			reply.Err = messages.Errorf(messages.CodePayloadTooLarge, "the result has %d bytes, the server's max_payload is %d; raise max_payload (up to 8 MB) or answer with a reference", len(resp.Body), a.nc.MaxPayload())
			m.Header, m.Data = nats.Header(reply.Header()), nil
			continue
		}
		wait := time.Until(until)
		if errors.Is(err, nats.ErrConnectionClosed) || wait <= 0 || a.gone() {
			a.faults.add("result")
			a.cfg.Logger.Warn("result lost: no connection", "request", req.ID, "task", req.Task, "error", err)
			return false
		}
		sleepUntilGone(wait, again, a.abandoned)
	}
}

// envelope is a message that is made in memory used before: publishing copies it.
type envelope struct {
	headers messages.Headers
	msg     nats.Msg
}

var envelopes = sync.Pool{New: func() any { return new(envelope) }}

// free gives the memory back; nothing of it may be used afterwards.
func (e *envelope) free() {
	e.msg = nats.Msg{}
	envelopes.Put(e)
}

// gone reports whether the agent has left without what still runs.
func (a *Agent) gone() bool {
	select {
	case <-a.abandoned:
		return true
	default:
		return false
	}
}

// sleepUntilGone waits for d, or one of the channels.
func sleepUntilGone(d time.Duration, wake, gone <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-gone:
	}
}
