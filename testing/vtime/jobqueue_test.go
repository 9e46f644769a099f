package vtime_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// A queue that has forgotten what it delivered delivers everything as if for the first
// time: what has a record is not begun by its word.
func TestQueueForgets(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{MaxAttempts: 1}, 0) // nobody sweeps: the messages stay
		begun := make(map[string]int)
		j.fit = func(_ context.Context, _ string, r *agent.Request) ([]byte, error) {
			begun[string(r.Body)]++
			if string(r.Body) == "dead" {
				return nil, errors.New("no")
			}
			return []byte("done"), nil
		}
		end := j.agent("a1")
		good, dead := j.submit(router.Job{Body: []byte("good")}), j.submit(router.Job{Body: []byte("dead")})
		j.ends(good)
		j.ends(dead)
		end()
		pass(5 * time.Second)
		check(t, b.DeleteConsumer(within(t, time.Minute), site, messages.Training, "fit"))
		j.agent("a1")
		waited := j.submit(router.Job{Body: []byte("new")})
		if job, _ := j.ends(waited); job.Attempt != 1 {
			t.Errorf("%+v", job)
		}
		if begun["good"] != 1 || begun["dead"] != 1 || begun["new"] != 1 {
			t.Errorf("begun were %v", begun)
		}
		if job, _ := j.ends(dead); job.State != messages.GoalAborted || job.Attempt != 1 {
			t.Errorf("%+v", job)
		}
	})
}

// A job that is allowed one attempt was delivered and given back without being begun, as by
// an agent whose slot a straight request took: it has its attempt.
func TestOnlyAttemptIsNotSpentUnbegun(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{MaxAttempts: 1}, 1)
		j.fit = func(context.Context, string, *agent.Request) ([]byte, error) { return []byte("done"), nil }
		id := j.submit(router.Job{})
		c := must[jetstream.Consumer](t)(b.Consumer(within(t, time.Minute), site, messages.Training, "fit"))
		for range 3 {
			got := pull(t, c, 0, 1, time.Second)
			if len(got) != 1 {
				t.Fatalf("%d were delivered", len(got))
			}
			check(t, got[0].Nak())
		}
		j.agent("a1")
		if job, _ := j.ends(id); job.State != messages.GoalSucceeded || job.Attempt != 2 || job.Free != 1 {
			t.Errorf("%+v", job)
		}
	})
}

// A checkpoint may be large and its link slow: what counts is that it is read on.
func TestSlowRestore(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{MaxAttempts: 2}, 1)
		half := bytes.Repeat([]byte("0123456789abcdef"), 4<<16) // 4 MiB, 32 chunks
		j.fit = func(ctx context.Context, _ string, r *agent.Request) ([]byte, error) {
			old, err := r.Restore(ctx)
			if err != nil {
				return nil, err
			}
			if old == nil {
				return nil, errors.Join(r.Checkpoint(ctx, bytes.NewReader(half)), errors.New("it dies"))
			}
			defer old.Close()
			part := make([]byte, 1<<20)
			var all []byte
			for {
				n, err := io.ReadFull(old, part)
				all = append(all, part[:n]...)
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					break
				}
				if err != nil {
					return nil, err
				}
				pass(4 * time.Second)
			}
			if !bytes.Equal(all, half) {
				return nil, errors.New("it is another one")
			}
			return []byte("done"), nil
		}
		j.agent("a1")
		id := j.submit(router.Job{})
		if job, took := j.ends(id); job.State != messages.GoalSucceeded || job.Attempt != 2 || took < 16*time.Second {
			t.Errorf("after %v: %+v", took, job)
		}
	})
}
