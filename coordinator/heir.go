package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// sight is what a follower has seen of the lease: its newest revision, and when it came.
type sight struct {
	epoch int64
	rev   uint64
	ttl   time.Duration // that its holder gave it; 0: it did not say
	seen  time.Time     // on our own monotonic clock
}

// overdueAt is when the holder has certainly stopped acting, if nothing newer is stored
// by then: it wrote this revision before we saw it, and stops a margin before ttl is over,
// counted from before it wrote (see tenure). So clocks of two hosts are not compared, and
// a follower that was late, or stood still, only waits for longer. It is zero where there
// is nothing to wait for.
func (s sight) overdueAt() time.Time {
	if s.rev == 0 || s.ttl == 0 {
		return time.Time{}
	}
	return s.seen.Add(s.ttl)
}

// heir watches the lease for a follower. It wakes it when the lease was given back, so
// that a hand-over takes no longer than the messages, and when its holder has not renewed
// it for all of its ttl: the server finds out 1 to 2 s after that, for it looks for expired
// keys only once a second.
type heir struct {
	free chan struct{} // has a value when the lease was seen to be gone

	mu    sync.Mutex
	now   sight
	tried uint64 // revision that was tried to be seized: it is not tried twice
}

func newHeir() heir { return heir{free: make(chan struct{}, 1)} }

// put notes a revision of the lease. A new watcher tells of the same one again, which is
// no sign of life.
func (h *heir) put(s sight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.epoch != h.now.epoch || s.rev > h.now.rev {
		h.now = s
	}
}

// gone notes that nobody holds the lease.
func (h *heir) gone() {
	h.mu.Lock()
	h.now.rev = 0
	h.mu.Unlock()
	select {
	case h.free <- struct{}{}:
	default:
	}
}

// overdue returns what is to be seized at now, once.
func (h *heir) overdue(now time.Time) (sight, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.now.overdueAt()
	if at.IsZero() || now.Before(at) || h.tried == h.now.rev {
		return sight{}, false
	}
	h.tried = h.now.rev
	return h.now, true
}

// wait returns when the lease may be had: it was seen to be gone, or is overdue. It
// returns after retryEvery at the latest, for a watcher may miss something.
func (h *heir) wait(ctx context.Context) {
	h.mu.Lock()
	pause, at := retryEvery, h.now.overdueAt()
	if left := time.Until(at); !at.IsZero() && h.tried != h.now.rev {
		pause = min(pause, max(left, 0))
	}
	h.mu.Unlock()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-h.free:
	case <-t.C:
	}
}

// watchLease keeps the heir's eyes open, while this coordinator leads too: it may follow
// in the next moment.
func (c *Coordinator) watchLease(ctx context.Context) {
	var epoch int64
	c.watch(ctx, bus.LeaseKV,
		func(e int64) { epoch = e },
		func(e jetstream.KeyValueEntry) {
			if e.Key() != bus.KeyLeader {
				return
			}
			if e.Operation() != jetstream.KeyValuePut {
				c.heir.gone()
				return
			}
			var l messages.Lease
			if err := messages.Decode(e.Value(), &l); err != nil {
				c.garbage.Note(c.log, "lease", err)
				return // it expires
			}
			c.heir.put(sight{epoch: epoch, rev: e.Revision(), ttl: time.Duration(l.TTL) * time.Second, seen: time.Now()})
		},
		func() error { return nil })
}
