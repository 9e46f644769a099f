package router

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// talker is an agent that sends parts of its answer, and a report, to those who ask.
func (f *fleet) talker(id string, parts int) *fake {
	var a *fake
	a = f.agent(id, func(c call) ([]byte, *messages.Error) {
		s := f.bus.Subject(messages.KindReply, "main")
		s.Agent, s.Origin, s.ID = id, c.Origin, c.Inbox
		say := func(r messages.Reply, body string) { a.say(s.String(), r, []byte(body)) }
		if c.Stream {
			r := a.reply(c.Request, messages.ReplyProgress, nil)
			r.Done, r.Note = 500, "half way"
			say(r, "")
			for i := range parts {
				r := a.reply(c.Request, messages.ReplyProgress, nil)
				r.Part, r.ContentType = i+1, "text/x"
				say(r, fmt.Sprint(id, " ", i))
			}
		}
		if c.Body == "fail on "+id {
			return nil, messages.Errorf(messages.CodeBackendFailed, "no GPU")
		}
		return echo(c)
	})
	return a
}

func TestOnPartial(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "say", "a", "b"), task(messages.Action, "move", "a"))
	f.talker("a", 2).pull("say", 0, 4)
	f.talker("b", 1)
	c := f.client()
	var got []string
	collect := func(p Partial) {
		got = append(got, fmt.Sprintf("%s %d.%d %s%s %v", p.Agent, p.Attempt, p.Number, p.Body, p.Note, p.Done))
	}
	check := func(err error, want ...string) {
		t.Helper()
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		got = nil
	}
	first := []string{"a 1.0 half way 0.5", "a 1.1 a 0 0", "a 1.2 a 1 0"}
	_, err := c.Infer(ctxFor(t), Inference{Task: "say", Body: []byte("x"), OnPartial: collect})
	check(err, first...)
	_, err = c.Act(ctxFor(t), Action{Robot: "a", Task: "move", Episode: "e", Seq: 1, OnPartial: collect})
	check(err, first...)
	_, err = c.Infer(ctxFor(t), Inference{Task: "say", Body: []byte("x")})
	check(err)
	// The next attempt begins from its first part.
	_, err = c.Infer(ctxFor(t), Inference{Task: "say", Body: []byte("fail on a"), OnPartial: collect})
	check(err, append(first, "b 2.0 half way 0.5", "b 2.1 b 0 0")...)
}

// A caller who is slow loses parts, and sees that; never the answer.
func TestSlowOnPartial(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "say", "a"))
	numbers := make(chan int, 5*maxBox)
	blocked, block := make(chan struct{}), make(chan struct{})
	unblock := sync.OnceFunc(func() { close(block) })
	a := f.talker("a", 4*maxBox)
	talk := a.serve
	a.serve = func(c call) ([]byte, *messages.Error) {
		<-blocked // parts that come before that would be taken out of the box
		return talk(c)
	}
	a.pull("say", 0, 1)
	c := f.client(func(cfg *Config) {
		cfg.Trace = func(e TraceEvent) {
			if e.Kind == TraceAccepted {
				close(blocked)
				<-block // the caller's own goroutine: nothing is taken out of the box
			}
		}
	})
	t.Cleanup(unblock) // before the client is stopped, also when the test has failed
	done := make(chan error, 1)
	go func() {
		_, err := c.Infer(ctxFor(t), Inference{Task: "say", Body: []byte("x"), OnPartial: func(p Partial) { numbers <- p.Number }})
		done <- err
	}()
	natstest.Eventually(t, wait, "a full box", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, fl := range c.flights {
			fl.mu.Lock()
			n, ended := len(fl.box), slices.ContainsFunc(fl.box, func(a arrival) bool { return a.ev.Kind == route.Result })
			fl.mu.Unlock()
			return n > maxParts && ended // the parts that fit, and the result behind all that do not
		}
		return false
	})
	unblock()
	if err := next(t, "the answer", done); err != nil {
		t.Fatal(err)
	}
	close(numbers)
	n, last := 0, 0
	for i := range numbers {
		if n++; i < last {
			t.Fatalf("part %d after part %d", i, last)
		}
		last = i
	}
	if n < maxParts-4 || n > 2*maxParts { // the box beside other news, and what was taken out of it before
		t.Fatalf("%d parts were passed on, %d fit into the box", n, maxParts)
	}
}

// A plain client asks the router for parts with a header, and reads until the answer;
// without the header the answer is all there is.
func TestServiceStreams(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "say", "a"))
	f.talker("a", 3).pull("say", 0, 4)
	f.service()
	const subject = "fb.f.main.req.inference.arm.say"
	sub, err := f.nc.SubscribeSync(f.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(header nats.Header) (got []string) {
		t.Helper()
		if err := f.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: sub.Subject, Header: header, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := sub.NextMsg(wait)
			if err != nil {
				t.Fatal(err)
			}
			h := m.Header
			got = append(got, fmt.Sprintf("%s %s %s %s %s %s", h.Get("Fb-Kind"), h.Get("Fb-Attempt"), h.Get("Fb-Part"), h.Get("Fb-Done"), h.Get("Fb-Note"), m.Data))
			if h.Get("Fb-Kind") == "result" {
				return got
			}
		}
	}
	r := "result 1   "
	if got := ask(nats.Header{"Fb-Stream": {"1"}}); !slices.Equal(got, []string{"progress 1  500 half way ", "progress 1 1   a 0", "progress 1 2   a 1", "progress 1 3   a 2", r + " re:x"}) {
		t.Fatalf("got %q", got)
	}
	for _, h := range []nats.Header{nil, {"Fb-Stream": {"0"}}} {
		if got := ask(h); !slices.Equal(got, []string{r + " re:x"}) {
			t.Fatalf("got %q", got)
		}
	}
	if m := f.request(subject, "x", nats.Header{"Fb-Stream": {"yes"}}); m.Header.Get("Fb-Error") != "bad_request" {
		t.Fatalf("got %v", m.Header)
	}
}
