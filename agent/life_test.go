package agent_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

func TestNewerIncarnationWins(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	older := g.run("edge", func(c *agent.Config) { c.Host = "old-box" }, echo("detect"))
	first := g.alive("edge")
	g.run("edge", func(c *agent.Config) { c.Host = "new-box" }, echo("detect"))
	err := older.wait()
	second := g.until("a new incarnation", func(h *messages.Heartbeat) bool { return h.Inc != first }).Inc
	if messages.CodeOf(err) != messages.CodeConflict {
		t.Fatal(err)
	}
	for _, part := range []string{first.String(), second.String(), "old-box", "new-box"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "x")
	c.result().want(t, "", "x")
}

// TestDocumentForANewerIncarnation: the claim was missed; the coordinator knows better.
func TestDocumentForANewerIncarnation(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("edge", nil, echo("detect"))
	inc := g.alive("edge")
	doc := g.document("edge", nil)
	doc.Inc = messages.Incarnation{Epoch: inc.Epoch, Revision: inc.Revision + 1}
	if ack := g.send(doc); ack.Error == "" || ack.Rev != 0 {
		t.Errorf("%+v", ack)
	}
	if err := p.wait(); messages.CodeOf(err) != messages.CodeConflict {
		t.Error(err)
	}
}

// TestServesWithoutACoordinator: the document lies in the bucket, nobody sends it.
func TestServesWithoutACoordinator(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	doc := g.document("edge", placed(inference("detect"), action("grasp")))
	doc.Term = messages.Term{Epoch: 7, Revision: 9}
	g.put(bus.Placements, "edge", doc)
	g.run("edge", nil, echo("detect"), echo("grasp"))
	h := g.until("both replicas", func(h *messages.Heartbeat) bool {
		return len(h.Replicas) == 2 && h.Replicas[0].State == messages.ReplicaReady && h.Replicas[1].State == messages.ReplicaReady
	})
	if h.Term != doc.Term || h.Rev != doc.Rev || h.Capacity != environment("edge").Capacity {
		t.Errorf("%+v", h)
	}
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "queued")
	c.result().want(t, "", "queued")
	c.do("edge", c.request(messages.Inference, "detect"), "direct")
	c.result().want(t, "", "direct")
	c.do("edge", c.command(h.Inc, "e", 1), "act")
	c.result().want(t, "", "act")
}

// TestServerRestart: the server comes back without its memory streams; the agent
// announces itself, makes them again and serves.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("detect"))
	inc := g.alive("edge")
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "before")
	c.result().want(t, "", "before")

	g.s.Restart(t)
	natstest.Eventually(t, patience, "the test to reconnect", g.nc.IsConnected)
	g.bus.Forget()
	for len(g.beats) > 0 {
		<-g.beats
	}
	h := g.until("the agent again", func(h *messages.Heartbeat) bool { return h.Agent == "edge" })
	if h.Inc != inc || len(h.Replicas) != 1 || h.Replicas[0].State != messages.ReplicaReady {
		t.Errorf("%+v", h)
	}
	c.queue(c.request(messages.Inference, "detect"), "after")
	c.result().want(t, "", "after")
	c.do("edge", c.request(messages.Inference, "detect"), "direct")
	c.result().want(t, "", "direct")
}

// TestStreamIsDeleted: the connection stays, stream and consumer go.
func TestStreamIsDeleted(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("detect"))
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	for _, drop := range []func() error{
		func() error { return g.bus.DeleteConsumer(g.ctx(), site, messages.Inference, "detect") },
		func() error {
			return g.bus.JS.DeleteStream(g.ctx(), bus.StreamName(fleet, site, messages.Inference))
		},
	} {
		c.queue(c.request(messages.Inference, "detect"), "x")
		c.result().want(t, "", "x")
		if err := drop(); err != nil {
			t.Fatal(err)
		}
		g.bus.Forget()
	}
	c.queue(c.request(messages.Inference, "detect"), "y")
	c.result().want(t, "", "y")
}

