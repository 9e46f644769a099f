package safety

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// State is who is stopped, as the safety bucket has it.
type State struct {
	Latches map[string]messages.Latch     // what robots say of themselves
	Orders  map[string]messages.StopOrder // the newest that named a robot
	All     *messages.StopOrder           // the newest for all
}

// Read reads who is stopped. It makes no bucket: where there is none nobody was ever
// stopped.
//
// One read takes 5 s at most, and ends with code unavailable as soon as the connection is
// lost.
func Read(ctx context.Context, b *bus.Bus) (s State, err error) {
	err = b.Ask(ctx, readTime, func(ctx context.Context) error {
		s, err = read(ctx, b)
		return err
	})
	return s, err
}

func read(ctx context.Context, b *bus.Bus) (State, error) {
	s := State{Latches: make(map[string]messages.Latch), Orders: make(map[string]messages.StopOrder)}
	kv, err := b.JS.KeyValue(ctx, bus.BucketName(b.Fleet, bus.Safety))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return s, nil
	}
	if err != nil {
		return s, bus.Explain(err, "read who is stopped")
	}
	made, err := b.KV(ctx, bus.Safety) // for its epoch
	if err != nil {
		return s, err
	}
	return s, each(ctx, kv, func(e jetstream.KeyValueEntry) { s.put(e, made.Epoch) })
}

// put takes in an entry; what cannot be read is left out.
func (s *State) put(e jetstream.KeyValueEntry, epoch int64) {
	if robot, ok := strings.CutPrefix(e.Key(), bus.KeyLatch); ok {
		var l messages.Latch
		if messages.Decode(e.Value(), &l) == nil && l.Agent == robot {
			s.Latches[robot] = l
		}
		return
	}
	var o messages.StopOrder
	if messages.Decode(e.Value(), &o) != nil {
		return
	}
	o.Fence = messages.Fence{Epoch: epoch, Revision: e.Revision()}
	if robot, ok := strings.CutPrefix(e.Key(), bus.KeyRobot); ok && o.Agent == robot {
		s.Orders[robot] = o
	} else if e.Key() == bus.KeyAll && o.Agent == "" {
		s.All = &o
	}
}

// Robots lists the robots of which something is known, sorted.
func (s State) Robots() []string {
	all := make(map[string]bool, len(s.Latches))
	for robot := range s.Latches {
		all[robot] = true
	}
	for robot := range s.Orders {
		all[robot] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// Why says why a robot is stopped, "" where it is not, and whether the robot itself has
// said so: one that is away has not.
func (s State) Why(robot string) (why string, confirmed bool) {
	said := s.Latches[robot]
	l := said
	if o, ok := s.Orders[robot]; ok && l.Own.Fence.Before(o.Fence) {
		l.Own = messages.Hold{On: o.Stop, Fence: o.Fence, Reason: o.Reason}
	}
	if s.All != nil && l.All.Fence.Before(s.All.Fence) {
		l.All = messages.Hold{On: s.All.Stop, Fence: s.All.Fence, Reason: s.All.Reason}
	}
	return l.Why(), l.Why() == said.Why()
}

// The kinds of the events that Announce publishes.
const (
	EventStopped  = "robot_stopped"
	EventReleased = "robot_released"
)

// retryAnnounce is the pause before the bucket is watched again after a failure.
const retryAnnounce = time.Second

// resyncAnnounce bounds how long a change can be missed by a watcher that stands still.
const resyncAnnounce = 30 * time.Second

// Announce turns every change that robots show in the safety bucket into an event, until
// ctx ends. Several may run, one beside each coordinator: the event stream drops the
// copies. What happened while none ran is told by the bucket alone.
func Announce(ctx context.Context, nc *nats.Conn, fleet string, log *slog.Logger) error {
	b, err := bus.New(nc, fleet, 0)
	if err != nil {
		return err
	}
	a := announcer{bus: b, log: log, why: make(map[string]string)}
	failing := false
	for ctx.Err() == nil {
		err := a.watch(ctx)
		if err != nil && ctx.Err() == nil {
			if !failing {
				log.Warn("cannot watch who is stopped; trying on", "error", err)
			}
			select {
			case <-time.After(retryAnnounce):
			case <-ctx.Done():
			}
		}
		failing = err != nil
	}
	return nil
}

type announcer struct {
	bus   *bus.Bus
	log   *slog.Logger
	epoch int64
	seen  bool              // the bucket was listed once
	why   map[string]string // by robot
}

// watch announces changes for resyncAnnounce.
func (a *announcer) watch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, resyncAnnounce)
	defer cancel()
	var kv bus.KV
	err := a.bus.Ask(ctx, readTime, func(ctx context.Context) (err error) {
		kv, err = a.bus.KV(ctx, bus.Safety)
		return err
	})
	if err != nil {
		return err
	}
	a.epoch = kv.Epoch
	w, err := kv.Watch(ctx, bus.KeyLatch+"*", jetstream.IgnoreDeletes())
	if err != nil {
		return bus.Explain(err, "watch who is stopped")
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return nil // the channel may close after a connection was lost
			case e == nil:
				a.seen = true
			default:
				a.take(ctx, e)
			}
		}
	}
}

func (a *announcer) take(ctx context.Context, e jetstream.KeyValueEntry) {
	var l messages.Latch
	if messages.Decode(e.Value(), &l) != nil || bus.KeyLatch+l.Agent != e.Key() {
		return
	}
	was, why := a.why[l.Agent], l.Why()
	a.why[l.Agent] = why
	if !a.seen || was == why {
		return // before the first list was complete: it says how things are, not what happened
	}
	ev := messages.Event{Time: time.Now(), Kind: EventStopped, Agent: l.Agent, Reason: why}
	if why == "" {
		ev.Kind = EventReleased
	}
	data, err := messages.Encode(&ev)
	if err == nil {
		err = a.bus.Events(ctx)
	}
	if err == nil {
		s := a.bus.Subject(messages.KindEvent, messages.FleetSite)
		s.ID = ev.Kind
		// The id is the same wherever this runs: one of them is stored.
		id := messages.Fence{Epoch: a.epoch, Revision: e.Revision()}.String()
		_, err = a.bus.JS.Publish(ctx, s.String(), data, jetstream.WithMsgID("latch/"+id))
	}
	if err != nil {
		a.log.Debug("event not stored", "kind", ev.Kind, "agent", l.Agent, "error", err)
	}
}
