package safety

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// Times of saving and of asking. They depend on one another:
//
//   - askTime is how long one try to save may take: a write takes about a millisecond,
//     and one that is asked of a group without a leader may never be answered. Trying
//     again then finds the leader as soon as there is one.
//   - readTime is the same for lists, which may be long on a slow link.
//   - lookPause is what a copy that is a little behind needs to catch up.
const (
	askTime   = time.Second
	readTime  = 5 * time.Second
	lookPause = 20 * time.Millisecond
)

// save is what became of saving an order.
type save struct {
	fence messages.Fence
	err   error
}

func (s save) failure() error { return s.err }

// persistently tries until it has worked, ctx has ended, or waiting does not help.
func persistently[T interface{ failure() error }](ctx context.Context, try func() T) T {
	for {
		v := try()
		if messages.CodeOf(v.failure()) != messages.CodeUnavailable {
			return v
		}
		select {
		case <-time.After(sendEvery):
		case <-ctx.Done():
			return v
		}
	}
}

// saver saves one order, in as many tries as that takes. A stop is simply written: should
// one be written twice, or after another order, the robot is stopped once more than needed.
//
// A release must not undo a stop that was given after it, however long saving takes. So
// it is a compare-and-set on the orders that stood when it was given, and a try whose
// answer was lost is found again by its id.
type saver struct {
	bus   *bus.Bus
	order messages.StopOrder
	start time.Time

	known *standing // what the release may undo; nil until it has looked
	fixed bool      // a try may have arrived, so nothing newer than known may be undone
}

// standing is which orders stand for a robot: where one is missing, its revision is 0.
type standing struct {
	epoch    int64
	own, all uint64 // revisions; own is that of the order's own key
}

// try tries once.
func (s *saver) try(ctx context.Context) (done save) {
	done.err = s.bus.Ask(ctx, askTime, func(ctx context.Context) error {
		kv, err := s.bus.KV(ctx, bus.Safety)
		if err != nil {
			return err
		}
		done.fence.Epoch = kv.Epoch
		done.fence.Revision, err = s.put(ctx, kv)
		return err
	})
	if done.err != nil {
		done.fence = messages.Fence{}
	}
	return done
}

func (s *saver) put(ctx context.Context, kv bus.KV) (uint64, error) {
	data, err := messages.Encode(&s.order)
	if err != nil {
		return 0, err
	}
	key := bus.KeyAll
	if s.order.Agent != "" {
		key = bus.KeyRobot + s.order.Agent
	}
	if s.order.Stop {
		rev, err := kv.Put(ctx, key, data)
		return rev, bus.Explain(err, "save the order")
	}
	for {
		now, mine, err := s.look(ctx, kv, key)
		switch {
		case err != nil || mine:
			return now.own, err
		case s.known == nil || !s.fixed && time.Since(s.start) < saveTime:
			s.known = &now
		case *s.known != now:
			return 0, messages.Errorf(messages.CodeConflict, "another order came while this release was being saved, so it was not sent; look at the robot, ask `fleetbus agents` why it is stopped, and give the release again")
		}
		before := s.fixed
		s.fixed = true
		rev, err := kv.Update(ctx, key, data, now.own)
		err = bus.Explain(err, "save the order")
		if messages.CodeOf(err) != messages.CodeConflict {
			return rev, err
		}
		// Refused, so it is not there; what was read may have come from a copy that is behind.
		s.fixed = before
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return 0, bus.Explain(ctx.Err(), "save the order")
		}
	}
}

// look reads which orders stand; mine says that the newest is this one.
func (s *saver) look(ctx context.Context, kv bus.KV, key string) (now standing, mine bool, err error) {
	now.epoch = kv.Epoch
	for _, of := range []struct {
		key string
		rev *uint64
	}{{key, &now.own}, {bus.KeyAll, &now.all}} {
		e, err := kv.Get(ctx, of.key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return now, false, bus.Explain(err, "read which orders stand")
		}
		*of.rev = e.Revision()
		var o messages.StopOrder
		mine = mine || messages.Decode(e.Value(), &o) == nil && o.ID == s.order.ID
	}
	return now, mine, nil
}
