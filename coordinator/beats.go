package coordinator

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// maxBeats is how many beats may wait for the Machine: two seconds of those of 50,000
// agents, while it makes a plan. What does not fit waits in the subscription, whose bound
// is beatBytes: as much again of the largest beats that make sense.
const (
	maxBeats  = 100_000
	beatBytes = 256 << 20
)

// beats carries heartbeats from the connection to the Machine's goroutine, many at a time:
// one by one through a channel they would cost more than the Machine makes of them.
type beats struct {
	decoder messages.BeatDecoder // of the subscription's goroutine
	taken   atomic.Uint64        // handed to the Machine

	mu    sync.Mutex
	list  []messages.Heartbeat
	free  []messages.Heartbeat // the list before, to be used again
	ready chan struct{}        // has a value when list is not empty
	room  chan struct{}        // has a value when list was taken
}

func (b *beats) init() { b.ready, b.room = make(chan struct{}, 1), make(chan struct{}, 1) }

// put adds a beat, and reports whether there is room for more.
func (b *beats) put(hb *messages.Heartbeat) (room bool) {
	b.mu.Lock()
	b.list = append(b.list, *hb)
	n := len(b.list)
	b.mu.Unlock()
	if n == 1 {
		signal(b.ready)
	}
	return n < maxBeats
}

// take returns what waits. It is the caller's until it calls done.
func (b *beats) take() []messages.Heartbeat {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.list
	b.list, b.free = b.free[:0], nil
	signal(b.room)
	return list
}

// done gives a list back. What it points to is the Machine's now.
func (b *beats) done(list []messages.Heartbeat) {
	b.taken.Add(uint64(len(list)))
	clear(list)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = list
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hearBeats subscribes to the heartbeats. The subject signs a beat: what its body says of
// its sender must agree. The pattern of the subscription has seen to the rest of it.
func (c *Coordinator) hearBeats(ctx context.Context) (*nats.Subscription, error) {
	pattern := c.bus.Subject(messages.KindHeartbeat, "").String()
	var hb messages.Heartbeat
	sub, err := c.nc.Subscribe(pattern, func(m *nats.Msg) {
		err := c.beats.decoder.Decode(m.Data, &hb)
		if sender := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]; err != nil || sender != hb.Agent {
			c.garbage.Note(c.log, string(messages.KindHeartbeat), signed(err, sender, hb.Agent))
			return
		}
		if !c.beats.put(&hb) {
			select {
			case <-c.beats.room:
			case <-ctx.Done():
			}
		}
	})
	if err != nil {
		return nil, bus.Explain(err, "subscribe to "+pattern)
	}
	// By bytes alone: the default of half a million messages is ten seconds of a large fleet.
	return sub, bus.Explain(sub.SetPendingLimits(-1, beatBytes), "subscribe to "+pattern)
}

// Stats counts what a coordinator has taken in.
type Stats struct {
	Beats     uint64         // heartbeats that the Machine has folded
	Malformed map[string]int // messages that could not be read, dropped, by kind
}

// Stats returns the counts since the coordinator was made.
func (c *Coordinator) Stats() Stats {
	return Stats{Beats: c.beats.taken.Load(), Malformed: c.garbage.Counts()}
}
