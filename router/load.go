package router

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func random() uint64 { return rand.Uint64() }

// loads counts the requests that this client has at each replica, and remembers how it
// answered: what the client knows for certain about their load. A flight takes a slot in
// one place (watch) and gives all of its slots back in one (land).
type loads struct {
	mu  sync.Mutex
	all map[loadKey]*load
}

type loadKey struct{ agent, task string }

type load struct {
	n      int // requests there now
	health route.Health
}

// maxLoads is how many replicas are remembered; beyond it those without a request are
// forgotten, because agents come and go for years.
const maxLoads = 4096

func (l *loads) init() { l.all = make(map[loadKey]*load) }

// of returns the entry of a replica; mu is held.
func (l *loads) of(agent, task string) *load {
	k := loadKey{agent, task}
	e := l.all[k]
	if e == nil {
		if len(l.all) >= maxLoads {
			maps.DeleteFunc(l.all, func(_ loadKey, e *load) bool { return e.n == 0 })
		}
		e = new(load)
		l.all[k] = e
	}
	return e
}

func (l *loads) add(agent, task string, d int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(agent, task).n += d
}

// note remembers the end of an attempt: how long the handler took, or that it failed.
func (l *loads) note(now time.Time, agent, task string, took time.Duration, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := &l.of(agent, task).health; failed {
		h.Failed(now)
	} else {
		h.Answered(now, took)
	}
}

// load returns what a request that has left of its time must know of a replica.
func (l *loads) load(now time.Time, agent string, t *messages.Task, left time.Duration) route.Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.all[loadKey{agent, t.Name}]
	if e == nil {
		return route.Load{}
	}
	took := e.health.Latency(now)
	rounds := time.Duration(e.n/t.Slots() + 1)
	return route.Load{InFlight: e.n, Latency: took, Late: took*rounds > left, Down: e.health.Ejected(now)}
}

// tasks is what the client knows of each task: how late is late, and of each of its
// queues.
type tasks struct {
	mu     sync.Mutex
	hedges map[string]*route.Hedge
	queues map[queueKey]*route.Backlog
}

type queueKey struct{ site, task string }

func (t *tasks) init() {
	t.hedges, t.queues = make(map[string]*route.Hedge), make(map[queueKey]*route.Backlog)
}

// hedge calls f with what is known of the latency of a task.
func (t *tasks) hedge(task string, f func(*route.Hedge)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hedges[task]
	if h == nil {
		h = new(route.Hedge)
		t.hedges[task] = h
	}
	f(h)
}

// queue calls f with what is known of a queue.
func (t *tasks) queue(site, task string, f func(*route.Backlog)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := queueKey{site, task}
	b := t.queues[k]
	if b == nil {
		b = new(route.Backlog)
		t.queues[k] = b
	}
	f(b)
}

// queueFor returns the site into whose queue a request goes: the first where it may be
// answered in time; "" where the queue of the best site does not work. Where it is too
// late everywhere the error says when to try again.
func (c *Client) queueFor(r *messages.TaskRoute, sites []string, now time.Time, left time.Duration) (string, *messages.Error) {
	var busy *messages.Error
	for i, site := range sites {
		switch {
		case c.streams.usable(site, now):
		case i == 0:
			return "", nil // straight to an agent, of this site first
		default:
			continue
		}
		var ask bool
		var why *messages.Error
		c.tasks.queue(site, r.Task.Name, func(b *route.Backlog) {
			ask = b.Ask(now)
			if why = b.Refuse(now, left, route.Slots(r, site)); why == nil {
				b.Sent()
			}
		})
		if ask {
			c.askBacklog(site, r.Task.Name)
		}
		if why == nil {
			return site, nil
		}
		if busy == nil || why.RetryAfter < busy.RetryAfter {
			busy = why
		}
	}
	if busy != nil {
		busy.Message = "task " + r.Task.Name + ": " + busy.Message
	}
	return "", busy
}

// stuck reports whether a queue that a request waits in seems to deliver nothing, and
// asks for its state.
func (c *Client) stuck(site, task string) (stuck bool) {
	now, ask := time.Now(), false
	c.tasks.queue(site, task, func(b *route.Backlog) {
		b.Waited()
		ask, stuck = b.Ask(now), b.Stuck(now)
	})
	if ask {
		c.askBacklog(site, task)
	}
	return stuck
}

// askBacklog asks for the state of a queue. Who may not, or gets no answer, refuses
// nothing early.
func (c *Client) askBacklog(site, task string) {
	_ = c.nc.PublishRequest(c.bus.ConsumerInfoSubject(site, messages.Inference, task), c.replies+"c."+site+"."+task, nil)
}

// backlog takes in the state of a queue.
func (c *Client) backlog(token string, m *nats.Msg) error {
	site, task, ok := strings.Cut(token, ".")
	if !ok {
		return messages.Errorf(messages.CodeBadRequest, "the state of %q was not asked for", token)
	}
	if noResponders(m) {
		return nil
	}
	var info struct {
		Pending uint64 `json:"num_pending"`
		Taken   int    `json:"num_ack_pending"`
		Did     struct {
			Count uint64 `json:"consumer_seq"`
		} `json:"delivered"`
		Waiting int                 `json:"num_waiting"`
		Error   *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return messages.Errorf(messages.CodeBadRequest, "the state of a consumer: %v", err)
	}
	if info.Error == nil {
		c.tasks.queue(site, task, func(b *route.Backlog) {
			b.Read(time.Now(), int(min(info.Pending, math.MaxInt32)), max(0, info.Taken), max(0, info.Waiting), info.Did.Count)
		})
	}
	return nil
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
