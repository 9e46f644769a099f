package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// A question that is lost with its connection ends with it, and can be asked again.
func TestAskEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	const patience = 20 * time.Second
	s := natstest.Start(t)
	link := s.Link("asker")
	nc := s.Connect(t, link.Dial())
	b, err := bus.New(nc, "f", 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	asked := make(chan *nats.Msg, 10)
	other := s.Connect(t)
	if _, err := other.ChanSubscribe("question", asked); err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context) error {
		_, err := nc.RequestWithContext(ctx, "question", nil)
		return bus.Explain(err, "ask")
	}
	ended := make(chan error, 1)
	go func() { ended <- b.Ask(ctx, patience, ask) }()
	<-asked // and never answered
	// Not ForceReconnect, with which the client library ends what is under way by itself.
	link.Break()
	link.Mend()
	if err := <-ended; messages.CodeOf(err) != messages.CodeUnavailable || ctx.Err() != nil {
		t.Fatalf("%v; the test's own time: %v", err, ctx.Err())
	}

	natstest.Eventually(t, patience, "the connection to be back", nc.IsConnected)
	go func() {
		if err := (<-asked).Respond(nil); err != nil {
			t.Error(err)
		}
	}()
	if err := b.Ask(ctx, patience, ask); err != nil {
		t.Errorf("asked again: %v", err)
	}
	gaveUp, giveUp := context.WithCancel(ctx)
	giveUp()
	if err := b.Ask(gaveUp, patience, ask); messages.CodeOf(err) != messages.CodeCanceled {
		t.Errorf("the caller gave up: %v", err)
	}
}
