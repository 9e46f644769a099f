package openpi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/health"
	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
)

// The defaults of [Options]. A cold model takes minutes: to load, before the server
// listens, and to compile, with its first observation. HangTimeout is for a server that has
// answered before; until then ReadyTimeout counts instead.
const (
	DefaultReadyTimeout = 15 * time.Minute
	DefaultHangTimeout  = 30 * time.Second
	DefaultMaxBody      = 64 << 20 // bytes: far above what NATS carries (8 MB)
	DefaultMaxSessions  = 64
)

// shakeTime bounds one handshake with its metadata: milliseconds, unless the server
// computes, and then it answers nothing. Between two attempts while the server is not ready
// there is retryFirst, growing to retryMost.
const (
	shakeTime  = 5 * time.Second
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

// Options is where a policy server is. Name and URL are needed.
type Options struct {
	Name string // of the handler; messages.AnyHandler serves whatever no other handler does
	URL  string // ws://host:8000, or wss://

	Authorization string // the header of that name, for example "Api-Key …"; "": none
	Warmup        []byte // an observation that must be answered before the replica is ready; nil: none
	Sessions      bool   // a connection of its own for each key of a request
	MaxSessions   int    // of these at most, idle ones are closed for new ones; 0: DefaultMaxSessions

	ReadyTimeout time.Duration // until it is ready; 0: DefaultReadyTimeout
	HangTimeout  time.Duration // until a server that is silent counts as dead; 0: DefaultHangTimeout
	MaxBody      int           // bytes, in either direction; 0: DefaultMaxBody
	Logger       *slog.Logger  // nil: slog.Default()
}

// New makes a handler that asks the server. It starts nothing and connects to nothing;
// what is wrong with the options is returned by Open.
func New(o Options) backend.Handler {
	if o.MaxSessions <= 0 {
		o.MaxSessions = DefaultMaxSessions
	}
	if o.ReadyTimeout <= 0 {
		o.ReadyTimeout = DefaultReadyTimeout
	}
	if o.HangTimeout <= 0 {
		o.HangTimeout = DefaultHangTimeout
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &handler{o}
}

// CheckURL returns what is wrong with the URL of a policy server.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("found %q, expected a URL like ws://127.0.0.1:%s: %w", text, openpiwire.DefaultPort, err)
	case u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "":
		return fmt.Errorf("found %q, expected a URL like ws://127.0.0.1:%s", text, openpiwire.DefaultPort)
	case u.User != nil:
		return fmt.Errorf("found a URL of %s with credentials in it; give them as authorization, so that they stand in no log", u.Host)
	}
	return nil
}

type handler struct{ o Options }

func (h *handler) Name() string { return h.o.Name }

// Open waits until the server has sent its metadata, and is warm.
func (h *handler) Open(ctx context.Context, open backend.Open) (backend.Server, error) {
	if err := CheckURL(h.o.URL); err != nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "handler %q: %v", h.o.Name, err)
	}
	if len(h.o.Warmup) > h.o.MaxBody {
		return nil, messages.Errorf(messages.CodePayloadTooLarge, "handler %q: its warm-up observation has %d bytes, allowed are %d; raise MaxBody", h.o.Name, len(h.o.Warmup), h.o.MaxBody)
	}
	s := newServer(h.o, open.Task.Slots())
	limit, cancel := context.WithTimeoutCause(ctx, h.o.ReadyTimeout, errNotReady)
	defer cancel()
	err := s.getReady(limit, open)
	if err == nil {
		s.mu.Lock()
		s.parts.Go(s.watch)
		s.mu.Unlock()
		return s, nil
	}
	cerr := s.Close()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(context.Cause(limit), errNotReady):
		return nil, messages.Errorf(messages.CodeBackendFailed, "%s was not ready within %v: %v; start it, check its URL, or raise the ready timeout", h.o.URL, h.o.ReadyTimeout, s.lastError(err))
	}
	return nil, errors.Join(err, cerr)
}

var errNotReady = errors.New("the time to get ready is over")

