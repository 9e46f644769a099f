package router

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

func TestInferThroughTheQueue(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	a := f.agent("edge", echo).pull("see", 0, 4)
	c := f.client()
	ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x"), ContentType: "text/plain", Traceparent: "00-1-2-01"})
	if err != nil {
		t.Fatal(err)
	}
	if string(ans.Body) != "re:x" || ans.Agent != "edge" || ans.Attempt != 1 || ans.ContentType != "text/plain" || ans.Service != time.Millisecond || ans.Total <= 0 {
		t.Fatalf("got %+v", ans)
	}
	got := next(t, "the call", a.began)
	if !got.Queued || got.Origin != "tester" || got.Traceparent != "00-1-2-01" || got.Left <= 4*time.Second || got.Left > 5*time.Second {
		t.Fatalf("got %+v", got)
	}
	natstest.Eventually(t, wait, "an empty queue", func() bool {
		s, err := f.bus.JS.Stream(ctxFor(t), "FB__f__main__inference")
		return err == nil && s.CachedInfo().State.Msgs == 0
	})
	if s := c.Stats(); s.InFlight != 0 || s.Late != 0 || s.Malformed != nil {
		t.Fatalf("got %+v", s)
	}
}

func TestInferStraight(t *testing.T) {
	f := newFleet(t)
	f.plan(straight(task(messages.Inference, "see", "edge")))
	a := f.agent("edge", echo)
	ans, err := f.client().Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x"), ID: "mine"})
	if err != nil || string(ans.Body) != "re:x" || ans.Attempt != 1 {
		t.Fatalf("got %+v, %v", ans, err)
	}
	if got := next(t, "the call", a.began); got.Queued || got.ID != "mine" {
		t.Fatalf("got %+v", got)
	}
}

// The stream is not there: the request goes straight at once, and the stream is made.
func TestInferWithoutStream(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	a := f.agent("edge", echo)
	c := f.client()
	ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")})
	if err != nil || ans.Attempt != 1 || ans.Total > 200*time.Millisecond {
		t.Fatalf("got %+v, %v", ans, err)
	}
	if next(t, "the call", a.began).Queued {
		t.Fatal("out of which queue?")
	}
	a.pull("see", 0, 4)
	natstest.Eventually(t, wait, "the queue to be used again", func() bool {
		if _, err := c.Infer(ctxFor(t), Inference{Task: "see"}); err != nil {
			t.Fatal(err)
		}
		return next(t, "the call", a.began).Queued
	})
}

func TestBackendFailedGoesElsewhere(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "bad", "good"))
	f.agent("bad", func(call) ([]byte, *messages.Error) {
		return nil, messages.Errorf(messages.CodeBackendFailed, "no GPU")
	}).pull("see", 0, 1)
	f.agent("good", echo)
	ans, err := f.client().Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")})
	if err != nil || ans.Agent != "good" || ans.Attempt != 2 {
		t.Fatalf("got %+v, %v", ans, err)
	}
}

func TestBackendFailedEverywhere(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "bad"))
	a := f.agent("bad", func(call) ([]byte, *messages.Error) {
		return nil, messages.Errorf(messages.CodeBackendFailed, "no GPU")
	}).pull("see", 0, 1)
	_, err := f.client().Infer(ctxFor(t), Inference{Task: "see"})
	wantCode(t, err, messages.CodeBackendFailed)
	if a.served() != 1 {
		t.Fatalf("served %d times", a.served())
	}
}

