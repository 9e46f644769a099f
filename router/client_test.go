package router

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

// route cannot import bus, where this time belongs.
func TestTimesAgree(t *testing.T) {
	if route.QueueAckWait != bus.InferenceAckWait {
		t.Fatalf("%v and %v", route.QueueAckWait, bus.InferenceAckWait)
	}
}

func TestRunLeavesNothing(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	a := f.agent("edge", f.gate().serve).pull("see", 0, 4)
	nc := f.s.Connect(t)
	if _, err := nc.Request("$SRV.PING", nil, time.Millisecond); err == nil {
		t.Fatal("who answers?")
	} // from now on the connection has the goroutine that it keeps for answers
	before := goleak.IgnoreCurrent()
	c := NewClient(nc, Config{Fleet: "f", Origin: "tester"})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	if err := c.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := c.Infer(context.Background(), Inference{Task: "see", Deadline: time.Minute})
		answered <- err
	}()
	next(t, "the request", a.began)
	cancel()
	if err := next(t, "the end of Run", ended); err != nil {
		t.Fatal(err)
	}
	wantCode(t, next(t, "the end of the request", answered), messages.CodeUnavailable)
	a.end()
	if err := goleak.Find(before); err != nil {
		t.Fatal(err)
	}
	_, err := c.Infer(context.Background(), Inference{Task: "see"})
	wantCode(t, err, messages.CodeUnavailable)
	wantCode(t, c.Run(context.Background()), messages.CodeConflict)
}

func TestNotRunning(t *testing.T) {
	f := newFleet(t)
	c := NewClient(f.nc, Config{Fleet: "f", Origin: "tester"})
	_, err := c.Infer(ctxFor(t), Inference{Task: "see"})
	wantCode(t, err, messages.CodeUnavailable)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err = c.Ready(ctx)
	wantCode(t, err, messages.CodeUnavailable)
	if !strings.Contains(err.Error(), "Run") {
		t.Fatal(err)
	}
	wantCode(t, NewClient(f.nc, Config{Fleet: "f"}).Run(ctx), messages.CodeBadRequest)
	wantCode(t, NewClient(f.nc, Config{Fleet: "f"}).Ready(ctx), messages.CodeBadRequest)
}

func TestNoRoutes(t *testing.T) {
	f := newFleet(t)
	c := NewClient(f.s.Connect(t), Config{Fleet: "f", Origin: "tester"})
	f.run(c.Run)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	err := c.Ready(ctx)
	wantCode(t, err, messages.CodeUnavailable)
	if !strings.Contains(err.Error(), "fleetbus coordinator") {
		t.Fatal(err)
	}
	_, err = c.Infer(ctxFor(t), Inference{Task: "see"})
	wantCode(t, err, messages.CodeUnavailable)
	changed := c.RoutesChanged()
	f.plan(task(messages.Inference, "see", "edge"))
	next(t, "the routes", changed)
	if err := c.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	if r := c.Routes(); len(r.Tasks) != 1 || r.Rev != 1 {
		t.Fatalf("got %+v", r)
	}
}

