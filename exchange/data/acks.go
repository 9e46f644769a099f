package data

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// acks says what a holder holds, where that has changed. It belongs to the goroutine of the
// holder's Run, but for forget.
type acks struct {
	h     *Holder
	said  map[string]messages.DataAck
	stale atomic.Bool // after a reconnection: what was said may be lost with the bucket
}

func (a *acks) forget() { a.stale.Store(true) }

func (a *acks) synced(ctx context.Context, r Record) error {
	return a.say(ctx, messages.DataAck{Name: r.Name, State: messages.DataSynced, Held: r.Rev, Digest: r.Digest, Want: r.Rev, Have: r.Size})
}

func (a *acks) fetching(ctx context.Context, r Record, held *drift.Held, have int64) error {
	return a.say(ctx, former(messages.DataAck{Name: r.Name, State: messages.DataFetching, Want: r.Rev, Have: have}, held))
}

// failed says why a body is not held, and returns that.
func (a *acks) failed(ctx context.Context, r Record, held *drift.Held, fault error) error {
	why := messages.AsError(fault, messages.CodeInternal)
	if why.Code == messages.CodeUnavailable {
		return fault // of the link or the server, not of this environment
	}
	_ = a.say(ctx, former(messages.DataAck{Name: r.Name, State: messages.DataFailed, Want: r.Rev, Reason: why.Message}, held)) // the fault is what is returned
	return fault
}

// former adds what an environment holds while it does not hold what it should.
func former(ack messages.DataAck, held *drift.Held) messages.DataAck {
	if held != nil {
		ack.Held, ack.Digest = held.Rev, held.Digest
	}
	return ack
}

func (a *acks) say(ctx context.Context, ack messages.DataAck) error {
	if a.said == nil || a.stale.Swap(false) {
		a.said = make(map[string]messages.DataAck)
	}
	ack.V, ack.Agent = messages.Version, a.h.cfg.Environment.ID
	if a.said[ack.Name] == ack {
		return nil
	}
	data, err := messages.Encode(&ack)
	if err != nil {
		return err
	}
	err = a.h.b.Ask(ctx, askTime, func(ctx context.Context) error {
		kv, err := a.h.b.KV(ctx, bus.Acks)
		if err != nil {
			return err
		}
		_, err = kv.Put(ctx, ack.Agent+"."+ack.Name, data)
		return bus.Explain(err, "acknowledge data "+ack.Name)
	})
	if err == nil {
		a.said[ack.Name] = ack
	}
	return err
}

// none in said is that the entry is known to be gone.
var none = messages.DataAck{V: -1}

// gone takes back what was said of a body that is not held any more.
func (a *acks) gone(ctx context.Context, name string) error {
	if a.said == nil || a.stale.Swap(false) {
		a.said = make(map[string]messages.DataAck)
	}
	if a.said[name] == none {
		return nil
	}
	err := a.h.b.Ask(ctx, askTime, func(ctx context.Context) error {
		key := a.h.cfg.Environment.ID + "." + name
		kv, err := a.h.b.KV(ctx, bus.Acks)
		if err != nil {
			return err
		}
		if _, err = kv.Get(ctx, key); errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		if err == nil {
			err = kv.Delete(ctx, key)
		}
		return bus.Explain(err, "take back what was acknowledged of data "+name)
	})
	if err == nil {
		a.said[name] = none
	}
	return err
}
