package vtime_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// What exists is left as it is, whatever its settings are.
func TestEnsureNeverUpdates(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		const mine = "mine"
		name := bus.StreamName(fleet, site, messages.Inference)
		must[jetstream.Stream](t)(b.JS.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: name, Description: mine, MaxMsgs: 7,
			Subjects:  []string{messages.WorkPattern(fleet, site, messages.Inference, "")},
			Retention: jetstream.WorkQueuePolicy,
		}))
		must[jetstream.Consumer](t)(b.JS.CreateConsumer(t.Context(), name, jetstream.ConsumerConfig{
			Durable: task, Description: mine, AckPolicy: jetstream.AckExplicitPolicy,
			FilterSubject: messages.WorkPattern(fleet, site, messages.Inference, task),
		}))
		must[jetstream.KeyValue](t)(b.JS.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: bus.BucketName(fleet, bus.Desired), Description: mine}))
		must[jetstream.Stream](t)(b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: bus.EventStreamName(fleet), Description: mine, Subjects: []string{"other"}}))

		check(t, b.Stream(t.Context(), site, messages.Inference))
		c := consumer(t, b)
		check(t, b.Events(t.Context()))
		kv := open(t, b, bus.Desired)

		for _, n := range []string{name, bus.EventStreamName(fleet)} {
			if cfg := must[jetstream.Stream](t)(b.JS.Stream(t.Context(), n)).CachedInfo().Config; cfg.Description != mine {
				t.Errorf("stream %s was changed to %q", n, cfg.Description)
			}
		}
		if got := c.CachedInfo().Config; got.Description != mine || got.PriorityPolicy != jetstream.PriorityPolicyNone {
			t.Errorf("the consumer was changed: %+v", got)
		}
		if st := must[jetstream.KeyValueStatus](t)(kv.Status(t.Context())); st.History() != 1 {
			t.Errorf("the bucket was changed: history %d, want 1", st.History())
		}
	})
}

// Everything is made on an empty server, once, whoever is first, and every server of
// ours agrees with the settings.
func TestEnsureMakesAll(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		var all sync.WaitGroup
		for range 5 {
			other := newBus(t, s.Connect(t))
			all.Go(func() {
				var errs []error
				for _, class := range []messages.Class{messages.Inference, messages.Training} {
					_, err := other.Consumer(t.Context(), site, class, task)
					errs = append(errs, err)
				}
				errs = append(errs, other.Stream(t.Context(), site, messages.Action), other.Events(t.Context()))
				for _, bucket := range bus.Buckets() {
					_, err := other.KV(t.Context(), bucket)
					errs = append(errs, err)
				}
				if err := errors.Join(errs...); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		var names []string
		for n := range b.JS.StreamNames(t.Context()).Name() {
			names = append(names, n)
		}
		slices.Sort(names)
		want := []string{"FB__demo__events", "FB__demo__main__action", "FB__demo__main__inference", "FB__demo__main__jobs"}
		for _, bucket := range bus.Buckets() {
			want = append(want, "KV_"+bus.BucketName(fleet, bucket))
		}
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("streams\n%q, want\n%q", names, want)
		}
	})
}

// A memory stream is gone with its only server; after Forget, or after one call that
// found it missing, the next call makes it again. Streams on disk are still there.
func TestMemoryStreamIsMadeAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		restart := func() {
			s.Restart(t)
			natstest.Eventually(t, time.Second, "the connection to be back", b.Conn.IsConnected)
		}
		consumer(t, b)
		must[jetstream.Consumer](t)(b.Consumer(t.Context(), site, messages.Training, task))
		restart()
		b.Forget()
		consumer(t, b)
		publish(t, b, "k", "after the first restart")
		restart()
		if _, err := b.Consumer(t.Context(), site, messages.Inference, task); messages.CodeOf(err) != messages.CodeUnavailable {
			t.Errorf("consumer of a lost stream: error %v, want unavailable", err)
		}
		c := consumer(t, b)
		publish(t, b, "k", "x")
		if got := bodies(pull(t, c, 0, 2, bus.InferenceProgress)); !slices.Equal(got, []string{"x"}) {
			t.Errorf("pulled %q, want x", got)
		}
		must[jetstream.Consumer](t)(b.JS.Consumer(t.Context(), bus.StreamName(fleet, site, messages.Training), task))

		check(t, b.DeleteConsumer(t.Context(), site, messages.Inference, task))
		check(t, b.DeleteConsumer(t.Context(), site, messages.Inference, task)) // a missing one is no error
	})
}
