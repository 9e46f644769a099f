package vtime_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fleet  = "demo"
	site   = messages.DefaultSite
	task   = "pick"
	origin = "client-1"
)

// bubble runs f in virtual time with a server and a bus on it.
func bubble(t *testing.T, f func(t *testing.T, s *natstest.Server, b *bus.Bus)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T) {
		s := natstest.Start(t)
		f(t, s, newBus(t, s.Connect(t)))
	})
}

func newBus(t *testing.T, nc *nats.Conn) *bus.Bus {
	t.Helper()
	return must[*bus.Bus](t)(bus.New(nc, fleet, 0))
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// check ends the test on an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within returns a context that ends after d of virtual time.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pass lets virtual time pass. It is no wait for luck: everything that is due until
// then has happened when it returns.
func pass(d time.Duration) { <-time.After(d) }

// publish stores an inference request under a key.
func publish(t *testing.T, b *bus.Bus, key, body string) {
	t.Helper()
	s := b.Subject(messages.KindWork, site)
	s.Class, s.Task, s.Origin, s.ID = messages.Inference, task, origin, key
	must[*jetstream.PubAck](t)(b.JS.PublishMsg(within(t, time.Second), &nats.Msg{Subject: s.String(), Data: []byte(body)}))
}

// pull asks for n messages with a rank, waits up to wait for all of them and returns
// what came. What is not acknowledged comes again within a long wait.
func pull(t *testing.T, c jetstream.Consumer, rank uint8, n int, wait time.Duration) []jetstream.Msg {
	t.Helper()
	batch := must[jetstream.MessageBatch](t)(c.Fetch(n, jetstream.FetchMaxWait(wait), jetstream.FetchPriorityGroup(bus.Group), jetstream.FetchPrioritized(rank)))
	var got []jetstream.Msg
	for m := range batch.Messages() {
		got = append(got, m)
	}
	check(t, batch.Error())
	return got
}

func bodies(msgs []jetstream.Msg) (all []string) {
	for _, m := range msgs {
		all = append(all, string(m.Data()))
	}
	return all
}
