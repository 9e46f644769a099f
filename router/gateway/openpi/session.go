package openpi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/router/gateway"
)

// How an observation is tried again while its deadline allows. pauseFirst, growing to
// pauseMost, is between two tries where nobody can take it; new routes end a pause, and so a
// replica that gets ready is asked at once. A backend that fails is not asked for ever: the
// observation may be what makes it fail. failTries times the task's attempts are all.
const (
	pauseFirst = 5 * time.Millisecond
	pauseMost  = 250 * time.Millisecond
	failTries  = 3
)

// metadataTime bounds one question for metadata, which a backend answers from memory.
// An answer is good for metadataGood: so many clients that come together ask once.
const (
	metadataTime = 2 * time.Second
	metadataGood = 5 * time.Second
)

// closeTime bounds how long an answer or an error may take to reach a client that does not
// read.
const closeTime = 10 * time.Second

// emptyMap is the metadata of a handler that has none: an empty msgpack map, which is what
// the stock server sends by default.
var emptyMap = []byte{0x80}

// session is one client.
type session struct {
	g     *Gateway
	wire  *openpiwire.Conn
	id    string
	log   *slog.Logger
	rate  gateway.Bucket
	agent string // that answered last
}

// run serves the client until it has gone, or failed.
func (s *session) run() {
	ctx, cancel := context.WithCancelCause(s.g.work)
	observations := make(chan []byte)
	var reader sync.WaitGroup
	reader.Go(func() { cancel(s.read(ctx, observations)) })
	defer func() {
		s.wire.CloseNow()
		cancel(nil)
		reader.Wait()
	}()
	s.log.Info("client connected")
	err := s.serve(ctx, observations)
	switch {
	case s.g.work.Err() != nil:
		err = messages.Errorf(messages.CodeUnavailable, "the gateway stopped before the observation was answered")
	case ctx.Err() != nil: // which the reader did
		err = context.Cause(ctx)
	}
	s.end(err)
}

// end says goodbye as the protocol does.
func (s *session) end(err error) {
	var large *openpiwire.TooLarge
	var text *openpiwire.Traceback
	switch {
	case err == nil: // the door stops
		_ = s.wire.Close(1001, "the gateway stops") // whoever has gone needs none
		return
	case errors.As(err, &large):
		err = messages.Errorf(messages.CodePayloadTooLarge, "an observation is %v; raise max_payload of the NATS servers (up to 8 MB), or send smaller pictures", large)
	case errors.As(err, &text):
		err = messages.Errorf(messages.CodeBadRequest, "found a text message of %d bytes, expected an observation as a binary message", len(text.Text))
	}
	if messages.CodeOf(err) == messages.CodeInternal { // not one of ours: the connection's own end
		s.log.Info("client gone", "reason", err)
		return
	}
	s.g.stats.failed.Add(1)
	s.log.Warn("client failed", "error", err)
	limit, cancel := context.WithTimeout(context.WithoutCancel(s.g.work), closeTime)
	defer cancel()
	_ = s.wire.Fail(limit, traceback(s.g.cfg.Task, err)) // whoever has gone needs none
}

// traceback is an error in the form in which clients show one; its last line says it all.
func traceback(task string, err error) string {
	return fmt.Sprintf("Traceback (most recent call last):\n  File \"fleetbus gateway openpi\", in task %s\nfleetbus.Error: %v\n", task, err)
}

