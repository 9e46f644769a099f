package router

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func random() uint64 { return rand.Uint64() }

// loads counts the requests that this client has at each replica: what it knows for
// certain about their load. A flight takes a slot in one place (hold) and gives all of
// its slots back in one (land).
type loads struct {
	mu sync.Mutex
	n  map[loadKey]int
}

type loadKey struct{ agent, task string }

func (l *loads) init() { l.n = make(map[loadKey]int) }

func (l *loads) add(agent, task string, d int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := loadKey{agent, task}
	if l.n[k] += d; l.n[k] == 0 {
		delete(l.n, k) // agents come and go for years
	}
}

func (l *loads) count(agent, task string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n[loadKey{agent, task}]
}

// How queues that do not answer are treated. A queue that has failed is left alone for
// streamRest; then one request tries it, and the rest wait another streamRest for what
// becomes of that one. The queue of a killed leader comes back after 4 to 9 s: for that
// long one request a second pays route.AckWait, and the others go straight at once.
const (
	streamRest    = time.Second
	streamTimeout = 5 * time.Second // for making a stream; as long as one request to the JetStream API takes at most
)

// streamHealth remembers the sites whose queue did not take a request, and has missing
// queues made.
type streamHealth struct {
	bad    atomic.Int32 // how many are in rest; the healthy case costs one load
	mu     sync.Mutex
	rest   map[string]time.Time // site → when it may be tried again
	ensure chan string
}

func (s *streamHealth) init() {
	s.rest, s.ensure = make(map[string]time.Time), make(chan string, 16)
}

// usable reports whether a request should be put into the queue of site.
func (s *streamHealth) usable(site string, now time.Time) bool {
	if s.bad.Load() == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	until, bad := s.rest[site]
	if bad && now.Before(until) {
		return false
	}
	if bad {
		s.rest[site] = now.Add(streamRest) // this one tries it
	}
	return true
}

func (s *streamHealth) failed(site string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest[site] = now.Add(streamRest)
	s.bad.Store(int32(len(s.rest)))
}

func (s *streamHealth) works(site string) {
	if s.bad.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rest, site)
	s.bad.Store(int32(len(s.rest)))
}

// missing asks for the queue of site to be made, in the background.
func (s *streamHealth) missing(site string) {
	select {
	case s.ensure <- site:
	default: // it is being made; whoever misses it next asks again
	}
}

// run makes missing queues until ctx ends.
func (s *streamHealth) run(ctx context.Context, c *Client) {
	next := make(map[string]time.Time)
	for {
		var site string
		select {
		case <-ctx.Done():
			return
		case site = <-s.ensure:
		}
		if time.Now().Before(next[site]) {
			continue // a thousand requests miss it at once; it is made once
		}
		c.bus.Forget()
		try, done := context.WithTimeout(ctx, streamTimeout)
		err := c.bus.Stream(try, site, messages.Inference)
		done()
		if err == nil {
			s.works(site)
		} else if ctx.Err() == nil {
			c.cfg.Logger.Warn("the queue of inference is missing and could not be made; requests go straight to agents", "site", site, "error", err)
		}
		next[site] = time.Now().Add(streamRest)
	}
}
