package router

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

func move(seq uint64) Action {
	return Action{Robot: "robot", Task: "move", Episode: "e1", Seq: seq, Body: []byte("left")}
}

func TestAct(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move", "robot"))
	a := f.agent("robot", echo)
	ans, err := f.client().Act(ctxFor(t), move(1))
	if err != nil || string(ans.Body) != "re:left" || ans.Agent != "robot" || ans.Attempt != 1 {
		t.Fatalf("got %+v, %v", ans, err)
	}
	got := next(t, "the call", a.began)
	if got.Episode != "e1" || got.Seq != 1 || got.Inc != incOf("robot") || got.Left <= 0 || got.Class != messages.Action {
		t.Fatalf("got %+v", got)
	}
	// Persist, then send: the intent is in the journal, under the robot's name.
	s, err := f.bus.JS.Stream(ctxFor(t), "FB__f__main__action")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(ctxFor(t), "fb.f.main.journal.intent.robot.tester."+got.ID)
	if err != nil || string(m.Data) != "left" {
		t.Fatalf("got %+v, %v", m, err)
	}
}

func TestActRefused(t *testing.T) {
	f := newFleet(t)
	loading := task(messages.Action, "grip", "robot")
	loading.Replicas[0].State = messages.ReplicaLoading
	f.plan(task(messages.Action, "move", "robot"), loading, task(messages.Inference, "see", "robot"))
	a := f.agent("robot", echo)
	a.admit = func(c call) *messages.Error {
		if c.Seq < 7 {
			return messages.Errorf(messages.CodeStale, "sequence 7 came before")
		}
		return nil
	}
	c := f.client()
	for name, s := range map[string]struct {
		act  Action
		code messages.Code
	}{
		"stale":         {move(3), messages.CodeStale},
		"other robot":   {Action{Robot: "robot2", Task: "move", Episode: "e", Seq: 1}, messages.CodeNotConnected},
		"not ready":     {Action{Robot: "robot", Task: "grip", Episode: "e", Seq: 1}, messages.CodeNotConnected},
		"no episode":    {Action{Robot: "robot", Task: "move", Seq: 1}, messages.CodeBadRequest},
		"no sequence":   {Action{Robot: "robot", Task: "move", Episode: "e"}, messages.CodeBadRequest},
		"no robot":      {Action{Task: "move", Episode: "e", Seq: 1}, messages.CodeBadRequest},
		"unknown":       {Action{Robot: "robot", Task: "mov", Episode: "e", Seq: 1}, messages.CodeNotFound},
		"another class": {Action{Robot: "robot", Task: "see", Episode: "e", Seq: 1}, messages.CodeBadRequest},
		"too large":     {Action{Robot: "robot", Task: "move", Episode: "e", Seq: 1, Body: make([]byte, 9<<20)}, messages.CodePayloadTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Act(ctxFor(t), s.act)
			wantCode(t, err, s.code)
		})
	}
	if a.served() != 0 {
		t.Fatalf("served %d", a.served())
	}
	if _, err := c.Act(ctxFor(t), move(7)); err != nil {
		t.Fatal(err)
	}
}

// Two processes have the robot's id for a moment. That one of them refuses the action
// says nothing of the other, which runs it.
func TestActRefusedByAnotherLife(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move", "robot"))
	f.agent("robot", func(c call) ([]byte, *messages.Error) {
		s := f.bus.Subject(messages.KindReply, "main")
		s.Agent, s.Origin, s.ID = "robot", c.Origin, c.Inbox
		former := messages.Reply{
			Kind: messages.ReplyResult, ID: c.ID, Attempt: c.Attempt, Agent: "robot", Inc: messages.Incarnation{Epoch: 1, Revision: 1},
			Err: messages.Errorf(messages.CodeStale, "not for me"),
		}
		if err := f.nc.PublishMsg(&nats.Msg{Subject: s.String(), Header: nats.Header(former.Header())}); err != nil {
			t.Error(err)
		}
		if err := f.nc.Flush(); err != nil { // its word is there before the outcome
			t.Error(err)
		}
		return echo(c)
	})
	if ans, err := f.client().Act(ctxFor(t), move(1)); err != nil || string(ans.Body) != "re:left" {
		t.Fatalf("got %+v, %v", ans, err)
	}
}

