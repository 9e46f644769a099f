package agent

import (
	"errors"
	"sync"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// parts counts the partial results of one execution. They and the result go out on one
// connection and one subject, so they arrive in this order; the lock keeps their numbers
// in it, too, and keeps one that is late from coming after the result.
type parts struct {
	mu     sync.Mutex
	sent   int
	closed bool
}

// end refuses what comes from now on and returns how many were sent.
func (p *parts) end() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.sent
}

// request is what the handler is given.
func (e *execution) request() *backend.Request {
	return &backend.Request{Request: e.req, Body: e.body, Progress: e.report, Partial: e.partial, Log: e.log, Checkpoint: e.checkpoint, Restore: e.restore}
}

// streams reports whether somebody takes partial results and progress.
func (e *execution) streams() bool { return e.req.Stream && e.req.Inbox != "" }

// partial sends a partial result to whoever asked for such. It is what a handler calls.
func (e *execution) partial(body []byte, contentType string) error {
	if !e.streams() {
		return nil
	}
	p := &e.parts
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return messages.Errorf(messages.CodeConflict, "a partial result of request %s after its end; send it before Serve returns", e.req.ID)
	}
	if p.sent >= messages.MaxPart {
		return messages.Errorf(messages.CodePayloadTooLarge, "request %s has sent %d partial results, which is the most", e.req.ID, p.sent)
	}
	a := e.replica.a
	reply := a.reply(e.req, messages.ReplyProgress)
	reply.Part, reply.ContentType = p.sent+1, contentType
	if reply.ContentType == "" || len(reply.ContentType) > maxContentType {
		reply.ContentType = e.req.ContentType
	}
	err := a.nc.PublishMsg(&nats.Msg{Subject: a.replySubject(e.req), Header: nats.Header(reply.Header()), Data: body})
	switch {
	case err == nil:
		p.sent++
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return messages.Errorf(messages.CodePayloadTooLarge, "the partial result has %d bytes, the server's max_payload is %d; send it in smaller parts", len(body), a.nc.MaxPayload())
	}
	// It counts: whoever listens sees by the numbers that one is missing.
	p.sent++
	return messages.Errorf(messages.CodeUnavailable, "partial result %d of request %s is lost: %v", p.sent, e.req.ID, err)
}

// report keeps the newest progress for the keeper to send: of a job to whoever watches
// it, of other requests to a caller who asked. It is what a handler calls, so it must cost
// little.
func (e *execution) report(done float64, note string) {
	if e.req.Class != messages.Training && !e.streams() {
		return
	}
	if !(done >= 0) { // also what is not a number
		done = 0
	}
	e.progress.Store(&messages.Progress{Job: e.req.ID, Agent: e.replica.a.id, Attempt: e.req.Attempt, Done: min(done, 1), Note: note})
}

// sendProgress sends the newest progress, once.
func (a *Agent) sendProgress(e *execution) {
	p := e.progress.Swap(nil)
	if p == nil {
		return
	}
	var err error
	if e.req.Class != messages.Training {
		err = e.sendDone(p)
	} else {
		s := a.subject(messages.KindProgress)
		s.ID = p.Job
		var data []byte
		if data, err = messages.Encode(p); err == nil {
			err = a.nc.Publish(s.String(), data)
		}
	}
	if err != nil {
		a.cfg.Logger.Debug("progress not sent", "request", p.Job, "error", err)
	}
}

// sendDone reports progress to the caller, unless the result has gone already.
func (e *execution) sendDone(p *messages.Progress) error {
	e.parts.mu.Lock()
	defer e.parts.mu.Unlock()
	if e.parts.closed {
		return nil
	}
	a := e.replica.a
	reply := a.reply(e.req, messages.ReplyProgress)
	reply.Done, reply.Note = int(1000*p.Done), p.Note
	return a.nc.PublishMsg(&nats.Msg{Subject: a.replySubject(e.req), Header: nats.Header(reply.Header())})
}
