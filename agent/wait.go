package agent

import (
	"context"
	"maps"
	"sync"
	"time"
)

// pulse wakes everybody who waits for the next event of a kind. The zero value is
// ready to use.
type pulse struct {
	mu    sync.Mutex
	ch    chan struct{}
	calls map[*func()]struct{}
}

// next returns a channel that is closed by the next fire.
func (p *pulse) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch == nil {
		p.ch = make(chan struct{})
	}
	return p.ch
}

// call makes fire call f, which must not wait, until stop is called.
func (p *pulse) call(f func()) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls == nil {
		p.calls = make(map[*func()]struct{})
	}
	key := &f
	p.calls[key] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.calls, key)
	}
}

func (p *pulse) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch != nil {
		close(p.ch)
		p.ch = nil
	}
	for f := range p.calls {
		(*f)()
	}
}

// nudge wakes the one reader of a channel of capacity 1 that may be busy.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// lives counts goroutines that may never end because user code does not. Unlike a
// sync.WaitGroup it can be waited for with a limit, without leaving a waiter behind.
type lives struct {
	mu   sync.Mutex
	n    int
	zero chan struct{}
}

// begin runs f on a goroutine that counts until f returns.
func (l *lives) begin(f func()) {
	l.enter()
	go func() {
		defer l.leave() // deferred: a handler may end its goroutine with runtime.Goexit
		f()
	}()
}

// enter counts a goroutine, until leave.
func (l *lives) enter() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
}

func (l *lives) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n--; l.n == 0 && l.zero != nil {
		close(l.zero)
		l.zero = nil
	}
}

// none returns a channel that is closed as soon as no goroutine counts.
func (l *lives) none() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.zero == nil {
		l.zero = make(chan struct{})
	}
	ch := l.zero
	if l.n == 0 {
		close(ch)
		l.zero = nil
	}
	return ch
}

// backoff is a wait that doubles from least to most. It is pure.
type backoff struct {
	least, most, next time.Duration
}

func (b *backoff) step() time.Duration {
	d := max(b.next, b.least)
	b.next = min(2*d, b.most)
	return d
}

func (b *backoff) reset() { b.next = 0 }

// sleep waits for d, the end of ctx or wake, whichever is first; nil wake never is.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-wake:
	}
}

// counters counts faults by name. The zero value is ready to use.
type counters struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counters) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[name]++
}

func (c *counters) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
