package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// How long a client may take for what needs none: headerTime for the headers of a request,
// idleTime between two. drainTime is how long a door that was told to stop goes on with
// what it has, as a router does.
const (
	headerTime = 5 * time.Second
	idleTime   = 2 * time.Minute
	drainTime  = 10 * time.Second
)

// Listen listens on a host and port. Beyond loopback it wants keys.
func Listen(ctx context.Context, address string, keys Keys, maxConns int) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "listen: found %q, expected HOST:PORT like 127.0.0.1:8000", address)
	}
	if !loopback(host) && !keys.Any() {
		return nil, messages.Errorf(messages.CodeBadRequest, "listen: found %q, which others than this machine can reach, and no key; give one, or listen on 127.0.0.1", address)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "listen on %s: %v", address, err)
	}
	return &limited{Listener: l, room: make(chan struct{}, maxConns), closed: make(chan struct{})}, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// limited has so many connections open at most; further ones wait in the kernel.
type limited struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: conn, room: l.room}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	once sync.Once
	room chan struct{}
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.room })
	return c.Conn.Close()
}

// TLS is the certificate of a door; the zero value is none.
type TLS struct{ CertFile, KeyFile string }

// Serve serves h until ctx ends, then takes no more, and returns when what it has is done,
// or drainTime over. Connections that h has hijacked are h's own to end.
func Serve(ctx context.Context, l net.Listener, h http.Handler, tls TLS, log *slog.Logger) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // of clients that go away in the middle
	}
	ended := make(chan error, 1)
	go func() {
		if tls.CertFile != "" {
			ended <- s.ServeTLS(l, tls.CertFile, tls.KeyFile)
		} else {
			ended <- s.Serve(l)
		}
	}()
	select {
	case err := <-ended:
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return messages.Errorf(messages.CodeBadRequest, "serve %s: %v", l.Addr(), err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := s.Shutdown(limit); err != nil {
		log.Warn("requests were still under way when the time to drain was over", "error", err)
		_ = s.Close() // what is left of them
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return messages.Errorf(messages.CodeInternal, "serve %s: %v", l.Addr(), err)
	}
	return nil
}
