package execio

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestAbandonedRequestKeepsItsPlace: a command that its caller gave up on may still be
// under way in the child. The next one is not put behind it, where it would be begun
// when its own time is over; and a child that never answers is replaced.
func TestAbandonedRequestKeepsItsPlace(t *testing.T) {
	o, log := options("echo")
	o.StopTimeout = 300 * time.Millisecond
	one := replica
	one.Task.Concurrency = 1
	s, err := New(o).Open(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	c := s.(*child)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, err := c.Serve(ctx, request("silence")); failed <- err }()
	log.until(t, "silent about 1")
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := c.Serve(short, request("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind a request that is not answered: %v", err)
	}
	c.mu.Lock()
	if c.last != 1 {
		t.Errorf("%d requests were written", c.last)
	}
	c.mu.Unlock()
	<-c.Done()
	if err := c.Err(); !strings.Contains(err.Error(), "did not answer request 1 within 300ms after that was canceled") {
		t.Error(err)
	}
}
