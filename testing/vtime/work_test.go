package vtime_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func consumer(t *testing.T, b *bus.Bus) jetstream.Consumer {
	t.Helper()
	return must[jetstream.Consumer](t)(b.Consumer(within(t, 5*time.Second), site, messages.Inference, task))
}

func TestInferenceKeepsNewestPerKey(t *testing.T) {
	bubble(t, func(t *testing.T, _ *natstest.Server, b *bus.Bus) {
		c := consumer(t, b)
		publish(t, b, "left", "l1")
		publish(t, b, "right", "r1")
		publish(t, b, "left", "l2")
		publish(t, b, "left", "l3")
		got := pull(t, c, 0, 10, bus.InferenceProgress)
		if want := []string{"r1", "l3"}; !slices.Equal(bodies(got), want) {
			t.Errorf("pulled %q, want %q", bodies(got), want)
		}
		for _, m := range got {
			check(t, m.DoubleAck(within(t, time.Second)))
		}
		publish(t, b, "left", "l4")
		if got := bodies(pull(t, c, 0, 10, bus.InferenceProgress)); !slices.Equal(got, []string{"l4"}) {
			t.Errorf("pulled %q after the queue was empty, want l4", got)
		}
	})
}

// What no executor takes is swept: after its own TTL, and after five minutes without
// one.
func TestInferenceIsSwept(t *testing.T) {
	bubble(t, func(t *testing.T, _ *natstest.Server, b *bus.Bus) {
		check(t, b.Stream(within(t, time.Second), site, messages.Inference))
		s := b.Subject(messages.KindWork, site)
		s.Class, s.Task, s.Origin, s.ID = messages.Inference, task, origin, "short"
		must[*jetstream.PubAck](t)(b.JS.Publish(within(t, time.Second), s.String(), nil, jetstream.WithMsgTTL(2*time.Second)))
		publish(t, b, "long", "")
		count := func() uint64 {
			stream := must[jetstream.Stream](t)(b.JS.Stream(within(t, time.Second), bus.StreamName(fleet, site, messages.Inference)))
			return must[*jetstream.StreamInfo](t)(stream.Info(within(t, time.Second))).State.Msgs
		}
		for _, step := range []struct {
			pass time.Duration
			want uint64
		}{{0, 2}, {time.Second, 2}, {4 * time.Second, 1}, {4 * time.Minute, 1}, {time.Minute, 0}} {
			pass(step.pass)
			if got := count(); got != step.want {
				t.Errorf("%v later: %d messages, want %d", step.pass, got, step.want)
			}
		}
	})
}

// A request that was not acknowledged in time goes to somebody else; one whose
// executor reports progress stays where it is.
func TestRedeliveryAfterAckWait(t *testing.T) {
	bubble(t, func(t *testing.T, _ *natstest.Server, b *bus.Bus) {
		c := consumer(t, b)
		publish(t, b, "k", "x")
		start := time.Now()
		pull(t, c, 0, 1, time.Second) // and die
		second := pull(t, c, 0, 1, 10*time.Second)
		if took := time.Since(start); len(second) != 1 || took < bus.InferenceAckWait || took > 2*bus.InferenceAckWait {
			t.Fatalf("%d messages after %v, want 1 after %v", len(second), took, bus.InferenceAckWait)
		}
		if n := must[*jetstream.MsgMetadata](t)(second[0].Metadata()).NumDelivered; n != 2 {
			t.Errorf("delivery %d, want 2", n)
		}

		// For 3 s, ten times the wait, it says that it is at work.
		var beat sync.WaitGroup
		beat.Go(func() {
			for range 30 {
				pass(bus.InferenceProgress)
				if err := second[0].InProgress(); err != nil {
					t.Error(err)
				}
			}
		})
		if got := pull(t, c, 1, 1, 3*time.Second); len(got) != 0 {
			t.Errorf("%q came again while its executor was at work", bodies(got))
		}
		beat.Wait()
		if got := pull(t, c, 1, 1, time.Second); len(got) != 1 {
			t.Errorf("%d messages after the executor fell silent, want 1", len(got))
		}
	})
}

// executor takes one message per free slot, as agents do, and works for a while on
// each.
type executor struct {
	mu    sync.Mutex
	count int
}

const workTime = 100 * time.Millisecond

func (e *executor) take() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, e.count = e.count, 0
	return n
}

// run pulls with slots goroutines until stop is closed.
func (e *executor) run(t *testing.T, c jetstream.Consumer, rank uint8, slots int, stop <-chan struct{}) {
	var all sync.WaitGroup
	for range slots {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A pull that fails (the link is broken) is tried again.
				batch, err := c.Fetch(1, jetstream.FetchMaxWait(time.Second), jetstream.FetchPriorityGroup(bus.Group), jetstream.FetchPrioritized(rank))
				if err != nil {
					pass(workTime)
					continue
				}
				for m := range batch.Messages() {
					e.mu.Lock()
					e.count++
					e.mu.Unlock()
					pass(workTime)
					if err := m.Ack(); err != nil {
						t.Errorf("rank %d: ack: %v", rank, err)
					}
				}
			}
		})
	}
	all.Wait()
}

// The nearest tier takes all work while it has free slots, the next one what is over,
// and the first one all again by itself. When the first one is gone, the second has
// the next request at once.
func TestPrioritizedPulls(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		const slots = 2
		l := s.Link("edge")
		consumers := []jetstream.Consumer{
			consumer(t, newBus(t, s.Connect(t, l.Dial()))),
			consumer(t, newBus(t, s.Connect(t))),
		}
		var near, far executor
		stop := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() { near.run(t, consumers[0], 0, slots, stop) })
		running.Go(func() { far.run(t, consumers[1], 1, slots, stop) })
		defer running.Wait()
		defer close(stop)
		pass(10 * time.Millisecond) // all pulls are waiting at the server

		expect := func(when string, wantNear, wantFar int) {
			t.Helper()
			if n, f := near.take(), far.take(); n != wantNear || f != wantFar {
				t.Errorf("%s: %d near and %d far, want %d and %d", when, n, f, wantNear, wantFar)
			}
		}
		light := func() {
			for i := range 10 {
				publish(t, b, fmt.Sprint("k", i), "")
				pass(2 * workTime)
			}
		}
		light()
		expect("light load", 10, 0)
		for i := range 2 * slots {
			publish(t, b, fmt.Sprint("k", i), "")
		}
		pass(2 * workTime)
		expect("a burst", slots, slots)
		light()
		expect("light load again", 10, 0)

		l.Break()
		pass(time.Millisecond)
		publish(t, b, "k", "")
		pass(2 * workTime)
		expect("near is gone", 0, 1)
		l.Mend()
		pass(3 * time.Second)
		light()
		expect("near is back", 10, 0)
	})
}

// A second submission of a job is refused for as long as the first is there, also after
// the server's memory of message ids.
func TestOneMessageAJob(t *testing.T) {
	bubble(t, func(t *testing.T, _ *natstest.Server, b *bus.Bus) {
		check(t, b.Stream(within(t, time.Second), site, messages.Training))
		s := b.Subject(messages.KindJob, site)
		s.Priority, s.Task, s.Origin, s.ID = messages.Normal, task, origin, "job-1"
		submit := func() error {
			_, err := b.JS.PublishMsg(within(t, time.Second), &nats.Msg{Subject: s.String()}, jetstream.WithExpectLastSequencePerSubject(0))
			return err
		}
		check(t, submit())
		for range 2 {
			var api *jetstream.APIError
			if err := submit(); !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
				t.Errorf("a second submission: %v", err)
			}
			pass(24 * time.Hour)
		}
	})
}
