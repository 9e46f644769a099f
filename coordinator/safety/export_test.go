package safety

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// NewSaver returns a function that tries once to save an order.
func NewSaver(t *testing.T, nc *nats.Conn, fleet string, o messages.StopOrder) func(context.Context) (messages.Fence, error) {
	t.Helper()
	b, err := bus.New(nc, fleet, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := saver{bus: b, order: o, start: time.Now()}
	return func(ctx context.Context) (messages.Fence, error) {
		done := s.try(ctx)
		return done.fence, done.err
	}
}