// A connection that buffers while it is down must not keep an action and send it when
// its time is over: it ends at once, and certainly was not sent.
func TestActIsNotBuffered(t *testing.T) {
	f := newFleet(t)
	nc := f.s.Connect(t, nats.ReconnectBufSize(8<<20))
	c := NewClient(nc, Config{Fleet: "f", Origin: "tester"})
	f.s.Stop()
	natstest.Eventually(t, wait, "the connection to be down", func() bool { return !nc.IsConnected() })
	now := time.Now()
	fl := c.newFlight(messages.Request{ID: "a", Class: messages.Action, Task: "move", Origin: "tester", Attempt: 1, Episode: "e", Seq: 1}, nil, now, now.Add(time.Second))
	fl.direct(route.Effect{Agent: "robot", Site: "main", Attempt: 1, Cause: route.CauseIntent}, now)
	news := fl.take()
	if len(news) != 1 || news[0].ev.Kind != route.NoResponders || news[0].ev.Err == nil || news[0].ev.Err.Code != messages.CodeUnavailable {
		t.Fatalf("got %+v", news)
	}
	if n, err := nc.Buffered(); err != nil || n > 0 {
		t.Fatalf("%d bytes wait for a connection, %v", n, err)
	}
}

// The robot has no connection: it certainly did not run.
func TestActNotConnected(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move", "robot"))
	_, err := f.client().Act(ctxFor(t), move(1))
	wantCode(t, err, messages.CodeNotConnected)
}

// From the moment it was sent nobody but the robot knows: whatever ends it then, the
// answer says so, and it is not sent again.
func TestActUnknownOutcome(t *testing.T) {
	for name, s := range map[string]struct {
		deadline time.Duration
		end      func(a *fake, cancel func())
	}{
		"robot killed":     {5 * time.Second, func(a *fake, _ func()) { a.nc.Close() }},
		"time over":        {500 * time.Millisecond, func(*fake, func()) {}},
		"caller gone":      {5 * time.Second, func(_ *fake, cancel func()) { cancel() }},
		"robot frozen":     {400 * time.Millisecond, func(a *fake, _ func()) { a.frozen.Store(true) }},
		"its outcome lost": {5 * time.Second, func(a *fake, _ func()) { a.mu.Lock(); clear(a.held); a.mu.Unlock() }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.plan(task(messages.Action, "move", "robot"))
			a := f.agent("robot", f.gate().serve)
			c := f.client()
			if err := c.bus.Stream(ctxFor(t), "main", messages.Action); err != nil {
				t.Fatal(err) // to make the journal is not what an action's time is for here
			}
			ctx, cancel := context.WithCancel(ctxFor(t))
			defer cancel()
			go func() {
				<-a.began
				s.end(a, cancel)
			}()
			act := move(1)
			act.Deadline = s.deadline
			start := time.Now()
			_, err := c.Act(ctx, act)
			wantCode(t, err, messages.CodeUnknownOutcome)
			if !strings.Contains(err.Error(), "look before acting again") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
			if a.served() != 1 {
				t.Errorf("it was begun %d times", a.served())
			}
		})
	}
}

// A robot that swallows the command without a word may have run it.
func TestActNoWord(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move", "robot"))
	a := f.agent("robot", echo)
	a.frozen.Store(true)
	act := move(1)
	act.Deadline = 300 * time.Millisecond
	_, err := f.client().Act(ctxFor(t), act)
	wantCode(t, err, messages.CodeUnknownOutcome)
}

// Without a journal nothing is sent.
func TestActWithoutJournal(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move", "robot"))
	a := f.agent("robot", echo)
	c := f.client()
	if _, err := c.Act(ctxFor(t), move(1)); err != nil {
		t.Fatal(err)
	}
	if err := f.bus.JS.DeleteStream(ctxFor(t), "FB__f__main__action"); err != nil {
		t.Fatal(err)
	}
	_, err := c.Act(ctxFor(t), move(2))
	wantCode(t, err, messages.CodeUnavailable)
	if a.served() != 1 {
		t.Fatalf("served %d", a.served())
	}
	if _, err := c.Act(ctxFor(t), move(3)); err != nil { // it was made again
		t.Fatal(err)
	}
}

func TestActCancelledWhereItRuns(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Action, "move", "robot"))
	g := f.gate()
	a := f.agent("robot", g.serve)
	c := f.client()
	act := move(1)
	act.ID, act.Deadline = "late", 100*time.Millisecond
	_, err := c.Act(ctxFor(t), act)
	wantCode(t, err, messages.CodeUnknownOutcome)
	if id := next(t, "the cancellation", a.cancelled); id != "late" {
		t.Fatalf("got %s", id)
	}
	g.open()
	natstest.Eventually(t, wait, "the late result", func() bool { return c.Stats().Late == 1 })
}
