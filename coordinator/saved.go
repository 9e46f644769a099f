package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// loadSaved reads what is saved, with the revisions that later saves must follow.
func (c *Coordinator) loadSaved(ctx context.Context, r *reign) (placement.PlacementsLoaded, error) {
	var out placement.PlacementsLoaded
	if err := c.bus.Events(ctx); err != nil {
		return out, err
	}
	r.kv = make(map[bus.Bucket]bus.KV)
	for _, b := range []bus.Bucket{bus.Placements, bus.RoutesKV} {
		kv, err := c.bus.KV(ctx, b)
		if err != nil {
			return out, err
		}
		r.kv[b] = kv
	}
	docs, err := c.loadDocuments(ctx, r)
	if err != nil {
		return out, err
	}
	out.Docs = docs
	e, err := c.newest(ctx, bus.RoutesKV, r.kv[bus.RoutesKV], bus.KeyRoutes)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return out, nil
	}
	if err != nil {
		return out, bus.Explain(err, "read the routes")
	}
	r.routesRev = e.Revision()
	var routes messages.Routes
	if err := messages.Decode(e.Value(), &routes); err != nil {
		c.garbage.Note(c.log, "saved routes", err)
		return out, nil
	}
	out.Routes = &routes
	return out, nil
}

// rereadEvery is the pause before something that is not the newest is read again: a
// replica of a bucket is behind its leader by the time of a message. After rereadFor the
// leader is asked whether somebody has taken the newest away; and again after that, for a
// replica that is far behind.
const (
	rereadEvery = 10 * time.Millisecond
	rereadFor   = 500 * time.Millisecond
)

// newest reads the one key of a bucket, and not an older copy of it: any server that has
// one may answer, and may be behind.
func (c *Coordinator) newest(ctx context.Context, bucket bus.Bucket, kv bus.KV, key string) (jetstream.KeyValueEntry, error) {
	last, err := kv.Last(ctx)
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); ; {
		e, err := kv.Get(ctx, key)
		gone := errors.Is(err, jetstream.ErrKeyNotFound)
		switch {
		case err != nil && !gone:
			return nil, err
		case err == nil && e.Revision() >= last || gone && last == 0:
			return e, err
		}
		if time.Since(begin) > rereadFor {
			there, failed := c.bus.Newest(ctx, bucket)
			if failed != nil {
				return nil, failed
			}
			if err == nil && e.Revision() >= there || gone && there == 0 {
				return e, err
			}
			begin = time.Now()
		}
		if !again(ctx) {
			return nil, messages.Errorf(messages.CodeUnavailable, "read %s: the server is behind what was written: %v", key, ctx.Err())
		}
	}
}

// again waits before something is read again, unless ctx ends sooner.
func again(ctx context.Context) bool {
	t := time.NewTimer(rereadEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// loadDocuments reads the saved documents: all that were written before.
func (c *Coordinator) loadDocuments(ctx context.Context, r *reign) ([]messages.Placement, error) {
	last, err := r.kv[bus.Placements].Last(ctx)
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); ; {
		docs, upTo, err := c.listDocuments(ctx, r)
		if err != nil || upTo >= last {
			return docs, err
		}
		if time.Since(begin) > rereadFor {
			there, err := c.bus.Newest(ctx, bus.Placements)
			if err != nil || upTo >= there {
				return docs, err
			}
			begin = time.Now()
		}
		if !again(ctx) {
			return nil, messages.Errorf(messages.CodeUnavailable, "read the placements: the server is behind what was written: %v", ctx.Err())
		}
	}
}

// listDocuments lists the documents once, and returns the newest revision among them.
func (c *Coordinator) listDocuments(ctx context.Context, r *reign) (docs []messages.Placement, upTo uint64, err error) {
	revs := make(map[string]uint64)
	w, err := r.kv[bus.Placements].WatchAll(ctx)
	if err != nil {
		return nil, 0, bus.Explain(err, "read the placements")
	}
	defer func() { _ = w.Stop() }() // fails only without a connection
	for {
		select {
		case <-ctx.Done():
			return nil, 0, bus.Explain(ctx.Err(), "read the placements")
		case e, ok := <-w.Updates():
			if !ok {
				return nil, 0, messages.Errorf(messages.CodeUnavailable, "read the placements: the connection was lost meanwhile")
			}
			if e == nil {
				r.revs = revs
				return docs, upTo, nil
			}
			upTo = max(upTo, e.Revision())
			if e.Operation() != jetstream.KeyValuePut {
				continue
			}
			revs[e.Key()] = e.Revision()
			var doc messages.Placement
			if err := messages.Decode(e.Value(), &doc); err != nil {
				c.garbage.Note(c.log, "saved placement", err)
				continue
			}
			docs = append(docs, doc)
		}
	}
}
