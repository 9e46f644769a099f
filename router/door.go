package router

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"
)

// caller is a request at the door.
type caller struct {
	ctx    context.Context
	stats  *endStats
	came   time.Time
	since  time.Time // an action: when it was sent to us at the latest
	reply  string
	at     messages.Subject
	bad    error // in its subject
	header messages.Header
	body   []byte
}

// handle takes in a request at the door. It runs in the endpoint's goroutine and must
// not wait, so the request gets one of its own; how many there are is bounded.
func (s *Service) handle(ctx context.Context, stats *endStats, subjects *subjectCache, r micro.Request) {
	if r.Reply() == "" {
		s.client.note("req", messages.Errorf(messages.CodeBadRequest, "a request without a reply subject on %s", r.Subject()))
		return
	}
	// The reply is published by us and not through r: micro reads r's fields when this
	// function returns, which is before the answer is there.
	q := caller{ctx: ctx, stats: stats, came: time.Now(), reply: r.Reply(), header: messages.Header(r.Headers()), body: r.Data()}
	// What waits in our socket loses its time there. An old observation is only useless.
	q.since = q.came.Add(-s.intake.late(q.came))
	stats.begin()
	if err := s.enter(); err != nil {
		stats.end(q.came, time.Now(), err)
		s.answer(q.reply, messages.Reply{Kind: messages.ReplyResult, Err: err}, nil)
		return
	}
	q.at, q.bad = subjects.parse(r.Subject())
	s.staff.run(q)
}

// work serves one request and answers it.
func (s *Service) work(q caller) {
	defer s.leave()
	out, data := s.serve(q)
	q.stats.end(q.came, time.Now(), out.Err) // before it is sent: who has the answer finds it counted
	s.answer(q.reply, out, data)
}

// serve runs one request to its end. Partial results go to its reply subject, where they
// are asked for.
func (s *Service) serve(q caller) (messages.Reply, []byte) {
	out := messages.Reply{Kind: messages.ReplyResult}
	ctx, at, body, err := q.ctx, q.at, q.body, q.bad
	var h doorHeader
	if err == nil {
		h, err = parseDoor(q.header)
	}
	if err != nil {
		s.client.note("req", err)
		out.Err = messages.AsError(err, messages.CodeBadRequest)
		return out, nil
	}
	if out.ID = h.id; out.ID == "" {
		out.ID = nuid.Next()
	}
	var onPartial func(Partial)
	if h.stream {
		id := out.ID
		onPartial = func(p Partial) { s.part(q.reply, id, p) }
	}
	var ans *Answer
	switch {
	case at.Kind == messages.KindAct:
		ans, err = s.client.act(ctx, at.Origin, Action{
			Robot: at.Agent, Task: at.Task, Episode: h.episode, Seq: h.seq, Body: body,
			Deadline: h.left, ContentType: h.contentType, Traceparent: h.trace, ID: out.ID,
			OnPartial: onPartial, Queue: h.queue,
		}, q.since)
	case at.Class == messages.Inference:
		// Nothing is waited for but news of the flight, and halt ends that: one channel is
		// half of two.
		ans, err = s.client.infer(context.Background(), at.Origin, Inference{
			Task: at.Task, Key: h.key, Body: body, ContentType: h.contentType, Deadline: h.left, Traceparent: h.trace, ID: out.ID,
			OnPartial: onPartial,
		}, h.seq)
	default:
		key := h.key
		if key == "" {
			key = h.id // the caller's own id makes a repeated submission the same job
		}
		id, bad := s.client.submit(ctx, at.Origin, Job{Task: at.Task, Body: body, Key: key, ContentType: h.contentType, Traceparent: h.trace, Priority: messages.Priority(h.priority)})
		if out.Err = bad; bad != nil {
			return out, nil
		}
		out.ID, out.Job = id, id
		return out, []byte(id)
	}
	if err != nil {
		out.Err = messages.AsError(err, messages.CodeInternal)
		return out, nil
	}
	out.Agent, out.Attempt, out.Service, out.ContentType = ans.Agent, ans.Attempt, ans.Service, ans.ContentType
	out.Part = ans.Parts
	return out, ans.Body
}

// part passes a partial result or a report of progress on, on the subject on which the
// answer will come, and so before it.
func (s *Service) part(to, id string, p Partial) {
	out := messages.Reply{Kind: messages.ReplyProgress, ID: id, Attempt: p.Attempt, Agent: p.Agent, ContentType: p.ContentType,
		Part: p.Number, Done: int(math.Round(1000 * p.Done)), Note: p.Note}
	if err := s.nc.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header(out.Header()), Data: p.Body}); err != nil {
		s.cfg.Logger.Debug("a partial result could not be sent", "request", id, "error", err) // its number is missing
	}
}