// Routes come by broadcast, the newest count, and malformed ones are dropped.
func TestRoutes(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	c := f.client()
	changed := c.RoutesChanged()
	f.plan(task(messages.Inference, "see", "edge"), task(messages.Inference, "hear", "edge"))
	next(t, "newer routes", changed)
	if r := c.Routes(); r.Rev != 2 || len(r.Tasks) != 2 {
		t.Fatalf("got %+v", r)
	}
	subject := f.bus.Subject(messages.KindRoutes, messages.FleetSite).String()
	old, err := messages.Encode(&messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{old, []byte("garbage"), nil, {0x81}} {
		if err := f.nc.Publish(subject, data); err != nil {
			t.Fatal(err)
		}
	}
	natstest.Eventually(t, wait, "the garbage to be counted", func() bool { return c.Stats().Malformed["routes"] == 3 })
	if r := c.Routes(); r.Rev != 2 {
		t.Fatalf("got %+v", r)
	}
}

// Whatever arrives on our reply subjects: it is counted and dropped.
func TestGarbage(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	a := f.agent("edge", f.gate().serve).pull("see", 0, 4)
	c := f.client()
	done := make(chan error, 1)
	go func() {
		_, err := c.Infer(ctxFor(t), Inference{Task: "see", ID: "mine"})
		done <- err
	}()
	next(t, "the request", a.began)
	res := "fb.f.main.res.edge.tester." + c.inbox
	good := nats.Header{"Fb-Kind": {"result"}, "Fb-Id": {"mine"}, "Fb-Attempt": {"1"}}
	send := func(subject string, h nats.Header, body string) {
		if err := f.nc.PublishMsg(&nats.Msg{Subject: subject, Header: h, Data: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	send(res, nil, "")
	send(res, nats.Header{"Fb-Kind": {"result"}}, "")
	send(res, nats.Header{"Fb-Kind": {"result"}, "Fb-Id": {"mine"}, "Fb-Attempt": {"x"}}, "")
	send(res, nats.Header{"Fb-Kind": {"result"}, "Fb-Id": {"mine"}, "Fb-Attempt": {"1"}, "Fb-Agent": {"other"}}, "") // signs as another
	send("fb.f.main.res.e*.tester."+c.inbox, good, "")
	send(c.replies+"p.mine", nil, "what?")
	send(c.replies+"p.nobody", nil, "what?") // too late to matter, not malformed
	send(c.replies+"d.mine", nil, "")
	send(c.replies+"d.mine.x.edge", nil, "")
	send(c.replies+"d.mine.1.edge", nats.Header{"Fb-Kind": {"result"}, "Fb-Id": {"other"}}, "")
	send(c.replies+"b.x", nil, "")
	send(c.replies+"b.1", nil, "no msgpack")
	send(c.replies+"z.1", nil, "")
	send("fb.f.main.res.stranger.tester."+c.inbox, nats.Header{"Fb-Kind": {"result"}, "Fb-Id": {"unknown"}, "Fb-Attempt": {"1"}}, "")
	natstest.Eventually(t, wait, "it to be counted", func() bool {
		m := c.Stats().Malformed
		return m["res"] == 5 && m["puback"] == 1 && m["do"] == 3 && m["probe"] == 2 && m["reply"] == 1
	})
	send(res, good, "answer")
	if err := next(t, "the answer", done); err != nil {
		t.Fatal(err)
	}
}

// A server that restarts loses the queue; what was under way ends by itself or goes on,
// and the client serves again without being told.
func TestServerRestart(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	a := f.agent("edge", echo).pull("see", 0, 1)
	c := f.client()
	if _, err := c.Infer(ctxFor(t), Inference{Task: "see"}); err != nil {
		t.Fatal(err)
	}
	f.s.Restart(t)
	// The agent is there again, its pulls are not: the queue is made again, and until
	// somebody pulls, requests wait in it or go straight.
	natstest.Eventually(t, wait, "an answer", func() bool {
		_, err := c.Infer(ctxFor(t), Inference{Task: "see", Deadline: 500 * time.Millisecond})
		return err == nil
	})
	a.pull("see", 0, 1)
	if _, err := c.Infer(ctxFor(t), Inference{Task: "see"}); err != nil {
		t.Fatal(err)
	}
}

// A connection that is down is said so, and never by NATS's own words alone.
func TestDisconnected(t *testing.T) {
	f := newFleet(t)
	f.plan(straight(task(messages.Inference, "see", "edge")), task(messages.Action, "move", "robot"))
	link := f.s.Link("wifi")
	c := NewClient(f.s.Connect(t, link.Dial()), Config{Fleet: "f", Origin: "tester", Logger: slog.New(slog.DiscardHandler)})
	f.run(c.Run)
	if err := c.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	link.Break()
	natstest.Eventually(t, wait, "the client to notice", func() bool { return !c.nc.IsConnected() })
	for _, err := range []error{
		func() error { _, err := c.Infer(ctxFor(t), Inference{Task: "see"}); return err }(),
		func() error { _, err := c.Act(ctxFor(t), move(1)); return err }(),
	} {
		wantCode(t, err, messages.CodeUnavailable)
		if !strings.Contains(err.Error(), "reconnects by itself") {
			t.Errorf("got %v", err)
		}
	}
}

// Our own link is cut: nobody is taken for hung because of that.
func TestCutLinkBlamesNobody(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "one", "two"))
	g := f.gate()
	f.agent("one", g.serve).pull("see", 0, 1)
	two := f.agent("two", echo)
	link := f.s.Link("wifi")
	var mu sync.Mutex
	var kinds []TraceKind
	accepted := make(chan struct{}, 1)
	c := NewClient(f.s.Connect(t, link.Dial()), Config{Fleet: "f", Origin: "tester", Trace: func(e TraceEvent) {
		mu.Lock()
		defer mu.Unlock()
		kinds = append(kinds, e.Kind)
		if e.Kind == TraceAccepted {
			accepted <- struct{}{}
		}
	}})
	f.run(c.Run)
	if err := c.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Infer(ctxFor(t), Inference{Task: "see"})
		done <- err
	}()
	next(t, "the request to be accepted", accepted)
	link.Cut()
	over := time.NewTimer(2 * probeSilence * probeEvery) // twice what would make it hung
	<-over.C
	link.Mend()
	g.open()
	if err := next(t, "the answer", done); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, k := range kinds {
		if k == TraceHung || k == TraceLost || k == TraceRetry {
			t.Fatalf("got %v", kinds)
		}
	}
	if two.served() > 0 {
		t.Fatal("it went elsewhere")
	}
}

func TestClosedConnection(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	c := NewClient(f.s.Connect(t), Config{Fleet: "f", Origin: "tester"})
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background()) }()
	if err := c.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	c.nc.Close()
	wantCode(t, next(t, "the end of Run", ended), messages.CodeUnavailable)
}
