package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

func TestServesOutOfTheQueue(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	g.run("edge", nil, at.handler("detect"))
	inc := g.alive("edge")
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	req := c.request(messages.Inference, "detect")
	req.ContentType = "text/plain"
	c.queue(req, "frame")

	if a := c.next(messages.ReplyAccepted); a.ID != req.ID || a.Agent != "edge" || a.Inc != inc {
		t.Errorf("accepted: %+v", a)
	}
	at.open <- "frame"
	a := c.result()
	a.want(t, "", "frame")
	if a.ContentType != "text/plain" || a.Attempt != 1 || a.Agent != "edge" || a.from != "fb.f.main.res.edge.robot."+c.inbox {
		t.Errorf("result: %+v", a)
	}
}

// TestNearestFirst: rank 0 has all light load, what it has no slot for spills to rank 1,
// and a change of rank turns that round.
func TestNearestFirst(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	near, far := newGate(), newGate()
	g.run("near", nil, near.handler("detect"))
	g.run("far", nil, far.handler("detect"))
	g.place("near", inference("detect"))
	atRank := func(id string, rank int) {
		p := placed(inference("detect"))
		p[0].Rank = rank
		if ack := g.send(g.document(id, p)); ack.Error != "" {
			t.Fatal(ack.Error)
		}
	}
	atRank("far", 5)
	g.replicaIs("far", "detect/0", messages.ReplicaReady)
	c := g.caller("robot")
	free := 2
	serve := func(at *gate) {
		t.Helper()
		// The server takes pulls and messages in on different goroutines, so it may see a
		// request before the pull that was sent before it.
		natstest.Eventually(t, patience, "the pulls to wait", func() bool {
			consumer, err := g.bus.Consumer(g.ctx(), site, messages.Inference, "detect")
			if err != nil {
				t.Fatal(err)
			}
			return consumer.CachedInfo().NumWaiting == free
		})
		c.queue(c.request(messages.Inference, "detect"), "")
		at.in(t)
		at.open <- "ok"
		c.result().want(t, "", "ok")
	}
	for range 5 {
		serve(near)
	}
	// near is busy: the next one spills at once.
	c.queue(c.request(messages.Inference, "detect"), "")
	near.in(t)
	free = 1
	serve(far)
	free = 2
	near.open <- "late"
	c.result().want(t, "", "late")
	serve(near)

	atRank("near", 9)
	// The pulls move within a round trip; until then a request may still find the old.
	natstest.Eventually(t, patience, "far to be the nearest", func() bool {
		c.queue(c.request(messages.Inference, "detect"), "")
		defer c.result()
		select {
		case <-near.entered:
			near.open <- "ok"
			return false
		case <-far.entered:
			far.open <- "ok"
			return true
		}
	})
	for range 5 {
		serve(far)
	}
}

// TestHoldsNothingItCannotServe: what waits does so at the server, where an agent that
// comes later finds it.
func TestHoldsNothingItCannotServe(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	first, second := newGate(), newGate()
	task := inference("detect")
	task.Concurrency = 2
	g.run("first", nil, first.handler("detect"))
	g.place("first", task)
	c := g.caller("robot")
	for range 5 {
		c.queue(c.request(messages.Inference, "detect"), "")
	}
	first.in(t)
	first.in(t)
	g.run("second", nil, second.handler("detect"))
	g.place("second", task)
	second.in(t)
	second.in(t)
	select {
	case <-first.entered:
		t.Fatal("more requests than slots")
	default:
	}
	second.open <- "a"
	second.in(t) // the fifth
	for range 2 {
		first.open <- "b"
		second.open <- "a"
	}
	for range 5 {
		c.result()
	}
}

