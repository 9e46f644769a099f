package openpi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
)

// conn is one connection. One goroutine reads it all the time, which also answers pings;
// another one pings while it is idle, so that a connection that a router between has
// forgotten is found.
type conn struct {
	s       *server
	wire    *openpiwire.Conn
	session string // whose it is; "": anybody's
	life    context.Context
	ended   context.CancelFunc

	// Under s.mu.
	call *call // that waits for an answer; nil: none
	used time.Time
}

// call is an observation that waits for its answer. Whoever takes it off its connection,
// under the lock, owns connection and place: its caller, or, once that has given it up, the
// reader.
type call struct {
	answer  chan answer // capacity 1
	givenUp bool
	hang    *time.Timer
}

type answer struct {
	body []byte
	err  error
}

// dial opens a connection and reads the metadata.
func (s *server) dial(ctx context.Context, session string) (*conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.alive, cancel)()
	wire, err := openpiwire.Dial(ctx, s.o.URL, s.o.Authorization, s.o.MaxBody)
	if err != nil {
		return nil, err
	}
	metadata, err := wire.Read(ctx)
	if err != nil {
		wire.CloseNow()
		return nil, fmt.Errorf("it sent no metadata: %w", err)
	}
	s.learn(metadata)
	c := &conn{s: s, wire: wire, session: session}
	c.life, c.ended = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.ended()
		wire.CloseNow()
		return nil, context.Cause(s.alive)
	}
	s.sign = time.Now()
	s.conns[c] = struct{}{}
	s.parts.Go(c.read)
	s.parts.Go(c.keep)
	return c, nil
}

// take returns a connection for an observation of a session: one that is idle, or a new
// one.
func (s *server) take(ctx context.Context, session string) (*conn, error) {
	s.mu.Lock()
	if session != "" {
		for c := range s.conns {
			if c.session == session && !slices.Contains(s.idle, c) {
				s.mu.Unlock()
				return nil, messages.Errorf(messages.CodeBackendFailed, "the connection of session %s to %s is still busy with an observation that was given up", session, s.o.URL)
			}
		}
	}
	at := -1
	for i, c := range slices.Backward(s.idle) { // the one that was used last is the warmest
		if c.session == session {
			at = i
			break
		}
		if c.session == "" && at < 0 {
			at = i
		}
	}
	var c, old *conn
	switch {
	case at >= 0:
		c = s.idle[at]
		c.session = session
		s.idle = slices.Delete(s.idle, at, at+1)
	case session != "" && len(s.conns) >= s.o.MaxSessions && len(s.idle) > 0:
		old = s.idle[0]
	}
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	if old != nil {
		s.drop(old)
	}
	return s.dial(ctx, session)
}

// drop closes a connection that is not needed any more.
func (s *server) drop(c *conn) {
	s.mu.Lock()
	s.forget(c)
	s.mu.Unlock()
	c.wire.CloseNow()
}

// forget takes a connection off the lists, and reports whether it was there; s.mu is held.
func (s *server) forget(c *conn) bool {
	_, open := s.conns[c]
	delete(s.conns, c)
	if i := slices.Index(s.idle, c); i >= 0 {
		s.idle = slices.Delete(s.idle, i, i+1)
	}
	return open
}

// put makes a connection idle, unless it has ended.
func (s *server) put(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.conns[c]; open {
		c.used = time.Now()
		s.idle = append(s.idle, c)
	}
}

// begin makes the connection wait for an answer. Where it has ended meanwhile, the answer
// is that.
func (c *conn) begin() *call {
	call := &call{answer: make(chan answer, 1)}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if _, open := c.s.conns[c]; !open {
		call.answer <- answer{err: errors.New("the connection was closed while it was idle")}
		return call
	}
	c.call = call
	return call
}

// giveUp leaves an observation to the reader; false: its answer is there.
func (c *conn) giveUp(call *call) bool {
	hang := c.s.hang()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.call != call {
		return false
	}
	call.givenUp = true
	call.hang = time.AfterFunc(hang, func() {
		c.s.mu.Lock()
		still := c.call == call
		c.s.mu.Unlock()
		if still {
			c.s.kill(fmt.Errorf("it hangs: an observation was not answered within %v after its time was over", hang))
		}
	})
	return true
}

// read reads answers until the connection ends.
func (c *conn) read() {
	s := c.s
	defer c.ended()
	for {
		body, err := c.wire.Read(context.Background()) // CloseNow ends it
		s.mu.Lock()
		call := c.call
		c.call = nil
		s.sign = time.Now()
		if err == nil && call == nil {
			err = errors.New("it sent a message that nobody had asked for")
			s.o.Logger.Warn("a connection to the policy server is closed", "handler", s.o.Name, "url", s.o.URL, "error", err)
		}
		dropped := false
		if err != nil {
			dropped = !s.forget(c)
		} else {
			s.answered = true
		}
		s.mu.Unlock()
		if err != nil {
			c.wire.CloseNow()
			var ours *openpiwire.Traceback
			if !dropped && !errors.As(err, &ours) {
				s.suspect()
			}
		}
		if call != nil {
			if call.hang != nil {
				call.hang.Stop()
			}
			if call.givenUp { // nobody else gives back what it holds
				if err == nil {
					s.put(c)
				}
				<-s.places
			} else {
				call.answer <- answer{body, err}
			}
		}
		if err != nil {
			return
		}
	}
}

// keep pings while the connection is idle: a server that computes answers no pings.
func (c *conn) keep() {
	tick := time.NewTicker(openpiwire.PingEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.life.Done():
			return
		case <-tick.C:
		}
		c.s.mu.Lock()
		idle := c.call == nil
		c.s.mu.Unlock()
		if idle && !c.ping() {
			c.wire.CloseNow() // its reader finds out
		}
	}
}

// ping reports whether the other side answers, or computes.
func (c *conn) ping() bool {
	ctx, cancel := context.WithTimeout(c.life, openpiwire.PingEvery)
	defer cancel()
	err := c.wire.Ping(ctx)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err == nil {
		c.s.sign = time.Now()
		return true
	}
	return c.call != nil
}
