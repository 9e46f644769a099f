package main

import (
	"slices"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
)

// board knows, from what the clients trace, who holds which request right now, and
// keeps every answer's delay. It is fed from many goroutines.
type board struct {
	mu       sync.Mutex
	open     map[string]*flight // requests that have not ended
	flights  []*flight          // ended with an answer
	bad      []messages.Code    // of those that ended in an error that is no early refusal
	watching string             // the agent that somebody waits to see at work
	seen     chan struct{}      // closed when watching has accepted a request
}

// flight is one request from its first word to its end.
type flight struct {
	id, task, holder, agent string
	class                   messages.Class
	attempts                int
	sent, end               time.Time
}

func newBoard() *board { return &board{open: make(map[string]*flight)} }

// trace takes what a client reports of its requests.
func (b *board) trace(e router.TraceEvent) {
	if e.Kind != router.TraceAccepted {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.open[e.ID]
	if f == nil {
		return
	}
	f.holder = e.Agent
	if b.seen != nil && b.watching == e.Agent && f.class == messages.Inference {
		close(b.seen)
		b.seen = nil
	}
}

func (b *board) sent(id, task string, class messages.Class, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[id] = &flight{id: id, task: task, class: class, sent: at}
}

// answered takes a request off the board and returns how long it took.
func (b *board) answered(id, agent string, attempts int, at time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.open[id]
	delete(b.open, id)
	f.agent, f.attempts, f.end = agent, attempts, at
	b.flights = append(b.flights, f)
	return at.Sub(f.sent)
}

// refused takes a request off the board that ended in an error.
func (b *board) refused(id string, code messages.Code, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[id].end = at
	delete(b.open, id)
	if !history.Early(code) {
		b.bad = append(b.bad, code)
	}
}

// counts returns how many requests were answered, how many ended badly, and how many are
// under way.
func (b *board) counts() (answered, bad, open int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.flights), len(b.bad), len(b.open)
}

// atWork returns a channel that is closed as soon as agent accepts an inference.
func (b *board) atWork(agent string) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watching, b.seen = agent, make(chan struct{})
	return b.seen
}

// heldBy returns the open requests that agent has accepted.
func (b *board) heldBy(agent string) []*flight {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*flight
	for _, f := range b.open {
		if f.holder == agent {
			list = append(list, f)
		}
	}
	return list
}

// settled returns the flights as they are now, and how many of them have not ended.
func (b *board) settled(list []*flight) (now []flight, open int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range list {
		now = append(now, *f)
		if f.end.IsZero() {
			open++
		}
	}
	return now, open
}

// servedBy counts the answers of a task per agent since a moment.
func (b *board) servedBy(task string, since time.Time) map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := make(map[string]int)
	for i := len(b.flights) - 1; i >= 0 && b.flights[i].end.After(since); i-- {
		if f := b.flights[i]; f.task == task {
			n[f.agent]++
		}
	}
	return n
}

// delays returns the delays, ascending, of the answers of a task from agents that pick
// accepts.
func (b *board) delays(task string, pick func(agent string) bool) []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []time.Duration
	for _, f := range b.flights {
		if f.task == task && pick(f.agent) {
			list = append(list, f.end.Sub(f.sent))
		}
	}
	slices.Sort(list)
	return list
}

// quantile returns the q-quantile (0 to 1) of an ascending list; 0 for an empty one.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[min(len(list)-1, int(q*float64(len(list))))]
}