// TestDirectTakesTheSlotOfAPull: the message that the pull brings goes back at once and
// is served when the slot is free.
func TestDirectTakesTheSlotOfAPull(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	g.run("edge", nil, at.handler("detect"))
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	direct := c.request(messages.Inference, "detect")
	if r := c.do("edge", direct, "x"); r.Kind != messages.ReplyAccepted || r.Err != nil || r.ID != direct.ID {
		t.Fatalf("%+v", r)
	}
	at.in(t)
	queued := c.request(messages.Inference, "detect")
	c.queue(queued, "y")
	busy := c.do("edge", c.request(messages.Inference, "detect"), "z")
	if busy.Kind != messages.ReplyResult || messages.CodeOf(busy.Err) != messages.CodeBusy || busy.Err.RetryAfter <= 0 {
		t.Fatalf("%+v", busy)
	}
	at.open <- "direct"
	c.result().want(t, "", "direct")
	if r := at.in(t); r.ID != queued.ID {
		t.Fatalf("served %s", r.ID)
	}
	at.open <- "queued"
	c.result().want(t, "", "queued")
}

// TestLargeOnesDoNotWait: whoever reads a large request serves it too, and nothing waits
// for that.
func TestLargeOnesDoNotWait(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	g.run("edge", nil, at.handler("detect"))
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	frame := strings.Repeat("x", 200<<10)
	for range 3 {
		if r := c.do("edge", c.request(messages.Inference, "detect"), frame); r.Kind != messages.ReplyAccepted || r.Err != nil {
			t.Fatalf("%+v", r)
		}
		at.in(t)
		if r := c.do("edge", c.request(messages.Inference, "detect"), frame); messages.CodeOf(r.Err) != messages.CodeBusy {
			t.Fatalf("a second one meanwhile got %+v", r)
		}
		at.open <- "done"
		c.result().want(t, "", "done")
	}
}

func TestNewestObservationWins(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("detect"))
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	ask := func(seq uint64, code messages.Code, body string) {
		t.Helper()
		req := c.request(messages.Inference, "detect")
		req.Key, req.Seq = "cam", seq
		c.queue(req, "frame")
		c.result().want(t, code, body)
	}
	ask(2, "", "frame")
	ask(2, "", "frame") // a redelivery
	ask(1, messages.CodeSuperseded, "")
	req := c.request(messages.Inference, "detect")
	req.Key, req.Seq = "cam", 1
	if r := c.do("edge", req, "frame"); messages.CodeOf(asError(r.Err)) != messages.CodeSuperseded {
		t.Errorf("%+v", r)
	}
	ask(3, "", "frame")
}

// TestExpiredInTheQueue: a request waits for longer than its time before any agent comes.
func TestExpiredInTheQueue(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	c := g.caller("robot")
	req := c.request(messages.Inference, "detect")
	req.Left = time.Millisecond
	c.queue(req, "frame")
	g.run("edge", nil, echo("detect"))
	g.place("edge", inference("detect"))
	a := c.result()
	a.want(t, messages.CodeExpired, "")
	if !strings.Contains(a.Err.Message, "in the queue") {
		t.Error(a.Err)
	}
	straight := c.request(messages.Inference, "detect")
	straight.Left = 0
	req = straight
	if r := c.do("edge", req, "frame"); messages.CodeOf(asError(r.Err)) != messages.CodeExpired {
		t.Errorf("%+v", r)
	}
}

// TestRunsOnceThoughSlow: a request that takes three ack waits is renewed and runs
// once, and so does one that is delivered a second time while it runs.
func TestRunsOnceThoughSlow(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	task := inference("detect")
	task.Concurrency = 2
	g.run("edge", nil, at.handler("detect"))
	g.place("edge", task)
	c := g.caller("robot")
	req := c.request(messages.Inference, "detect")
	c.queue(req, "x")
	at.in(t)
	again := req
	again.Attempt = 2
	if r := c.do("edge", again, "x"); r.Kind != messages.ReplyAccepted {
		t.Errorf("%+v", r)
	}
	slow := time.NewTimer(3 * bus.InferenceAckWait)
	select {
	case r := <-at.entered:
		t.Fatalf("%s runs twice", r.ID)
	case <-slow.C:
	}
	at.open <- "once"
	c.result().want(t, "", "once")
	// The queue is empty: nothing comes back.
	info := func() uint64 {
		s, err := g.bus.JS.Stream(g.ctx(), bus.StreamName(fleet, site, messages.Inference))
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.Msgs
	}
	natstest.Eventually(t, patience, "the queue to be empty", func() bool { return info() == 0 })
}

