package router

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Many at once, some of which are given up in any moment: each has its own answer, and a
// body is not looked at after its call has ended.
func TestCrowd(t *testing.T) {
	f := newFleet(t)
	f.plan(straight(task(messages.Inference, "see", "edge")))
	f.agent("edge", echo)
	c := f.client()
	var all sync.WaitGroup
	for i := range 4 * crowd {
		all.Go(func() {
			body := make([]byte, 0, 64)
			for k := range 50 {
				body = fmt.Appendf(body[:0], "%d/%d", i, k)
				want := "re:" + string(body)
				ctx, cancel := context.WithCancel(t.Context())
				if k%5 == 4 {
					time.AfterFunc(time.Duration(i)*10*time.Microsecond, cancel)
				}
				ans, err := c.Infer(ctx, Inference{Task: "see", Body: body})
				switch {
				case err == nil && string(ans.Body) != want:
					t.Errorf("got %s, want %s", ans.Body, want)
				case err != nil && (ctx.Err() == nil || messages.CodeOf(err) != messages.CodeCanceled):
					t.Error(err)
				}
				cancel()
				clear(body) // under the race detector this is a write that nobody may read beside
			}
		})
	}
	all.Wait()
	if s := c.Stats(); s.InFlight != 0 || s.Malformed != nil {
		t.Errorf("%+v", s)
	}
	if n := c.outbox.many.Load(); n != 0 {
		t.Errorf("%d are counted", n)
	}
}