// read reads observations until the client has gone; it also answers pings, so it does
// nothing else that takes time: a client that takes turns sends none while it waits.
func (s *session) read(ctx context.Context, to chan<- []byte) error {
	for {
		body, err := s.wire.Read(context.WithoutCancel(ctx)) // closing the connection ends it
		if err != nil {
			return err
		}
		select {
		case to <- body:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// serve sends the metadata, then an answer for each observation. nil: the door stops.
func (s *session) serve(ctx context.Context, observations <-chan []byte) error {
	m, err := s.metadata(ctx)
	if err != nil {
		return err
	}
	if err := s.write(ctx, m); err != nil {
		return err
	}
	for first := true; ; first = false {
		var body []byte
		select {
		case body = <-observations:
		case <-s.g.stopping:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.slowDown(ctx); err != nil {
			return err
		}
		answer, err := s.ask(ctx, body, first)
		if err != nil {
			return err
		}
		if err := s.write(ctx, answer); err != nil {
			return err
		}
		s.g.stats.answers.Add(1)
	}
}

func (s *session) write(ctx context.Context, body []byte) error {
	limit, cancel := context.WithTimeout(ctx, closeTime)
	defer cancel()
	return s.wire.Write(limit, body)
}

// slowDown holds a client that asks too often.
func (s *session) slowDown(ctx context.Context) error {
	for {
		wait := s.rate.Take(time.Now())
		if wait == 0 {
			return nil
		}
		if err := sleep(ctx, wait, nil); err != nil {
			return err
		}
	}
}

// ask asks until there is an answer, or no time is left.
func (s *session) ask(ctx context.Context, body []byte, first bool) ([]byte, error) {
	s.g.stats.observations.Add(1)
	deadline := s.g.cfg.Deadline
	if deadline == 0 {
		deadline = s.g.deadline()
	}
	if first {
		deadline = max(deadline, s.g.cfg.FirstDeadline)
	}
	in := router.Inference{Task: s.g.cfg.Task, Body: body}
	if s.g.cfg.Sticky != StickyOff {
		in.Key = s.id // nobody else's, so nothing takes its place; backends keep a connection for it
	}
	until := time.Now().Add(deadline)
	var last error
	for t := (again{}); ; {
		changed := s.g.c.RoutesChanged()
		in.Deadline = time.Until(until)
		if in.Deadline <= 0 {
			return nil, s.final(late(deadline, last))
		}
		if s.g.cfg.Sticky != StickyOff {
			in.Agent, in.AgentOnly = s.agent, s.g.cfg.Sticky == StickyOnly
		}
		answer, err := s.g.c.Infer(ctx, in)
		if err == nil {
			if s.agent != "" && s.agent != answer.Agent && s.g.cfg.Sticky == StickyPrefer {
				s.log.Warn("the session has moved, and the state of its policy is lost", "from", s.agent, "to", answer.Agent)
			}
			s.agent = answer.Agent
			return answer.Body, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		pause, ok := t.next(err)
		if !ok {
			return nil, s.final(err)
		}
		last = err
		if err := sleep(ctx, min(pause, time.Until(until)), changed); err != nil {
			return nil, err
		}
	}
}

// final is the error that a client sees.
func (s *session) final(err error) error {
	if s.g.cfg.Sticky == StickyOnly && s.agent != "" {
		e := messages.AsError(err, messages.CodeInternal)
		return messages.Errorf(e.Code, "%s (this session belongs to agent %s, and its state with it; begin a new one)", e.Message, s.agent)
	}
	return err
}

// late is the error of an observation that nobody could take in time.
func late(deadline time.Duration, last error) error {
	e := messages.AsError(last, messages.CodeDeadline)
	return messages.Errorf(messages.CodeDeadline, "nobody could take the observation within %v; the last reason was %s: %s", deadline, e.Code, e.Message)
}

// again decides whether a request that failed is tried again, and when. It is pure.
type again struct{ n, failed int }

func (t *again) next(err error) (time.Duration, bool) {
	e := messages.AsError(err, messages.CodeInternal)
	switch e.Code {
	case messages.CodeNotPlaced, messages.CodeNoCapacity, messages.CodeBusy, messages.CodeUnavailable, messages.CodeNotConnected,
		messages.CodeDraining, messages.CodeConflict, messages.CodeNotFound:
	case messages.CodeBackendFailed:
		if t.failed++; t.failed >= failTries {
			return 0, false
		}
	default:
		return 0, false
	}
	pause := min(max(e.RetryAfter, pauseFirst<<min(t.n, 10)), pauseMost)
	t.n++
	return pause, true
}

// deadline is the task's own, where it is known.
func (g *Gateway) deadline() time.Duration {
	routes := g.c.Routes()
	if r, ok := routes.Find(g.cfg.Task); ok {
		return r.Task.CallerDeadline()
	}
	return messages.Task{}.CallerDeadline()
}

// metadata is what a ready replica said last.
type metadata struct {
	mu    sync.Mutex
	frame []byte
	at    time.Time
}

// metadata waits for a ready replica and returns what it says of itself.
func (s *session) metadata(ctx context.Context) ([]byte, error) {
	if s.g.cfg.Metadata != nil {
		return s.g.cfg.Metadata, nil
	}
	m := &s.g.metadata
	until := time.Now().Add(s.g.cfg.Hold)
	for t := (again{}); ; {
		m.mu.Lock()
		frame, fresh := m.frame, time.Since(m.at) < metadataGood
		m.mu.Unlock()
		if fresh && frame != nil {
			return frame, nil
		}
		changed := s.g.c.RoutesChanged()
		answer, err := s.g.c.Infer(ctx, router.Inference{Task: s.g.cfg.Task, ContentType: messages.MetadataType, Deadline: min(metadataTime, s.g.cfg.Hold)})
		switch code := messages.CodeOf(err); {
		case err == nil:
			frame = answer.Body
		case code == messages.CodeBadRequest && s.g.isInference():
			frame = emptyMap
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case code == messages.CodeBadRequest || code == messages.CodePayloadTooLarge:
			return nil, err
		case !time.Now().Before(until):
			e := messages.AsError(err, messages.CodeInternal)
			return nil, messages.Errorf(e.Code, "no replica was ready within %v: %s", s.g.cfg.Hold, e.Message)
		default:
			if t.n == 0 {
				s.log.Info("client waits for the first ready replica", "reason", err)
			}
			pause, _ := t.next(err)
			if err := sleep(ctx, min(max(pause, pauseFirst), time.Until(until)), changed); err != nil {
				return nil, err
			}
			continue
		}
		m.mu.Lock()
		m.frame, m.at = frame, time.Now()
		m.mu.Unlock()
		return frame, nil
	}
}

// isInference reports whether the task is one that can be asked: then bad_request is the
// backend's word.
func (g *Gateway) isInference() bool {
	routes := g.c.Routes()
	r, ok := routes.Find(g.cfg.Task)
	return ok && r.Task.Class == messages.Inference
}

// sleep waits for d, or until something wakes it; an error is that ctx has ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
