package agent

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// A connection that comes back a second time, while what the agent asked after the first
// is still without an answer, is back for everybody at once: results wait for it.
func TestSecondReconnectionIsHeardAtOnce(t *testing.T) {
	s := natstest.Start(t)
	link := s.Link("edge")
	nc := s.Connect(t, link.Dial())
	a := New(nc, Config{Fleet: "f", Environment: messages.Environment{ID: "edge", Tier: messages.Edge}, Logger: slog.New(slog.DiscardHandler)},
		Func("x", func(context.Context, *Request) ([]byte, error) { return nil, nil }))
	if a.err != nil {
		t.Fatal(a.err)
	}
	var err error
	if a.bus, err = bus.New(nc, "f", 0); err != nil {
		t.Fatal(err)
	}
	a.jobs.a = a
	a.inc.Store(&messages.Incarnation{Epoch: 1, Revision: 1})
	link.Cut() // nothing that is asked is answered
	ctx, cancel := context.WithCancel(context.Background())
	status := make(chan nats.Status)
	done := make(chan struct{}, 2)
	go func() { a.watch(ctx, status); done <- struct{}{} }()
	go func() { a.reconfirm(ctx); done <- struct{}{} }()
	defer func() { cancel(); <-done; <-done }()
	for i := range 3 {
		again := a.reconnected.next()
		select {
		case status <- nats.CONNECTED:
		case <-time.After(patienceInside):
			t.Fatalf("reconnection %d: nobody listens", i+1)
		}
		select {
		case <-again:
		case <-time.After(patienceInside):
			t.Fatalf("reconnection %d was not passed on", i+1)
		}
	}
}

// patienceInside is under apiTime, which a question without an answer takes.
const patienceInside = apiTime / 2
