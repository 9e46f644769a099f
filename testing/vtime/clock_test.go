package vtime_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// slowJS delays the questions for a stream's state, and the answers.
type slowJS struct {
	jetstream.JetStream
	there, back time.Duration
}

type slowStream struct {
	jetstream.Stream
	js *slowJS
}

func (j *slowJS) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := j.JetStream.Stream(ctx, name)
	return slowStream{s, j}, err
}

func (s slowStream) Info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	pass(s.js.there)
	info, err := s.Stream.Info(ctx, opts...)
	pass(s.js.back)
	return info, err
}

// The server of a bubble has the test's own clock, so the true age of a message is
// known here, and only here.
func TestClockAge(t *testing.T) {
	bubble(t, func(t *testing.T, _ *natstest.Server, b *bus.Bus) {
		var clock bus.Clock
		unknown := func(when string, stored time.Time) {
			t.Helper()
			if age, ok := clock.Age(stored, time.Now()); ok {
				t.Errorf("%s: age %v, want it to be unknown", when, age)
			}
		}
		unknown("before Sync", time.Now())
		if !clock.Due(time.Now()) {
			t.Error("before Sync: not due")
		}
		if err := clock.Sync(t.Context(), b, site, messages.Inference); messages.CodeOf(err) != messages.CodeUnavailable {
			t.Errorf("without a stream: error %v, want unavailable", err)
		}
		unknown("after a Sync that failed", time.Now())

		c := consumer(t, b)
		publish(t, b, "k", "")
		stored := must[*jetstream.MsgMetadata](t)(pull(t, c, 0, 1, time.Second)[0].Metadata()).Timestamp
		pass(time.Second)

		// The question is 1 s on its way and the answer 2 s: that much the age may be too
		// large, and never too small.
		slow := newBus(t, b.Conn)
		slow.JS = &slowJS{b.JS, time.Second, 2 * time.Second}
		asked := time.Now()
		check(t, clock.Sync(t.Context(), slow, site, messages.Inference))
		read := time.Now()
		for _, d := range []time.Duration{0, time.Second, 13 * time.Second, 12 * time.Second} {
			pass(d)
			truth := time.Since(stored)
			if age, ok := clock.Age(stored, time.Now()); !ok || age < truth || age > truth+read.Sub(asked) {
				t.Errorf("%v after Sync: age %v (known: %v), the truth is %v", time.Since(read), age, ok, truth)
			}
		}
		if !clock.Due(time.Now()) {
			t.Error("26 s after Sync: not due")
		}
		// The reading was asked for 29 s ago.
		pass(2 * time.Second)
		unknown("31 s after Sync was asked for", stored)
		unknown("without a time", time.Time{})

		check(t, clock.Sync(t.Context(), b, site, messages.Inference))
		if clock.Due(time.Now()) {
			t.Error("right after Sync: due")
		}
		if age, ok := clock.Age(stored, time.Now()); !ok || age != time.Since(stored) {
			t.Errorf("age %v (known: %v), the truth is %v and the round trip took no time", age, ok, time.Since(stored))
		}
		if age, ok := clock.Age(time.Now().Add(time.Minute), time.Now()); !ok || age != 0 {
			t.Errorf("stored in the future: age %v (known: %v), want 0", age, ok)
		}
	})
}