// TestRegistersAgain: the server has lost its storage while the agent was cut off.
func TestRegistersAgain(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("detect"))
	inc := g.alive("edge")
	if err := g.bus.JS.DeleteKeyValue(g.ctx(), bus.BucketName(fleet, bus.Agents)); err != nil {
		t.Fatal(err)
	}
	g.s.Restart(t)
	natstest.Eventually(t, patience, "the test to reconnect", g.nc.IsConnected)
	h := g.until("a newer incarnation", func(h *messages.Heartbeat) bool { return inc.Before(h.Inc) })
	kv, err := g.bus.KV(g.ctx(), bus.Agents)
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(g.ctx(), "edge")
	if err != nil {
		t.Fatal(err)
	}
	var reg messages.Registration
	if err := messages.Decode(e.Value(), &reg); err != nil || reg.Environment.ID != "edge" || reg.Environment.Handlers[0] != "detect" {
		t.Errorf("%+v %v", reg, err)
	}
	if e.Revision() != h.Inc.Revision || kv.Epoch != h.Inc.Epoch {
		t.Errorf("registration %d of %d, heartbeat %s", e.Revision(), kv.Epoch, h.Inc)
	}
}

// TestMissedClaim: another process registered while this one was cut off.
func TestMissedClaim(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("edge", nil, echo("detect"))
	g.alive("edge")
	g.put(bus.Agents, "edge", &messages.Registration{Environment: environment("edge")})
	g.s.Restart(t)
	if err := p.wait(); messages.CodeOf(err) != messages.CodeConflict {
		t.Error(err)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("a"), echo("b"))
	g.alive("edge")
	one := g.document("edge", placed(inference("a")))
	if ack := g.send(one); ack.Error != "" || ack.Rev != one.Rev || ack.Term != one.Term || len(ack.Replicas) != 1 || ack.Agent != "edge" {
		t.Errorf("%+v", ack)
	}
	g.replicaIs("edge", "a/0", messages.ReplicaReady)

	two := g.document("edge", placed(inference("a"), inference("b")))
	g.send(two)
	if ack := g.send(one); ack.Error == "" || ack.Rev != two.Rev || len(ack.Replicas) != 2 {
		t.Errorf("an older document: %+v", ack)
	}
	if ack := g.send(two); ack.Error != "" || ack.Rev != two.Rev {
		t.Errorf("the same again: %+v", ack)
	}
	newTerm := &messages.Placement{Agent: "edge", Term: messages.Term{Epoch: 1, Revision: 2}, Rev: 1, Replicas: placed(inference("a"), inference("b"))}
	newTerm.Replicas[0].Drain = true
	if ack := g.send(newTerm); ack.Error != "" || ack.Rev != 1 {
		t.Errorf("a newer term: %+v", ack)
	}
	g.replicaIs("edge", "a/0", messages.ReplicaStopped)
	if ack := g.send(g.document("edge", nil)); ack.Error == "" {
		t.Error("the old term was accepted")
	}
	newTerm.Rev, newTerm.Replicas[0].Drain = 2, false
	g.send(newTerm)
	g.replicaIs("edge", "a/0", messages.ReplicaReady)
	newTerm.Rev, newTerm.Replicas = 3, nil
	g.send(newTerm)
	g.until("no replicas", func(h *messages.Heartbeat) bool { return h.Rev == 3 && len(h.Replicas) == 0 })
}

// TestChangedServiceIsOpenedAgain: the replica stays, its task has more slots.
func TestChangedServiceIsOpenedAgain(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	g.run("edge", nil, at.handler("a"))
	task := inference("a")
	g.place("edge", task)
	task.Concurrency = 2
	g.send(g.document("edge", placed(task)))
	c := g.caller("robot")
	for range 2 {
		c.queue(c.request(messages.Inference, "a"), "")
	}
	at.in(t)
	at.in(t) // both at once
	at.open <- ""
	at.open <- ""
	c.result()
	c.result()
}

// TestDrain: a request runs when the agent is told to stop. It is finished, its answer
// arrives, the goodbye comes last, and nothing of the agent is left.
func TestDrain(t *testing.T) {
	// Not parallel: it looks at all goroutines.
	g := newRig(t)
	at := newGate()
	c := g.caller("robot")
	byes := make(chan messages.Goodbye, 10)
	g.subscribe(g.bus.Subject(messages.KindGoodbye, site).String(), func(m *nats.Msg) {
		var b messages.Goodbye
		if err := messages.Decode(m.Data, &b); err != nil {
			t.Error(err)
		}
		byes <- b
	})
	p := g.run("edge", nil, at.handler("detect"), at.handler("fit"))
	inc := g.alive("edge")
	g.place("edge", inference("detect"), training("fit"))
	c.queue(c.request(messages.Inference, "detect"), "")
	at.in(t)
	p.cancel()
	g.until("draining", func(h *messages.Heartbeat) bool { return h.State == messages.AgentDraining })
	natstest.Eventually(t, patience, "direct requests to be refused", func() bool {
		return messages.CodeOf(asError(c.do("edge", c.request(messages.Inference, "detect"), "").Err)) == messages.CodeDraining
	})
	at.open <- "finished"
	c.result().want(t, "", "finished")
	if b := <-byes; b.Agent != "edge" || b.Inc != inc || b.Reason != "drained" {
		t.Errorf("%+v", b)
	}
	if err := p.wait(); err != nil {
		t.Error(err)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for s := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(s, "fleetbus/agent.(") {
			t.Errorf("left behind: %s", s)
		}
	}
	select {
	case h := <-g.beats:
		for ; h.State == messages.AgentDraining && len(g.beats) > 0; h = <-g.beats {
		}
		if h.State != messages.AgentDraining {
			t.Errorf("a beat after the goodbye: %+v", h)
		}
	default:
	}
}

