package openpi

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
)

// placeWait is how long an observation waits for a place that another one keeps that was
// given up. The agent begins no more than there are slots, so otherwise there is one at
// once; and a caller has better things to do than to wait for a server that is late.
const placeWait = 20 * time.Millisecond

// Serve sends an observation and waits for its answer, the end of ctx or the end of the
// server.
func (s *server) Serve(ctx context.Context, req *backend.Request) (backend.Response, error) {
	if len(req.Body) > s.o.MaxBody {
		return backend.Response{}, messages.Errorf(messages.CodePayloadTooLarge, "the request has %d bytes, handler %q passes on %d; raise MaxBody", len(req.Body), s.o.Name, s.o.MaxBody)
	}
	if err := s.enter(ctx); err != nil {
		return backend.Response{}, err
	}
	session := ""
	if s.o.Sessions && req.Key != "" {
		session = req.Origin + "/" + req.Key
	}
	c, err := s.take(ctx, session)
	if err != nil {
		<-s.places
		return backend.Response{}, s.unreached(ctx, err)
	}
	call := c.begin()
	if err := c.wire.Write(ctx, req.Body); err != nil {
		c.wire.CloseNow() // half an observation cannot be taken back; the reader says what became of it
	}
	select {
	case a := <-call.answer:
		return s.finish(ctx, c, a)
	case <-ctx.Done():
		if c.giveUp(call) {
			return backend.Response{}, ctx.Err()
		}
		return s.finish(ctx, c, <-call.answer)
	}
}

// enter takes a place.
func (s *server) enter(ctx context.Context) error {
	select {
	case s.places <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(placeWait)
	defer timer.Stop()
	select {
	case s.places <- struct{}{}:
		return nil
	case <-timer.C:
		return messages.Errorf(messages.CodeBackendFailed, "%s is still busy with %d observations whose time is over; allow more time, or add replicas", s.o.URL, cap(s.places))
	case <-s.alive.Done():
		return s.lost()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unreached is the error of an observation for which there is no connection.
func (s *server) unreached(ctx context.Context, err error) error {
	var ours *messages.Error
	switch {
	case errors.As(err, &ours):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case s.alive.Err() != nil:
		return s.lost()
	}
	s.suspect()
	return messages.Errorf(messages.CodeBackendFailed, "%s takes no connection: %v", s.o.URL, err)
}

// finish gives the place back and says what the answer was.
func (s *server) finish(ctx context.Context, c *conn, a answer) (backend.Response, error) {
	if a.err == nil {
		s.put(c)
	}
	<-s.places
	var traceback *openpiwire.Traceback
	var large *openpiwire.TooLarge
	switch {
	case a.err == nil:
		return backend.Response{Body: a.body}, nil
	case errors.As(a.err, &traceback):
		return backend.Response{}, messages.Errorf(messages.CodeBackendFailed, "%v", a.err)
	case errors.As(a.err, &large):
		return backend.Response{}, messages.Errorf(messages.CodePayloadTooLarge, "the result is %v; raise MaxBody of handler %q, or answer with less", large, s.o.Name)
	case ctx.Err() != nil: // it was closed because of that
		return backend.Response{}, ctx.Err()
	case s.alive.Err() != nil:
		return backend.Response{}, s.lost()
	case errors.Is(a.err, openpiwire.ErrCut):
		return backend.Response{}, messages.Errorf(messages.CodeBackendFailed, "%s failed inside its answer: %v", s.o.URL, a.err)
	}
	return backend.Response{}, messages.Errorf(messages.CodeBackendFailed, "%s gave no answer: %v", s.o.URL, a.err)
}
