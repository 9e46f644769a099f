package router

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// A client tells the coordinators of an agent at which nobody listens: once, however many
// requests find out, and with the incarnation of its routes.
func TestUnreachedIsReported(t *testing.T) {
	for name, begun := range map[string]bool{"it dies while it serves": true, "it is away already": false} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.plan(straight(task(messages.Inference, "see", "one", "two")))
			subject := f.bus.Subject(messages.KindUnreached, "")
			reports, err := f.nc.SubscribeSync(subject.String())
			if err != nil {
				t.Fatal(err)
			}
			if err := f.nc.Flush(); err != nil {
				t.Fatal(err)
			}
			if begun {
				one := f.agent("one", f.gate().serve)
				go func() {
					<-one.began
					one.nc.Close()
				}()
			}
			f.agent("two", echo)
			c := f.client()
			for range 3 {
				if _, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
			m, err := reports.NextMsg(wait)
			if err != nil {
				t.Fatal(err)
			}
			s, err := messages.ParseSubject(m.Subject)
			if err != nil || s.Agent != "one" || s.Origin != "tester" || s.Site != "main" {
				t.Errorf("reported on %s (%v)", m.Subject, err)
			}
			var u messages.Unreached
			if err := messages.Decode(m.Data, &u); err != nil || u.Agent != "one" || u.Inc != incOf("one") {
				t.Errorf("reported %+v (%v)", u, err)
			}
		})
	}
}

func TestReportsAreRare(t *testing.T) {
	t.Parallel()
	var r reports
	r.init()
	t0 := time.Now()
	for _, s := range []struct {
		agent string
		after time.Duration
		due   bool
	}{{"one", 0, true}, {"one", 20 * time.Millisecond, false}, {"two", 20 * time.Millisecond, true}, {"one", reportEvery, true}, {"one", reportEvery + time.Millisecond, false}} {
		if due := r.due(s.agent, t0.Add(s.after)); due != s.due {
			t.Errorf("%s after %v: due %v, want %v", s.agent, s.after, due, s.due)
		}
	}
}