// The holder's connection closes: the request runs elsewhere within a moment.
func TestHolderKilled(t *testing.T) {
	for name, mod := range map[string]func(messages.TaskRoute) messages.TaskRoute{"durable": func(r messages.TaskRoute) messages.TaskRoute { return r }, "direct": straight} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.plan(mod(task(messages.Inference, "see", "one", "two")))
			one := f.agent("one", f.gate().serve).pull("see", 0, 1)
			f.agent("two", echo)
			events := make(chan TraceEvent, 100)
			c := f.client(func(c *Config) { c.Trace = func(e TraceEvent) { events <- e } })
			var killed time.Time
			go func() {
				<-one.began
				killed = time.Now()
				one.nc.Close()
			}()
			ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")})
			took := time.Since(killed)
			if err != nil || ans.Agent != "two" || ans.Attempt != 2 {
				t.Fatalf("got %+v, %v", ans, err)
			}
			if took > time.Second { // usually 20 ms; the bound allows for a machine that is busy
				t.Errorf("took %v", took)
			}
			var kinds []string
			for e := (TraceEvent{}); e.Kind != TraceDone; {
				e = next(t, "a trace", events)
				if e.At.IsZero() || e.ID == "" || e.Task != "see" {
					t.Errorf("got %+v", e)
				}
				kinds = append(kinds, string(e.Kind))
			}
			got := strings.Join(kinds, " ")
			if !strings.HasPrefix(got, "sent ") || !strings.Contains(got, "accepted lost retry") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// The holder freezes: no word, no connection closed. The request runs elsewhere after
// 200 ms, and the next one does not go there first.
func TestHolderHung(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "one", "two"))
	one := f.agent("one", f.gate().serve).pull("see", 0, 1)
	f.agent("two", echo)
	c := f.client()
	go func() {
		<-one.began
		one.frozen.Store(true)
	}()
	ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")})
	if err != nil || ans.Agent != "two" || ans.Total > 2*time.Second {
		t.Fatalf("got %+v, %v", ans, err)
	}
	f.plan(straight(task(messages.Inference, "see", "one", "two")))
	natstest.Eventually(t, wait, "the plan", func() bool { return c.Routes().Rev == f.rev })
	ans, err = c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")})
	if err != nil || ans.Agent != "two" || ans.Attempt != 1 {
		t.Fatalf("got %+v, %v", ans, err)
	}
}

// A frozen agent's pull swallows the request: nobody accepts it, and it moves all the
// same, before the queue delivers it again.
func TestDeliveredNotAccepted(t *testing.T) {
	for name, kill := range map[string]func(*fake){"frozen": func(*fake) {}, "dead": func(a *fake) { a.nc.Close() }} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.plan(task(messages.Inference, "see", "one", "two"))
			one := f.agent("one", echo).pull("see", 0, 1)
			one.frozen.Store(true)
			f.agent("two", echo)
			c := f.client(func(cfg *Config) {
				cfg.Trace = func(e TraceEvent) {
					if e.Kind == TraceSent {
						kill(one) // the message may be on its way to it, or in the queue
					}
				}
			})
			ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")})
			if err != nil || ans.Agent != "two" || ans.Total > time.Second {
				t.Fatalf("got %+v, %v", ans, err)
			}
		})
	}
}

// The holder is well, finished, and its result got lost.
func TestResultLost(t *testing.T) {
	f := newFleet(t)
	f.plan(straight(task(messages.Inference, "see", "one", "two")))
	one, lost := f.agent("one", nil), f.gate()
	one.serve = func(c call) ([]byte, *messages.Error) {
		one.mu.Lock()
		delete(one.held, c.ID) // as after its end
		one.mu.Unlock()
		return lost.serve(c)
	}
	f.agent("two", echo)
	ans, err := f.client().Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x")})
	if err != nil || ans.Agent != "two" || ans.Attempt != 2 {
		t.Fatalf("got %+v, %v", ans, err)
	}
}