// answer publishes what the caller waits for: the model's bytes, or an empty body with
// the error in headers, ours and those that every micro client knows.
func (s *Service) answer(reply string, out messages.Reply, body []byte) {
	e := envelopes.Get().(*envelope)
	defer e.free()
	m := &e.msg
	m.Subject, m.Header, m.Data = reply, nats.Header(e.headers.Reply(&out)), body
	if out.Err != nil {
		m.Data = nil
		m.Header[micro.ErrorCodeHeader] = []string{strconv.Itoa(status(out.Err.Code))}
		m.Header[micro.ErrorHeader] = m.Header[messages.HeaderErrorText]
	}
	err := s.nc.PublishMsg(m)
	if errors.Is(err, nats.ErrMaxPayload) && out.Err == nil {
		out.Err = messages.Errorf(messages.CodePayloadTooLarge, "the answer of agent %s has %d bytes and does not fit into a message with its headers: max_payload is %d; raise it, or answer with a reference",
			out.Agent, len(body), s.nc.MaxPayload())
		s.answer(reply, out, nil)
		return
	}
	if err != nil {
		s.cfg.Logger.Debug("an answer could not be sent", "request", out.ID, "error", err)
	}
}

// status is the number that stands for a code in micro's own header, where client
// libraries expect one as HTTP has them. It says less than the code, which is in ours.
func status(c messages.Code) int {
	switch c {
	case messages.CodeBadRequest, messages.CodeStale, messages.CodeExpired:
		return 400
	case messages.CodeUnauthorized:
		return 401
	case messages.CodeNotFound:
		return 404
	case messages.CodeConflict, messages.CodeSuperseded, messages.CodeStopped:
		return 409
	case messages.CodePayloadTooLarge:
		return 413
	case messages.CodeBusy:
		return 429
	case messages.CodeCanceled:
		return 499
	case messages.CodeNoCapacity, messages.CodeNotPlaced, messages.CodeNotConnected, messages.CodeDraining, messages.CodeUnavailable:
		return 503
	case messages.CodeDeadline:
		return 504
	}
	return 500
}

// doorHeader is what a caller may say of its request.
type doorHeader struct {
	id, key, episode, contentType, trace, priority string

	left          time.Duration // 0: the task's own
	seq           uint64
	stream, queue bool
}

// maxDoorText bounds a header of a caller, bytes.
const maxDoorText = 1024

// parseDoor reads the headers of a caller. Those that it does not know are ignored; a
// malformed one is an error that names it.
func parseDoor(h messages.Header) (doorHeader, error) {
	var d doorHeader
	if len(h) == 0 {
		return d, nil
	}
	for _, x := range [...]struct {
		key  string
		to   *string
		name bool
	}{
		{messages.HeaderID, &d.id, true}, {messages.HeaderKey, &d.key, true}, {messages.HeaderEpisode, &d.episode, true},
		{messages.HeaderType, &d.contentType, false}, {messages.HeaderTrace, &d.trace, false},
		{messages.HeaderPriority, &d.priority, false},
	} {
		v := h[x.key]
		if len(v) == 0 {
			continue
		}
		if len(v) > 1 || len(v[0]) > maxDoorText {
			return d, messages.Errorf(messages.CodeBadRequest, "header %s: found %d values, the first of %d bytes; allowed is one of at most %d", x.key, len(v), len(v[0]), maxDoorText)
		}
		if x.name && v[0] != "" {
			if err := messages.CheckName(x.key, v[0]); err != nil {
				return d, err
			}
		}
		*x.to = v[0]
	}
	left, err := number(h, messages.HeaderLeft, uint64(MaxDeadline/time.Millisecond))
	if err != nil {
		return d, err
	}
	if len(h[messages.HeaderLeft]) > 0 && left == 0 {
		return d, messages.Errorf(messages.CodeExpired, "header %s: no time is left; leave it out for the task's own deadline", messages.HeaderLeft)
	}
	d.left = time.Duration(left) * time.Millisecond
	if d.seq, err = number(h, messages.HeaderSeq, math.MaxUint64); err != nil {
		return d, err
	}
	stream, err := number(h, messages.HeaderStream, 1)
	if err != nil {
		return d, err
	}
	queue, err := number(h, messages.HeaderQueue, 1)
	if err != nil {
		return d, err
	}
	d.stream, d.queue = stream == 1, queue == 1
	return d, nil
}

func number(h messages.Header, key string, most uint64) (uint64, error) {
	v := h[key]
	if len(v) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(v[0], 10, 64)
	if err != nil || n > most || len(v) > 1 {
		text := v[0]
		if len(text) > messages.MaxName {
			text = text[:messages.MaxName] + "…"
		}
		return 0, messages.Errorf(messages.CodeBadRequest, "header %s: found %q, expected one whole number from 0 to %d", key, text, most)
	}
	return n, nil
}
