package vtime_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
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
		pass(time.Second)
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
