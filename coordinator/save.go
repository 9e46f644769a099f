package coordinator

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// edition is what orders the writes of one key.
type edition struct {
	term messages.Term
	rev  uint64
}

// save writes data, which is v, under a key by compare-and-set behind the revision follows,
// and returns the new revision. Where something else is there, that decides: of a newer term
// it deposes us, an older one is written over, and one of ours is never written over by what
// is not newer.
func (p *performer) save(ctx context.Context, r *reign, bucket bus.Bucket, key string, follows uint64, v edition, data []byte, of func([]byte) (edition, error)) (uint64, error) {
	until := time.Now().Add(saveTimeout)
	if stop := r.tenure.Load().stopAt(); stop.Before(until) {
		until = stop
	}
	whole := ctx
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	kv := r.kv[bucket]
	write := func(follows uint64) (uint64, error) {
		if follows == 0 {
			return kv.Create(ctx, key, data)
		}
		return kv.Update(ctx, key, data, follows)
	}
	n, err := write(follows)
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		p.remade(whole, r, bucket)
	}
	explained := bus.Explain(err, "save "+key)
	if messages.CodeOf(explained) != messages.CodeConflict && !errors.Is(err, jetstream.ErrKeyExists) {
		return n, explained
	}
	// Either another coordinator wrote, or a save of ours that seemed to fail did not.
	e, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		if p.remade(whole, r, bucket) {
			return 0, messages.Errorf(messages.CodeConflict, "save %s: bucket %s was made again", key, bucket)
		}
		n, err = write(0) // its agent was forgotten, and is back
		return n, bus.Explain(err, "save "+key)
	}
	if err != nil {
		return 0, bus.Explain(err, "save "+key)
	}
	if was, err := of(e.Value()); err == nil { // nonsense is written over
		switch {
		case r.term.Before(was.term):
			p.c.depose(r, "somebody with a newer term wrote "+key)
			return 0, messages.Errorf(messages.CodeConflict, "save %s: term %s is newer than ours", key, was.term)
		case was == v && bytes.Equal(e.Value(), data):
			return e.Revision(), nil // it is there: an earlier try, which was stored unheard
		case was.term == v.term && was.rev >= v.rev:
			return 0, messages.Errorf(messages.CodeConflict, "save %s: revision %d is there, which is not older than %d", key, was.rev, v.rev)
		}
	}
	n, err = write(e.Revision())
	return n, bus.Explain(err, "save "+key)
}

// remade makes a bucket that is gone again, and reports whether it, or somebody else,
// did. All that was saved in it is lost then, not only what is to be saved now: the reign
// ends, and the next begins by reading what is there and saves everything under its term.
func (p *performer) remade(ctx context.Context, r *reign, bucket bus.Bucket) bool {
	ctx, cancel := context.WithTimeout(ctx, remadeTimeout)
	defer cancel()
	kv, err := p.c.bus.KV(ctx, bucket)
	if err != nil || kv.Epoch == r.kv[bucket].Epoch {
		return false // a group without a leader looks like a lost one; the Machine tries again
	}
	p.c.depose(r, "bucket "+string(bucket)+" was lost and made again")
	return true
}

func (p *performer) savePlacement(ctx context.Context, r *reign, doc messages.Placement) {
	if !r.mayAct(time.Now()) {
		return // it waited until the reign was over: nobody asks
	}
	data, err := messages.Encode(&doc)
	if _, _, ok := p.c.lives.of(doc.Agent); !ok {
		// Else a document that whoever forgot the agent has removed would come back, for ever.
		err = messages.Errorf(messages.CodeNotFound, "agent %s was forgotten", doc.Agent)
	}
	if err == nil {
		var n uint64
		n, err = p.save(ctx, r, bus.Placements, doc.Agent, r.revision(doc.Agent), edition{doc.Term, doc.Rev}, data, func(b []byte) (edition, error) {
			var was messages.Placement
			err := messages.Decode(b, &was)
			return edition{was.Term, was.Rev}, err
		})
		if err == nil { // else nobody knows: what was there last is still the best to follow
			r.setRevision(doc.Agent, n)
		}
	}
	if err != nil {
		p.c.log.Warn("placement not saved", "agent", doc.Agent, "error", err)
		p.c.feed(ctx, placement.SaveFailed{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev, Reason: err.Error()})
		return
	}
	p.c.feed(ctx, placement.Saved{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev})
}

func (p *performer) saveRoutes(ctx context.Context, r *reign, routes messages.Routes) {
	if !r.mayAct(time.Now()) {
		return
	}
	data, err := messages.Encode(&routes)
	if err == nil {
		var n uint64
		n, err = p.save(ctx, r, bus.RoutesKV, bus.KeyRoutes, r.routesRev, edition{routes.Term, routes.Rev}, data, func(b []byte) (edition, error) {
			var was messages.Routes
			err := messages.Decode(b, &was)
			return edition{was.Term, was.Rev}, err
		})
		if err == nil {
			r.routesRev = n
		}
	}
	if err != nil {
		p.c.log.Warn("routes not saved", "error", err)
		p.c.feed(ctx, placement.RoutesSaveFailed{Term: routes.Term, Rev: routes.Rev, Reason: err.Error()})
		return
	}
	p.c.feed(ctx, placement.RoutesSaved{Term: routes.Term, Rev: routes.Rev})
}