func TestErrorsOfHandlers(t *testing.T) {
	t.Parallel()
	g := newRig(t, natstest.MaxPayload(64<<10))
	fail := agent.Func("detect", func(ctx context.Context, r *agent.Request) ([]byte, error) {
		switch string(r.Body) {
		case "error":
			return nil, errors.New("no GPU")
		case "own":
			return nil, messages.Errorf(messages.CodeBadRequest, "not an image")
		case "panic":
			panic("nil image")
		case "large":
			return make([]byte, 100<<10), nil
		case "wait":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return []byte("good"), nil
	})
	g.run("edge", nil, fail)
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	for _, s := range []struct {
		body string
		left time.Duration
		code messages.Code
		text string
	}{
		{"error", patience, messages.CodeBackendFailed, `handler "detect" of agent "edge": no GPU`},
		{"own", patience, messages.CodeBadRequest, "not an image"},
		{"panic", patience, messages.CodeBackendFailed, "panicked in Serve: nil image"},
		{"large", patience, messages.CodePayloadTooLarge, "the result has 102400 bytes, the server's max_payload is 65536"},
		{"wait", 50 * time.Millisecond, messages.CodeDeadline, "did not finish"},
	} {
		req := c.request(messages.Inference, "detect")
		req.Left = s.left
		if r := c.do("edge", req, s.body); r.Kind == messages.ReplyResult && s.body != "large" {
			t.Errorf("%s: an error is the first word, which makes it a refusal: %+v", s.body, r)
		}
		a := c.result()
		a.want(t, s.code, "")
		if !strings.Contains(a.Err.Message, s.text) {
			t.Errorf("%s: %q does not say %q", s.body, a.Err.Message, s.text)
		}
	}
	// The agent is as good as before.
	c.queue(c.request(messages.Inference, "detect"), "")
	c.result().want(t, "", "good")
}

func TestProbeAndCancel(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	task := inference("detect")
	task.Concurrency = 2
	g.run("edge", nil, at.handler("detect"))
	inc := g.alive("edge")
	g.place("edge", task)
	c := g.caller("robot")
	one, two := c.request(messages.Inference, "detect"), c.request(messages.Inference, "detect")
	c.queue(one, "")
	c.do("edge", two, "")
	at.in(t)
	at.in(t)
	ask := func(kind messages.Kind, ids ...string) messages.Probe {
		t.Helper()
		s := g.bus.Subject(kind, site)
		s.Agent, s.Origin = "edge", "robot"
		data, err := messages.Encode(&messages.Probe{IDs: ids})
		if err != nil {
			t.Fatal(err)
		}
		m, err := g.nc.RequestWithContext(g.ctx(), s.String(), data)
		if err != nil {
			t.Fatal(err)
		}
		var p messages.Probe
		if err := messages.Decode(m.Data, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := ask(messages.KindProbe, "unknown", one.ID, two.ID); len(p.IDs) != 2 || p.Inc != inc {
		t.Errorf("%+v", p)
	}
	if p := ask(messages.KindCancel, "unknown", two.ID); len(p.IDs) != 1 || p.IDs[0] != two.ID {
		t.Errorf("%+v", p)
	}
	c.result().want(t, messages.CodeCanceled, "")
	at.open <- "one"
	c.result().want(t, "", "one")
	if p := ask(messages.KindProbe, one.ID, two.ID); len(p.IDs) != 0 {
		t.Errorf("%+v", p)
	}
}

func TestRefusesDirectRequests(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	train := inference("fit")
	train.Class = messages.Training
	g.run("edge", nil, echo("detect"), echo("fit"))
	g.place("edge", inference("detect"), train)
	c := g.caller("robot")
	for _, s := range []struct {
		class messages.Class
		task  string
		code  messages.Code
	}{
		{messages.Inference, "other", messages.CodeNotPlaced},
		{messages.Training, "detect", messages.CodeBadRequest},
		{messages.Training, "fit", messages.CodeBadRequest},
	} {
		if r := c.do("edge", c.request(s.class, s.task), ""); messages.CodeOf(asError(r.Err)) != s.code || r.Kind != messages.ReplyResult {
			t.Errorf("%s %s: %+v", s.class, s.task, r)
		}
	}
}
