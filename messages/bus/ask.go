package bus

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// Ask calls ask, which asks the server something over this bus's connection, with a
// context that ends after limit, and also as soon as the connection is lost: what was
// asked on it, or its answer, is gone then, and the client library would wait for the
// whole of its time. The error then has code unavailable: ask again.
func (b *Bus) Ask(ctx context.Context, limit time.Duration, ask func(context.Context) error) error {
	asking, cancel := context.WithTimeout(ctx, limit)
	// Listening comes first, so that no loss after the question is missed.
	lost := b.Conn.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	var cut atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-lost:
			cut.Store(true)
			cancel()
		case <-asking.Done():
		}
	})
	err := ask(asking)
	cancel()
	wg.Wait()
	b.Conn.RemoveStatusListener(lost)
	if err != nil && cut.Load() && ctx.Err() == nil {
		return messages.Errorf(messages.CodeUnavailable, "the connection was lost while the server was asked; it reconnects by itself: ask again (%v)", err)
	}
	return err
}
