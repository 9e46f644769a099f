package execio

import (
	"context"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

func openBatches(t *testing.T) (*child, *logLines) {
	t.Helper()
	o, log := options("echo")
	open := replica
	open.Task.Concurrency, open.Task.MaxBatch = 1, 3
	s, err := New(o).Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*child), log
}

// A batch reaches the child as frames in a row that say how many they are; every request
// has its own answer, and what is wrong with one is that one's alone.
func TestServesBatches(t *testing.T) {
	c, _ := openBatches(t)
	for range 2 {
		got := c.ServeBatch(t.Context(), []*backend.Request{request("a"), request("fail"), request("b")})
		if len(got) != 3 || got[0].Err != nil || string(got[0].Response.Body) != "a of 3" || got[2].Err != nil || string(got[2].Response.Body) != "b of 3" {
			t.Fatalf("%+v", got)
		}
		wantError(t, got[1].Err, messages.CodeBadRequest, "not an image")
		// One that is too large is never sent, and not counted.
		got = c.ServeBatch(t.Context(), []*backend.Request{request(strings.Repeat("x", 4097)), request("a")})
		wantError(t, got[0].Err, messages.CodePayloadTooLarge, "4097")
		if got[1].Err != nil || string(got[1].Response.Body) != "a of 1" {
			t.Fatalf("%+v", got[1])
		}
		if got = c.ServeBatch(t.Context(), []*backend.Request{request(strings.Repeat("x", 4097))}); got[0].Err == nil {
			t.Fatal("too large, and sent")
		}
	}
	if s, err := ask(t, c, "alone"); err != nil || s != "alone" {
		t.Error(s, err)
	}
}

// The caller of one request of a batch gives up: the child is told, the others go on.
func TestBatchGoesOnWithoutOne(t *testing.T) {
	c, log := openBatches(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := request("silence")
	gone.Done = ctx.Done()
	results := make(chan []backend.Result, 1)
	go func() { results <- c.ServeBatch(t.Context(), []*backend.Request{gone, request("a")}) }()
	log.until(t, "silent about")
	cancel()
	got := <-results
	if got[0].Err != context.Canceled || got[1].Err != nil || string(got[1].Response.Body) != "a of 2" {
		t.Fatalf("%+v", got)
	}
	log.until(t, "cancel 1")
}

// A child that dies fails every request of its batch.
func TestBatchOfADeadChild(t *testing.T) {
	c, log := openBatches(t)
	results := make(chan []backend.Result, 1)
	go func() {
		results <- c.ServeBatch(t.Context(), []*backend.Request{request("silence"), request("silence")})
	}()
	log.until(t, "silent about")
	c.kill()
	for _, r := range <-results {
		wantError(t, r.Err, messages.CodeBackendFailed, "ended while it served the request")
	}
	for _, r := range c.ServeBatch(t.Context(), []*backend.Request{request("a")}) {
		wantError(t, r.Err, messages.CodeBackendFailed, "ended")
	}
}