// getReady connects and warms up, as often as it takes.
func (s *server) getReady(ctx context.Context, open backend.Open) error {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		err := s.tryReady(ctx, open)
		var final *messages.Error
		if err == nil || errors.As(err, &final) {
			return err
		}
		if ctx.Err() == nil {
			s.remember(err)
		}
		open.Note("waits for %s: %v", s.o.URL, err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// tryReady connects once and warms up. An error of ours is final.
func (s *server) tryReady(ctx context.Context, open backend.Open) error {
	shake, cancel := context.WithTimeout(ctx, shakeTime)
	c, err := s.dial(shake, "")
	cancel()
	if err != nil {
		return err
	}
	if len(s.o.Warmup) > 0 {
		open.Note("%s warms up", s.o.URL)
		call := c.begin()
		if err := c.wire.Write(ctx, s.o.Warmup); err != nil {
			c.wire.CloseNow()
		}
		select {
		case a := <-call.answer:
			var traceback *openpiwire.Traceback
			if errors.As(a.err, &traceback) {
				return messages.Errorf(messages.CodeBackendFailed, "%s did not take the warm-up observation: %v", s.o.URL, a.err)
			}
			if a.err != nil {
				return a.err
			}
		case <-ctx.Done():
			s.remember(errors.New("it has not answered the warm-up observation"))
			c.wire.CloseNow()
			<-call.answer
			return ctx.Err()
		}
	}
	s.put(c)
	return nil
}

// remember keeps why it is not ready, for the error of a time that is over.
func (s *server) remember(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
}

func (s *server) lastError(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		return s.last
	}
	return err
}

// server is one replica's way to the policy server.
type server struct {
	o       Options
	places  chan struct{} // holds one for every observation that is at the server
	alive   context.Context
	die     context.CancelCauseFunc // ends alive, with the reason
	failed  chan struct{}           // capacity 1: a connection failed
	closing chan struct{}
	done    chan struct{} // closed when the server has died
	parts   sync.WaitGroup

	mu       sync.Mutex
	metadata []byte
	conns    map[*conn]struct{}
	idle     []*conn // the last one was used last
	sign     time.Time
	answered bool // it has answered an observation
	closed   bool
	dead     bool
	last     error
}

func newServer(o Options, slots int) *server {
	s := &server{
		o: o, places: make(chan struct{}, slots), failed: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}), conns: make(map[*conn]struct{}),
	}
	s.alive, s.die = context.WithCancelCause(context.Background())
	return s
}

// Describe returns the metadata that the server sent.
func (s *server) Describe(context.Context) (backend.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return backend.Response{Body: s.metadata}, nil
}

// Close ends all connections.
func (s *server) Close() error {
	close(s.closing)
	s.end(errors.New("it was closed"))
	s.parts.Wait()
	return nil
}

// end ends alive and all connections; the calls that wait get an error from their reader.
func (s *server) end(why error) {
	s.die(why)
	s.mu.Lock()
	s.closed = true
	list := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		c.wire.CloseNow()
	}
}

// kill says that the server has died.
func (s *server) kill(why error) {
	s.mu.Lock()
	first := !s.dead && !s.closed
	s.dead = true
	s.mu.Unlock()
	if first {
		s.end(why)
		close(s.done)
	}
}

// Done is closed when the server has died.
func (s *server) Done() <-chan struct{} { return s.done }

// Err tells why it has died; nil before.
func (s *server) Err() error {
	select {
	case <-s.done:
		return fmt.Errorf("%s: %w", s.o.URL, context.Cause(s.alive))
	default:
		return nil
	}
}

// lost is what a request gets whose server has died.
func (s *server) lost() error {
	return messages.Errorf(messages.CodeBackendFailed, "%s ended while it served the request: %v", s.o.URL, context.Cause(s.alive))
}

// suspect asks for a look at the server soon.
func (s *server) suspect() {
	select {
	case s.failed <- struct{}{}:
	default:
	}
}

// watch looks after a server of which a connection failed, or to which there is none.
func (s *server) watch() {
	var judge health.Judge
	timer := time.NewTimer(health.Every)
	defer timer.Stop()
	for doubted := false; ; {
		select {
		case <-s.closing:
			return
		case <-s.alive.Done():
			return
		case <-s.failed:
			doubted = true
		case <-timer.C:
		}
		s.mu.Lock()
		connected := len(s.conns) > 0
		s.mu.Unlock()
		if connected && !doubted {
			timer.Reset(health.Every)
			continue
		}
		err := s.probe()
		s.mu.Lock()
		sign := s.sign
		s.mu.Unlock()
		next, dead := judge.Take(time.Now(), sign, s.hang(), err)
		if dead != nil {
			s.kill(dead)
			return
		}
		doubted = err != nil
		timer.Reset(next)
	}
}

// probe connects once; the connection is kept for the next request where there is a place
// for one.
func (s *server) probe() error {
	ctx, cancel := context.WithTimeout(s.alive, shakeTime)
	defer cancel()
	c, err := s.dial(ctx, "")
	if err != nil {
		if ctx.Err() != nil {
			return health.Silence{Err: err}
		}
		return err
	}
	s.mu.Lock()
	enough := len(s.conns) > cap(s.places)
	s.mu.Unlock()
	if enough {
		s.drop(c)
	} else {
		s.put(c)
	}
	return nil
}

// hang is for how long the server may be silent.
func (s *server) hang() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.answered {
		return max(s.o.HangTimeout, s.o.ReadyTimeout)
	}
	return s.o.HangTimeout
}

// learn keeps the metadata of the server, which may be another one's after it was
// restarted.
func (s *server) learn(metadata []byte) {
	s.mu.Lock()
	changed := s.metadata != nil && !bytes.Equal(s.metadata, metadata)
	s.metadata = metadata
	s.mu.Unlock()
	if changed {
		s.o.Logger.Warn("the policy server has other metadata than before; clients that are connected have the old ones", "handler", s.o.Name, "url", s.o.URL)
	}
}
