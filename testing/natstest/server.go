package natstest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// readyWithin bounds the wait for one server, which takes 5 to 30 ms. A machine that
// needs longer than this is too slow to say anything about the code under test.
const readyWithin = 20 * time.Second

// reconnectDelay is the time between two attempts of a test's connection to come
// back. Our programs take 0.1 to 2 s, to spare the server; a test has one to itself.
const reconnectDelay = 20 * time.Millisecond

// Room for streams. A bucket or stream may reserve its bytes when it is made, so the
// limits are far above what any test stores, and do not depend on the machine.
const (
	maxMemory = 16 << 30
	maxStore  = 64 << 30
)

// Option changes what [Start] and [StartCluster] start.
type Option struct{ apply func(*embed.Options) }

// InProcess starts a server without a network listener: connections are pipes within
// the process. [Server.URL] is empty then; connect with [Server.Connect] or
// [Server.Dial]. It starts in 5 ms instead of 25, and is the only kind that works in
// virtual time, so it is the default within a [Bubble].
func InProcess() Option { return Option{func(o *embed.Options) { o.DontListen = true }} }

// Token makes the server ask for a token. [Server.Connect] and [Server.Dial] present
// it; whoever connects by URL must do so itself.
func Token(token string) Option { return Option{func(o *embed.Options) { o.Token = token }} }

// MaxPayload sets the largest message in bytes that the server takes, instead of
// 8 MiB.
func MaxPayload(bytes int) Option {
	return Option{func(o *embed.Options) { o.MaxPayload = bytes }}
}

// Logger shows what the server logs, notices and debug messages as slog.LevelDebug.
// Without it the server is silent.
func Logger(l *slog.Logger) Option {
	return Option{func(o *embed.Options) { o.Logger, o.Debug = l, true }}
}

// Server is a NATS server with JetStream in the test's own process. Its methods may
// be called from many goroutines, but those that take a testing.TB only from the
// test's.
type Server struct {
	srv   *embed.Server
	token string
	pipes bool // in process: there is no listener
	links links
}

// Start starts a server with JetStream, on a port and a directory of its own, and
// returns when both are ready. It stops with the test. A failure ends the test.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	o := baseOptions()
	o.Name = "natstest"
	o.DontListen = inBubble.Load()
	for _, opt := range opts {
		opt.apply(&o)
	}
	if !o.DontListen {
		o.Port = freePorts(t, 1)[0]
	}
	// The directory is removed by a cleanup that was registered before the one that
	// stops the server, and so runs after it.
	o.StoreDir = t.TempDir()
	s := &Server{token: o.Token, pipes: o.DontListen}
	var err error
	if s.srv, err = embed.New(o); err != nil {
		t.Fatalf("natstest: %v", err)
	}
	s.links.dial = s.dialServer
	t.Cleanup(func() {
		s.links.close()
		s.srv.Stop()
	})
	s.start(t)
	return s
}

func baseOptions() embed.Options {
	return embed.Options{
		MaxMemory: maxMemory,
		MaxStore:  maxStore,
		Logger:    slog.New(slog.DiscardHandler),
	}
}

func (s *Server) start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	if err := errors.Join(s.srv.Start(), s.srv.Ready(ctx)); err != nil {
		t.Fatalf("natstest: %v", err)
	}
}

// Stop stops the server gracefully and waits until it is gone; clients see a closed
// connection, as after the end of a server's process. Streams in files stay, those in
// memory are lost. Stop on a stopped server does nothing.
func (s *Server) Stop() { s.srv.Stop() }

// Restart stops the server if it runs, and starts it again on the same port and the
// same directory. Clients reconnect by themselves.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.srv.Stop()
	s.start(t)
}

// URL returns the server's address for nats.Connect, "" for a server in process.
func (s *Server) URL() string { return s.srv.ClientURL() }

// Dial returns the option that makes nats.Connect(s.URL(), s.Dial()) reach this
// server, whether it listens or not, with its token.
func (s *Server) Dial() nats.Option {
	return func(o *nats.Options) error {
		o.Token = s.token
		if s.pipes {
			o.InProcessServer = s.srv
		}
		return nil
	}
}

// Connect connects with the options of all fleetbus programs (messages/bus), but
// comes back from a lost connection within 20 ms. opts come last. The connection is
// closed with the test.
func (s *Server) Connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return connect(t, s.URL(), append([]nats.Option{s.Dial()}, opts...))
}

func connect(t testing.TB, urls string, opts []nats.Option) *nats.Conn {
	t.Helper()
	fast := nats.CustomReconnectDelay(func(int) time.Duration { return reconnectDelay })
	nc, err := bus.Connect(urls, t.Name(), append([]nats.Option{fast}, opts...)...)
	if err != nil {
		t.Fatalf("natstest: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// dialServer is what a link has at its far end.
func (s *Server) dialServer(network, address string) (net.Conn, error) {
	if s.pipes {
		return s.srv.InProcessConn()
	}
	return dialTCP(network, address)
}

// Link returns the link of that name to this server, and makes it when it is asked for
// first. It ends with the test.
func (s *Server) Link(name string) *Link { return s.links.get(name, s.pipes, s.token) }

// inBubble is true while a Bubble runs.
var inBubble atomic.Bool
