package coordinator

import (
	"cmp"
	"context"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// resyncEvery bounds how long a change can be missed: a watcher may lose entries or stand
// still after a connection was lost. A resync is a new watcher, which begins with all
// entries; applying them again changes nothing.
const resyncEvery = 30 * time.Second

// checkEvery is how often it is asked what was written to a bucket last. A watcher that has
// not told of it at two checks in a row is deaf (its server stopped, and the client library
// needs 10 s or more to notice) and is made again; it is one small question, where a resync
// reads everything. checkTimeout bounds the question; a bucket without a leader is not
// asked in vain for longer, for the watcher's news wait meanwhile.
const (
	checkEvery   = 2 * time.Second
	checkTimeout = 500 * time.Millisecond
)

// retryEvery is the pause before a watcher that failed is made again, and between a
// follower's tries for the lease. It is small beside the least ttl; a try costs the
// server a handful of small requests, none of which is stored.
const retryEvery = 500 * time.Millisecond

// watch feeds the entries of a bucket to take until ctx ends: all of them, then done(),
// then the changes; and so again after every resync or failure. begin gets the epoch of
// the bucket: one that was made again begins a new one.
func (c *Coordinator) watch(ctx context.Context, bucket bus.Bucket, begin func(epoch int64), take func(jetstream.KeyValueEntry), done func() error) {
	failing := false
	for ctx.Err() == nil {
		err := c.watchOnce(ctx, bucket, begin, take, done)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !failing {
				c.log.Warn("cannot watch a bucket; trying on", "bucket", bucket, "error", err)
			}
			failing = true
			rest(ctx)
			continue
		}
		failing = false
	}
}

// watchOnce returns nil when it is time to resync.
func (c *Coordinator) watchOnce(ctx context.Context, bucket bus.Bucket, begin func(epoch int64), take func(jetstream.KeyValueEntry), done func() error) error {
	reconnected := c.reconnects() // before anything is asked: what comes later is news
	kv, err := c.open(ctx, bucket)
	if err != nil {
		return err
	}
	base, err := kv.Last(ctx)
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return bus.Explain(err, "watch bucket "+string(bucket))
	}
	defer func() { _ = w.Stop() }() // fails only without a connection, and then the server has dropped it
	begin(kv.Epoch)
	resync := time.NewTimer(resyncEvery)
	defer resync.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	ear := hearing{base: base}
	complete := func() error {
		if err := done(); err != nil {
			return err
		}
		ear.listed = true
		c.known.note(bucket, messages.Fence{Epoch: kv.Epoch, Revision: max(ear.told, base)})
		return nil
	}
	// A list that ends before what was written last is whole only where that is gone again,
	// which the bucket's leader knows. Else the list comes from a server that is behind: what
	// is missing may come soon; if it does not, another list may have it.
	whole := func() (bool, error) {
		if ear.told >= base || bucket == bus.LeaseKV { // of which nothing is concluded
			return true, nil
		}
		try, cancel := context.WithTimeout(ctx, rereadFor)
		defer cancel()
		newest, err := c.bus.Newest(try, bucket)
		return ear.told >= newest, err
	}
	var settle <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-resync.C:
			return nil
		case <-reconnected:
			return nil
		case <-c.known.again[bucket]:
			return nil
		case <-check.C:
			try, cancel := context.WithTimeout(ctx, checkTimeout)
			last, err := kv.Last(try)
			cancel()
			if err == nil && ear.deaf(last) {
				c.log.Warn("a watcher told of nothing new; making it again", "bucket", bucket, "written", last, "told", ear.told)
				return nil
			}
		case <-settle:
			if ok, err := whole(); err != nil || !ok {
				return cmp.Or(err, error(messages.Errorf(messages.CodeUnavailable, "list bucket %s: the server is behind; told of revision %d, written is %d", bucket, ear.told, base)))
			}
			settle = nil
			if err := complete(); err != nil {
				return err
			}
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return nil // the channel may close after a connection loss
			case e == nil:
				ok, err := whole()
				if err != nil {
					return err
				}
				if !ok {
					settle = time.After(rereadFor)
				} else if err := complete(); err != nil {
					return err
				}
			default:
				ear.told = max(ear.told, e.Revision())
				take(e)
				switch {
				case ear.listed:
					c.known.note(bucket, messages.Fence{Epoch: kv.Epoch, Revision: ear.told})
				case settle != nil && ear.told >= base:
					settle = nil
					if err := complete(); err != nil {
						return err
					}
				}
			}
		}
	}
}

// hearing judges whether a watcher tells of what is written. It is pure.
type hearing struct {
	told   uint64 // the newest revision that it told of
	listed bool   // it has told of all that was there
	missed uint64 // a revision that it has not told of at the check before; 0 for none
	base   uint64 // what had been written last before it was made: it may be gone again, and is then told of by nobody
}