func TestBusy(t *testing.T) {
	f := newFleet(t)
	f.plan(straight(task(messages.Inference, "see", "one", "two")))
	refuse := func(call) *messages.Error {
		return &messages.Error{Code: messages.CodeBusy, Message: "full", RetryAfter: 70 * time.Millisecond}
	}
	one, two := f.agent("one", echo), f.agent("two", echo)
	one.admit, two.admit = refuse, nil
	c := f.client()
	ans, err := c.Infer(ctxFor(t), Inference{Task: "see"})
	if err != nil || ans.Agent != "two" || ans.Attempt != 1 {
		t.Fatalf("got %+v, %v", ans, err)
	}
	two.admit = refuse
	_, err = c.Infer(ctxFor(t), Inference{Task: "see"})
	wantCode(t, err, messages.CodeBusy)
	if e := messages.AsError(err, ""); e.RetryAfter != 70*time.Millisecond {
		t.Fatalf("got %+v", e)
	}
}

func TestDeadline(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	a := f.agent("edge", f.gate().serve).pull("see", 0, 4)
	c := f.client()
	start := time.Now()
	_, err := c.Infer(ctxFor(t), Inference{Task: "see", ID: "slow", Deadline: 100 * time.Millisecond})
	wantCode(t, err, messages.CodeDeadline)
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Fatalf("took %v", took)
	}
	if id := next(t, "the cancellation", a.cancelled); id != "slow" {
		t.Fatalf("got %s", id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Infer(ctx, Inference{Task: "see"})
	wantCode(t, err, messages.CodeDeadline)
	_, err = c.Infer(ctxFor(t), Inference{Task: "see", Deadline: -1})
	wantCode(t, err, messages.CodeBadRequest)
	served := a.served()
	_, err = c.Infer(ctx, Inference{Task: "see"}) // its time was over before
	wantCode(t, err, messages.CodeDeadline)
	cancel()
	done, cancelled := context.WithCancel(context.Background())
	cancelled()
	_, err = c.Infer(done, Inference{Task: "see"})
	wantCode(t, err, messages.CodeCanceled)
	if a.served() != served {
		t.Fatal("it was sent all the same")
	}
}

func TestCancel(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	g := f.gate()
	a := f.agent("edge", g.serve).pull("see", 0, 4)
	late := make(chan TraceEvent, 10)
	c := f.client(func(cfg *Config) {
		cfg.Trace = func(e TraceEvent) {
			if e.Kind == TraceLate {
				late <- e
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-a.began
		cancel()
	}()
	_, err := c.Infer(ctx, Inference{Task: "see", ID: "unwanted"})
	wantCode(t, err, messages.CodeCanceled)
	if id := next(t, "the cancellation", a.cancelled); id != "unwanted" {
		t.Fatalf("got %s", id)
	}
	g.open()
	if e := next(t, "the late result", late); e.ID != "unwanted" || c.Stats().Late != 1 {
		t.Fatalf("got %+v, %+v", e, c.Stats())
	}
}

// A request that is accepted after its end is cancelled there.
func TestAcceptedTooLate(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	if err := f.bus.Stream(ctxFor(t), "main", messages.Inference); err != nil {
		t.Fatal(err)
	}
	c := f.client()
	_, err := c.Infer(ctxFor(t), Inference{Task: "see", ID: "forgotten", Deadline: 50 * time.Millisecond})
	wantCode(t, err, messages.CodeDeadline)
	a := f.agent("edge", f.gate().serve).pull("see", 0, 1)
	if id := next(t, "the cancellation", a.cancelled); id != "forgotten" {
		t.Fatalf("got %s", id)
	}
}

func TestIDInUse(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	g := f.gate()
	a := f.agent("edge", g.serve).pull("see", 0, 4)
	c := f.client()
	done := make(chan error, 1)
	go func() {
		_, err := c.Infer(ctxFor(t), Inference{Task: "see", ID: "same"})
		done <- err
	}()
	next(t, "the first", a.began)
	_, err := c.Infer(ctxFor(t), Inference{Task: "see", ID: "same"})
	wantCode(t, err, messages.CodeConflict)
	g.open()
	if err := next(t, "the first's end", done); err != nil {
		t.Fatal(err)
	}
}
