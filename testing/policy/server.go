package policy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/fleetbus/fleetbus/internal/openpiwire"
)

// Server is a policy server: an http.Handler. It ends a connection that it has when its
// client does, or when the context of Infer's caller does.
type Server struct {
	Metadata []byte // sent on connect
	Limit    int    // bytes of an observation; 0: 64 MiB
	// Infer answers an observation; an error is sent as a traceback, and ends the connection.
	Infer func(ctx context.Context, observation []byte) ([]byte, error)
	// Parallel lets it compute several observations at once; the stock server does not.
	Parallel bool
	// Key, where there is one, must come as Authorization: Api-Key.
	Key string
	// Misbehave, where it is not nil, may take an observation over; true: it has.
	Misbehave func(c *openpiwire.Conn, r *http.Request, observation []byte) bool

	one   sync.Mutex
	set   sync.RWMutex
	conns map[*openpiwire.Conn]struct{}
}

// CloseAll ends all connections without a word, as a crash does.
func (s *Server) CloseAll() {
	s.set.Lock()
	defer s.set.Unlock()
	for c := range s.conns {
		c.CloseNow()
	}
}

func (s *Server) add(c *openpiwire.Conn) {
	s.set.Lock()
	defer s.set.Unlock()
	if s.conns == nil {
		s.conns = make(map[*openpiwire.Conn]struct{})
	}
	s.conns[c] = struct{}{}
}

func (s *Server) remove(c *openpiwire.Conn) {
	c.CloseNow()
	s.set.Lock()
	defer s.set.Unlock()
	delete(s.conns, c)
}

// Set changes the server while it serves.
func (s *Server) Set(change func(*Server)) {
	s.set.Lock()
	defer s.set.Unlock()
	change(s)
}

func (s *Server) settings() (metadata []byte, key string) {
	s.set.RLock()
	defer s.set.RUnlock()
	return s.Metadata, s.Key
}

// ServeHTTP serves one connection, or the page that says that the server is there.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == openpiwire.HealthPath {
		fmt.Fprint(w, openpiwire.HealthBody)
		return
	}
	metadata, key := s.settings()
	if key != "" && r.Header.Get("Authorization") != "Api-Key "+key {
		http.Error(w, "wrong key", http.StatusUnauthorized)
		return
	}
	limit := s.Limit
	if limit == 0 {
		limit = 64 << 20
	}
	c, err := openpiwire.Accept(w, r, limit)
	if err != nil {
		return
	}
	s.add(c)
	defer s.remove(c)
	ctx := context.WithoutCancel(r.Context()) // which ends when this has the connection
	if c.Write(ctx, metadata) != nil {
		return
	}
	for {
		observation, err := c.Read(ctx)
		if err != nil {
			return
		}
		if s.Misbehave != nil && s.Misbehave(c, r, observation) {
			return
		}
		answer, err := s.infer(ctx, observation)
		if err != nil {
			_ = c.Fail(ctx, "Traceback (most recent call last):\n  File \"policy.py\", line 1, in infer\nValueError: "+err.Error()+"\n") // whoever has gone needs none
			return
		}
		if c.Write(ctx, answer) != nil {
			return
		}
	}
}

func (s *Server) infer(ctx context.Context, observation []byte) ([]byte, error) {
	if !s.Parallel {
		s.one.Lock()
		defer s.one.Unlock()
	}
	return s.Infer(ctx, observation)
}

// Client is a client as the stock one: strictly in turn, no timeout, no second connection.
type Client struct {
	Metadata []byte // that the server sent
	c        *openpiwire.Conn
}

// Connect connects, and returns when the server has sent its metadata, however long that
// takes. key is sent as the stock client does; "": none.
func Connect(ctx context.Context, url, key string) (*Client, error) {
	authorization := ""
	if key != "" {
		authorization = "Api-Key " + key
	}
	c, err := openpiwire.Dial(ctx, url, authorization, 64<<20)
	if err != nil {
		return nil, err
	}
	metadata, err := c.Read(ctx)
	if err != nil {
		c.CloseNow()
		return nil, err
	}
	return &Client{metadata, c}, nil
}

// Infer sends an observation and waits for its answer. ctx is for tests that give up.
func (c *Client) Infer(ctx context.Context, observation []byte) ([]byte, error) {
	if err := c.c.Write(ctx, observation); err != nil {
		// What the server said before it closed is the better reason.
		if _, said := c.c.Read(ctx); said != nil {
			var t *openpiwire.Traceback
			if errors.As(said, &t) {
				return nil, said
			}
		}
		return nil, err
	}
	return c.c.Read(ctx)
}

// Close says goodbye.
func (c *Client) Close() { _ = c.c.Close(1000, "") } // an error says that it is closed already

// CloseNow ends the connection without a word.
func (c *Client) CloseNow() { c.c.CloseNow() }

// Serve runs a server on a free port of loopback until stop is called, which ends all its
// connections.
func Serve(s *Server) (url string, stop func()) {
	web := httptest.NewServer(s)
	return "ws" + strings.TrimPrefix(web.URL, "http"), func() {
		web.Listener.Close()
		s.CloseAll()
		web.CloseClientConnections()
		web.Close()
	}
}