// deaf takes what was written last.
func (h *hearing) deaf(last uint64) bool {
	if !h.listed {
		return false // it may be long; a resync ends it
	}
	if last <= max(h.told, h.base) {
		h.missed = 0
		return false
	}
	// It may be on its way.
	was := h.missed
	if was == 0 {
		h.missed = last
	}
	return was != 0 && h.told < was
}

// watchAgents keeps the Machine's registrations.
func (c *Coordinator) watchAgents(ctx context.Context) {
	var listed, known map[string]bool // listing: entries of this watcher, of the one before
	known = make(map[string]bool)
	var epoch, before int64
	gone := func(id string) {
		delete(known, id)
		c.lives.end(id)
		c.feed(ctx, placement.Unregistered{Agent: id})
	}
	c.watch(ctx, bus.Agents,
		func(e int64) { listed, epoch = make(map[string]bool), e },
		func(e jetstream.KeyValueEntry) {
			if e.Operation() != jetstream.KeyValuePut {
				if known[e.Key()] {
					gone(e.Key())
				}
				return
			}
			if listed != nil {
				// Also where it cannot be read: nonsense over the registration of an agent that
				// lives is no reason to forget it.
				listed[e.Key()] = true
			}
			known[e.Key()] = true
			var r messages.Registration
			err := messages.Decode(e.Value(), &r)
			if err == nil && r.Environment.ID != e.Key() {
				err = messages.Errorf(messages.CodeBadRequest, "key %q holds the registration of %q", e.Key(), r.Environment.ID)
			}
			if err != nil {
				c.garbage.Note(c.log, "registration", err)
				c.lives.unreadable(e.Key())
				return
			}
			inc := messages.Incarnation{Epoch: epoch, Revision: e.Revision()}
			c.lives.begin(e.Key(), r.Environment.Normal().Site, inc)
			c.feed(ctx, placement.Registered{Registration: r, Inc: inc})
		},
		func() error {
			// A bucket that was made again has lost the registrations of agents that live: they
			// register again by themselves. Those that do not are lost by their silence.
			if epoch == before {
				var missing []string
				for id := range known {
					if !listed[id] {
						missing = append(missing, id)
					}
				}
				// Nobody has seen these go, and who beats is there: such an agent is forgotten when
				// it is silent too.
				beating := c.beating(ctx, missing)
				for _, id := range missing {
					if beating[id] {
						c.log.Warn("an agent beats whose registration is gone; it is kept as it was", "agent", id)
						continue
					}
					gone(id)
				}
			}
			listed, before = nil, epoch
			c.have(haveAgents)
			return nil
		})
}

// watchDesired keeps the Machine's desired state; it is delivered whole.
func (c *Coordinator) watchDesired(ctx context.Context) {
	var now, last *desired
	var epoch, before int64
	var seen map[string]bool // keys that this watcher told of
	var unread []string      // of those that cannot be read, and that we do not remember
	complete := false
	deliver := func() {
		d := now.value()
		c.feed(ctx, placement.TasksChanged{Tasks: d.Tasks, Settings: d.Settings, Drains: d.Drains})
	}
	c.watch(ctx, bus.Desired,
		func(e int64) { now, complete, seen, unread, epoch = newDesired(), false, make(map[string]bool), nil, e },
		func(e jetstream.KeyValueEntry) {
			seen[e.Key()] = true
			if err := now.put(e); err != nil {
				c.garbage.Note(c.log, "desired "+e.Key(), err)
				// Nonsense over a task is no reason to stop it.
				if last == nil {
					unread = append(unread, e.Key())
				} else {
					now.keep(e.Key(), last)
				}
				return
			}
			if complete {
				deliver()
			}
		},
		func() error {
			for _, key := range unread {
				if err := c.readBefore(ctx, now, key); err != nil {
					return err
				}
			}
			complete = true
			restored := true
			if before != 0 && epoch != before {
				// What was asked for did not change because the server lost it. Somebody else may
				// have begun to write it again, or applied something, so it need not be empty.
				if keys := now.inherit(last, seen); len(keys) > 0 {
					if err := c.restoreDesired(ctx, now, keys); err != nil {
						c.log.Warn("the desired state was lost and cannot be written again; it goes on from memory", "error", err)
						restored = false // the next resync tries again
					}
				}
			}
			last = now
			if restored {
				before = epoch
			}
			deliver()
			c.have(haveDesired)
			return nil
		})
}

// rest waits for retryEvery or the end of ctx.
func rest(ctx context.Context) {
	t := time.NewTimer(retryEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