// TestHandOver: a draining agent serves until its document is empty.
func TestHandOver(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("edge", func(c *agent.Config) { c.HandoverWait, c.DrainTimeout = time.Hour, 2*time.Hour }, echo("detect"))
	g.place("edge", inference("detect"))
	p.cancel()
	g.until("draining", func(h *messages.Heartbeat) bool { return h.State == messages.AgentDraining })
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "still")
	c.result().want(t, "", "still")
	g.send(g.document("edge", nil))
	if err := p.wait(); err != nil {
		t.Error(err)
	}
}

// TestHandlerThatDoesNotStop is named in the error, and does not hold the agent up.
func TestHandlerThatDoesNotStop(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	entered, end := make(chan struct{}), make(chan struct{})
	defer close(end) // only the test must not leave it behind
	deaf := agent.Func("deaf", func(context.Context, *agent.Request) ([]byte, error) {
		close(entered)
		<-end
		return nil, nil
	})
	p := g.run("edge", func(c *agent.Config) { c.DrainTimeout = 200 * time.Millisecond }, deaf)
	g.place("edge", inference("deaf"))
	c := g.caller("robot")
	req := c.request(messages.Inference, "deaf")
	c.queue(req, "")
	<-entered
	err := p.stop()
	if messages.CodeOf(err) != messages.CodeBackendFailed || !strings.Contains(err.Error(), `handler "deaf" with request `+req.ID) {
		t.Error(err)
	}
}

// fragile is a handler whose first opening fails and whose first server dies.
type fragile struct {
	opened chan int
	die    chan struct{}
	n      int
}

type fragileServer struct {
	agent.Server
	done chan struct{}
}

func (f *fragile) Name() string { return "fragile" }
func (f *fragile) Open(ctx context.Context, o agent.Open) (agent.Server, error) {
	f.n++
	f.opened <- f.n
	switch f.n {
	case 1:
		return nil, errors.New("no weights")
	case 2:
		panic("bad weights")
	}
	inner, err := echo("fragile").Open(ctx, o)
	s := fragileServer{inner, f.die}
	if f.n > 3 {
		s.done = nil
	}
	return s, err
}
func (s fragileServer) Done() <-chan struct{} { return s.done }
func (s fragileServer) Err() error            { return errors.New("segmentation fault") }

func TestHandlerIsOpenedAgain(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	f := &fragile{opened: make(chan int, 10), die: make(chan struct{})}
	g.run("edge", nil, f)
	if ack := g.send(g.document("edge", placed(inference("fragile")))); ack.Error != "" {
		t.Fatal(ack.Error)
	}
	if s := g.replicaIs("edge", "fragile/0", messages.ReplicaFailed); s.Reason != "no weights" {
		t.Errorf("%+v", s)
	}
	g.until("a panic", func(h *messages.Heartbeat) bool {
		return len(h.Replicas) == 1 && strings.Contains(h.Replicas[0].Reason, "panicked in Open: bad weights")
	})
	g.replicaIs("edge", "fragile/0", messages.ReplicaReady)
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "fragile"), "x")
	c.result().want(t, "", "x")
	close(f.die)
	if s := g.replicaIs("edge", "fragile/0", messages.ReplicaFailed); !strings.Contains(s.Reason, "segmentation fault") {
		t.Errorf("%+v", s)
	}
	if r := c.do("edge", c.request(messages.Inference, "fragile"), ""); messages.CodeOf(asError(r.Err)) != messages.CodeNotPlaced {
		t.Errorf("%+v", r)
	}
	g.replicaIs("edge", "fragile/0", messages.ReplicaReady)
	c.queue(c.request(messages.Inference, "fragile"), "y")
	c.result().want(t, "", "y")
}

