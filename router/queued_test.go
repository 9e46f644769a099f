package router

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// register registers a robot that is away.
func (f *fleet) register(id string) {
	f.t.Helper()
	kv, err := f.bus.KV(ctxFor(f.t), bus.Agents)
	if err != nil {
		f.t.Fatal(err)
	}
	data, err := messages.Encode(&messages.Registration{Environment: messages.Environment{ID: id, Tier: messages.Robot}})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := kv.Put(ctxFor(f.t), id, data); err != nil {
		f.t.Fatal(err)
	}
}

// queuedFor waits until an action waits in the journal, and returns its entry.
func (f *fleet) queuedFor(robot string) jetstream.Msg {
	f.t.Helper()
	woken := make(chan *nats.Msg, 1)
	s := f.bus.Subject(messages.KindWake, "main")
	s.Agent = robot
	sub, err := f.nc.ChanSubscribe(s.String(), woken)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	over := time.After(wait)
	for {
		var last jetstream.Msg
		if err := f.bus.Queued(ctxFor(f.t), "main", robot, func(m jetstream.Msg) error { last = m; return nil }); err != nil {
			f.t.Fatal(err)
		}
		if last != nil && last.Headers().Get("Fb-Settled") == "" {
			return last
		}
		select {
		case <-woken:
		case <-time.After(10 * time.Millisecond):
		case <-over:
			f.t.Fatal("nothing waits in the journal")
		}
	}
}

func TestActionWaits(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move"))
	f.register("robot")
	f.service()
	const subject = "fb.f.main.req.action.arm.robot.move"
	header := nats.Header{"Fb-Episode": {"e"}, "Fb-Seq": {"1"}, "Fb-Queue": {"1"}, "Fb-Left-Ms": {"5000"}, "Fb-Id": {"mine"}, "Fb-Stream": {"1"}, "Content-Type": {"text/plain"}}

	// Not asked for, with too little time, and for a robot that nobody knows.
	for want, h := range map[messages.Code]nats.Header{
		messages.CodeNotConnected: {"Fb-Episode": {"e"}, "Fb-Seq": {"1"}},
		messages.CodeBadRequest:   {"Fb-Episode": {"e"}, "Fb-Seq": {"1"}, "Fb-Queue": {"please"}},
	} {
		if m := f.request(subject, "x", h); m.Header.Get("Fb-Error") != string(want) {
			t.Errorf("%v: %v", h, m.Header)
		}
	}
	if m := f.request(subject, "x", nats.Header{"Fb-Episode": {"e"}, "Fb-Seq": {"1"}, "Fb-Queue": {"1"}, "Fb-Left-Ms": {"900"}}); m.Header.Get("Fb-Error") != "not_connected" {
		t.Errorf("900 ms: %v", m.Header)
	}
	if m := f.request("fb.f.main.req.action.arm.nobody.move", "x", header); m.Header.Get("Fb-Error") != "not_found" {
		t.Errorf("an unknown robot: %v", m.Header)
	}

	got := make(chan *nats.Msg, 1)
	go func() { got <- f.request(subject, "left", header) }()
	entry := f.queuedFor("robot")
	on, err := messages.ParseSubject(entry.Subject())
	if err != nil {
		t.Fatal(err)
	}
	req, err := messages.ParseRequest(on, messages.Header(entry.Headers()))
	if err != nil {
		t.Fatal(err)
	}
	if string(entry.Data()) != "left" || req.ID != "mine" || req.Origin != "arm" || !req.Inc.IsZero() || !req.Stream || req.ContentType != "text/plain" ||
		req.Left > 4*time.Second || req.Left < 3*time.Second {
		t.Fatalf("%q %+v", entry.Data(), req)
	}
	// The robot is back and takes it.
	meta, err := entry.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	taken := &nats.Msg{Subject: entry.Subject(), Header: nats.Header{"Fb-Settled": {"taken"}}}
	if ok, err := f.bus.Settle(ctxFor(t), taken, meta.Sequence.Stream); err != nil || !ok {
		t.Fatal(ok, err)
	}
	a := f.agent("robot", echo)
	a.begin(&nats.Msg{Subject: entry.Subject(), Header: entry.Headers(), Data: entry.Data()}, true, func() {})
	if m := next(t, "the answer", got); string(m.Data) != "re:left" || m.Header.Get("Fb-Agent") != "robot" {
		t.Fatalf("%q %v", m.Data, m.Header)
	}

	// Nobody comes: withdrawn, and certain.
	c := f.client()
	ctx, cancel := context.WithCancel(ctxFor(t))
	failed := make(chan error, 1)
	go func() {
		_, err := c.Act(ctx, Action{Robot: "robot", Task: "move", Episode: "e", Seq: 2, Deadline: wait, Queue: true})
		failed <- err
	}()
	f.queuedFor("robot")
	cancel()
	wantCode(t, next(t, "the end", failed), messages.CodeCanceled)
	last := ""
	if err := f.bus.Queued(ctxFor(t), "main", "robot", func(m jetstream.Msg) error { last = m.Headers().Get("Fb-Settled"); return nil }); err != nil {
		t.Fatal(err)
	}
	if last != "withdrawn" {
		t.Fatalf("the journal says %q", last)
	}
}

// The client ends while an action waits: it is withdrawn before Run returns.
func TestClientEndsWhileAnActionWaits(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move"))
	f.register("robot")
	c := NewClient(f.s.Connect(t), Config{Fleet: "f", Origin: "tester"})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	if err := c.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := c.Act(context.Background(), Action{Robot: "robot", Task: "move", Episode: "e", Seq: 2, Deadline: wait, Queue: true})
		failed <- err
	}()
	f.queuedFor("robot")
	cancel()
	if err := next(t, "Run", ended); err != nil {
		t.Fatal(err)
	}
	// Where the journal had not confirmed it to the client yet, that cannot say more.
	if err := next(t, "the action", failed); messages.CodeOf(err) != messages.CodeUnavailable && messages.CodeOf(err) != messages.CodeUnknownOutcome {
		t.Fatal(err)
	}
}
