package coordinator

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// releaseTimeout bounds the last word of a leader that is stopped. If it is not heard the
// lease expires.
const releaseTimeout = time.Second

// reign is the time in which this coordinator leads under one term.
type reign struct {
	term   messages.Term
	tenure atomic.Pointer[tenure] // renewed by lead, read by perform
	ended  chan struct{}          // closed by depose
	over   atomic.Bool

	// What compare-and-set compares with. Once the reign is in force kv is only read, and
	// routesRev is the one save's of the routes that is under way.
	kv        map[bus.Bucket]bus.KV // of the documents and the routes
	routesRev uint64
	mu        sync.Mutex
	revs      map[string]uint64 // of the documents, under mu
}

func (r *reign) revision(agent string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revs[agent]
}

func (r *reign) setRevision(agent string, rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revs[agent] = rev
}

func (r *reign) mayAct(now time.Time) bool { return !r.over.Load() && r.tenure.Load().mayAct(now) }

// depose ends a reign, once.
func (c *Coordinator) depose(r *reign, why string) {
	if r.over.Swap(true) {
		return
	}
	c.tenure.CompareAndSwap(r, nil)
	c.log.Warn("leads no more", "term", r.term, "reason", why)
	close(r.ended)
}

// lead holds the lease whenever it can be had.
func (c *Coordinator) lead(ctx context.Context) {
	// A leader that does not know the fleet would take it for lost.
	select {
	case <-c.ready:
	case <-ctx.Done():
		return
	}
	l := &lease{bus: c.bus, holder: c.cfg.ID + "/" + c.nonce, ttl: c.cfg.LeaseTTL}
	failing := false
	for ctx.Err() == nil {
		if !c.nc.IsConnected() {
			rest(ctx)
			continue
		}
		term, t, err := c.take(ctx, l)
		if err != nil {
			if !errors.Is(err, errHeld) && ctx.Err() == nil && !failing {
				failing = true
				c.log.Warn("cannot take the lease; trying on", "error", err)
			}
			c.heir.wait(ctx)
			continue
		}
		failing = false
		c.rule(ctx, l, term, t)
	}
}

// take takes the lease if it can be had.
func (c *Coordinator) take(ctx context.Context, l *lease) (messages.Term, tenure, error) {
	if from, ok := c.heir.overdue(time.Now()); ok {
		c.log.Info("the leader has not renewed its lease; taking it over", "ttl", from.ttl)
		return l.seize(ctx, from)
	}
	return l.acquire(ctx)
}

// readWithin bounds how long a new leader may read before it leads: fifty thousand documents
// take a few seconds, also beside a server that elects a leader for 4 to 9 s. Who cannot read
// by then gives the lease to somebody who perhaps can.
const readWithin = 20 * time.Second

// rule leads under a term until the lease is lost or ctx ends. The lease is renewed from the
// first moment on: with a short ttl it would else be over before what is saved is read.
func (c *Coordinator) rule(ctx context.Context, l *lease, term messages.Term, t tenure) {
	begun := time.Now()
	r := &reign{term: term, ended: make(chan struct{})}
	r.tenure.Store(&t)
	hold, drop := context.WithCancel(ctx)
	defer drop()
	reading, giveUp := context.WithTimeoutCause(ctx, readWithin, errReading)
	defer giveUp()
	lost := make(chan string, 1)
	go func() {
		lost <- c.keep(hold, l, r)
		giveUp()
	}()
	loaded, stop, err := c.prepare(ctx, reading, r)
	if err != nil {
		drop()
		why := <-lost
		c.log.Warn("cannot lead; giving the lease back", "error", err, "cause", context.Cause(reading), "lease", why, "ttl", c.cfg.LeaseTTL, "took", time.Since(begun))
		c.giveBack(l)
		rest(ctx)
		return
	}
	c.log.Info("leads", "term", term, "id", c.cfg.ID, "version", c.cfg.Version, "read for", time.Since(begun))
	c.work.put(r) // before the Machine can put anything of this term
	c.tenure.Store(r)
	for _, known := range c.presumed(loaded) {
		c.feed(ctx, known)
	}
	c.feed(ctx, loaded)
	c.feed(ctx, placement.Elected{Term: term})
	why := <-lost
	stop() // first of all: whoever asks now is to ask the next
	c.depose(r, why)
	c.feed(ctx, placement.Deposed{Reason: why})
	if ctx.Err() != nil {
		c.giveBack(l)
	}
}

// errReading is why a leader that reads for too long does not lead.
var errReading = errors.New("what is to run and what is placed could not be read in time")

// prepare reads what a leader must know, until reading ends, and begins to answer questions.
func (c *Coordinator) prepare(ctx, reading context.Context, r *reign) (loaded placement.PlacementsLoaded, stop func(), err error) {
	if err := c.catchUp(reading); err != nil {
		return loaded, nil, err
	}
	if loaded, err = c.loadSaved(reading, r); err != nil {
		return loaded, nil, err
	}
	state, err := c.answerState(ctx)
	if err != nil {
		return loaded, nil, err
	}
	explain, err := c.answerExplain(ctx)
	if err != nil {
		state()
		return loaded, nil, err
	}
	return loaded, func() {
		state()
		explain()
	}, nil
}

// keep renews the lease until it cannot, and says why.
func (c *Coordinator) keep(ctx context.Context, l *lease, r *reign) string {
	t := *r.tenure.Load()
	next := time.Until(t.renewAt())
	for {
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return "it was stopped"
		case <-r.ended:
			timer.Stop()
			return "a save was refused"
		case <-timer.C:
		}
		if !t.mayAct(time.Now()) {
			return "the lease could not be renewed in time"
		}
		before := time.Now()
		try, cancel := context.WithDeadline(ctx, t.tryUntil(before))
		err := l.renew(try)
		cancel()
		switch {
		case err == nil:
			t.proven = before
			r.tenure.Store(&tenure{ttl: t.ttl, proven: before})
			next = time.Until(t.renewAt())
		case errors.Is(err, errHeld):
			return "the lease is somebody else's, or expired"
		default:
			c.log.Warn("lease not renewed; trying again", "error", err)
			next = t.retryAfter()
		}
	}
}

// giveBack releases the lease so that another leads at once.
func (c *Coordinator) giveBack(l *lease) {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	if err := l.release(ctx); err != nil {
		c.log.Debug("lease not given back; it expires", "error", err)
	}
}