func TestMissingHandlerIsNamed(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("a"), echo("b"))
	g.send(g.document("edge", placed(inference("c"))))
	if s := g.replicaIs("edge", "c/0", messages.ReplicaFailed); s.Reason != `task "c" asks for handler "c"; this agent has a, b` {
		t.Errorf("%+v", s)
	}
}

func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	good := agent.Config{Fleet: fleet, Environment: environment("edge")}
	bad := func(change func(*agent.Config)) agent.Config { c := good; change(&c); return c }
	for _, c := range []struct {
		nc       *nats.Conn
		cfg      agent.Config
		handlers []agent.Handler
		text     string
	}{
		{nil, good, []agent.Handler{echo("a")}, "has no connection"},
		{g.nc, good, nil, "has no handler"},
		{g.nc, good, []agent.Handler{nil}, "handler 1 is nil"},
		{g.nc, good, []agent.Handler{echo("a"), echo("a")}, `handler "a" is given twice`},
		{g.nc, good, []agent.Handler{echo("a.b")}, `handler name "a.b"`},
		{g.nc, bad(func(c *agent.Config) { c.Fleet = "" }), []agent.Handler{echo("a")}, "fleet name"},
		{g.nc, bad(func(c *agent.Config) { c.Environment.Tier = "moon" }), []agent.Handler{echo("a")}, "environment.tier"},
		{g.nc, bad(func(c *agent.Config) { c.DrainTimeout = -1 }), []agent.Handler{echo("a")}, "drain timeout"},
	} {
		err := agent.New(c.nc, c.cfg, c.handlers...).Run(t.Context())
		if messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v does not say %q", err, c.text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := agent.New(g.nc, good, echo("a"))
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := a.Run(ctx); messages.CodeOf(err) != messages.CodeConflict {
		t.Errorf("a second Run: %v", err)
	}
}

func TestClosedConnectionEndsRun(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("edge", nil, echo("a"))
	g.place("edge", inference("a"))
	p.nc.Close()
	if err := p.wait(); messages.CodeOf(err) != messages.CodeUnavailable || !strings.Contains(err.Error(), "MaxReconnects(-1)") {
		t.Error(err)
	}
}

func TestHeartbeatsOnAConnectionOfTheirOwn(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	wifi := g.s.Link("data")
	beats := g.s.Connect(t)
	ctx, cancel := context.WithCancel(context.Background())
	a := agent.New(g.s.Connect(t, wifi.Dial()), agent.Config{Fleet: fleet, Environment: environment("edge"), BeatConn: beats, HandoverWait: -1, DrainTimeout: time.Second, Logger: quiet(),
		Foreign: func() messages.Resources { return messages.Resources{Compute: 3} }}, echo("a"))
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	g.until("a round trip", func(h *messages.Heartbeat) bool { return h.RTT > 0 && h.Foreign.Compute == 3 })
	wifi.Cut()
	// The beats go on and say how old the last round trip of the data connection is.
	g.until("an old round trip", func(h *messages.Heartbeat) bool { return h.DataAge > 1500 })
	wifi.Mend()
	g.until("a new round trip", func(h *messages.Heartbeat) bool { return h.DataAge < 1200 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOnServeTellsBeginAndEnd(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	events := make(chan agent.ServeEvent, 10)
	g.run("arm", func(c *agent.Config) { c.OnServe = func(e agent.ServeEvent) { events <- e } }, agent.Func("grasp", func(context.Context, *agent.Request) ([]byte, error) {
		return nil, errors.New("slipped")
	}))
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	req := c.command(inc, "e", 4)
	c.do("arm", req, "body")
	c.result()
	begin, end := <-events, <-events
	if !begin.Begin || begin.ID != req.ID || begin.Task != "grasp" || begin.Class != messages.Action || begin.Agent != "arm" || begin.Inc != inc ||
		begin.Origin != "desk" || begin.Episode != "e" || begin.Seq != 4 || begin.Attempt != 1 || begin.Replica != "grasp/0" || string(begin.Body) != "body" || begin.Code != "" {
		t.Errorf("%+v", begin)
	}
	if end.Begin || end.ID != req.ID || end.Code != messages.CodeBackendFailed {
		t.Errorf("%+v", end)
	}
}
