package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// runOn starts an agent whose data goes over a link, and whose heartbeats do not.
func (g *rig) runOn(l *natstest.Link, id string, handlers ...agent.Handler) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cfg := agent.Config{Fleet: fleet, Environment: environment(id), BeatConn: g.s.Connect(g.t), HandoverWait: -1, DrainTimeout: time.Second, Logger: quiet()}
	a := agent.New(g.s.Connect(g.t, l.Dial()), cfg, handlers...)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	g.t.Cleanup(func() {
		l.Mend()
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
	})
}

// TestHeartbeatsOnAConnectionOfTheirOwn: they go on while the data connection is cut,
// and say how long ago it was last heard.
func TestHeartbeatsOnAConnectionOfTheirOwn(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	wifi := g.s.Link("data")
	g.runOn(wifi, "edge", echo("a"))
	g.until("a round trip", func(h *messages.Heartbeat) bool { return h.RTT > 0 })
	wifi.Cut()
	g.until("an old round trip", func(h *messages.Heartbeat) bool { return h.DataAge > 1500 })
	wifi.Mend()
	g.until("a new round trip", func(h *messages.Heartbeat) bool { return h.DataAge < 1200 })
}

// TestLateCommandIsNotRun: a command waited in a network that was down for longer than
// the command's time. Nothing in the message says so.
func TestLateCommandIsNotRun(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	wifi := g.s.Link("arm")
	at := newGate()
	g.runOn(wifi, "arm", at.handler("grasp"))
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	wifi.Cut()
	req := c.command(inc, "e", 1)
	req.Left = time.Second
	answered := make(chan messages.Reply, 1)
	go func() { answered <- c.do("arm", req, "") }()
	g.until("a link that was silent for over a second", func(h *messages.Heartbeat) bool { return h.DataAge > 1100 })
	wifi.Mend()
	if r := <-answered; messages.CodeOf(asError(r.Err)) != messages.CodeExpired {
		t.Errorf("%+v", r)
	}
	// When a ping was answered commands are fresh again.
	g.until("a live link", func(h *messages.Heartbeat) bool { return h.DataAge < 600 })
	natstest.Eventually(t, patience, "a fresh command to be accepted", func() bool {
		return c.do("arm", c.command(inc, "e", 2), "").Kind == messages.ReplyAccepted
	})
	at.in(t)
	at.open <- "held"
	c.result().want(t, "", "held")
}

// TestMovesWhenItsAgentIsCutOff: the queue gives a request to the next agent when the
// first one does not renew it.
func TestMovesWhenItsAgentIsCutOff(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	wifi := g.s.Link("first")
	first, second := newGate(), newGate()
	g.runOn(wifi, "first", first.handler("detect"))
	g.place("first", inference("detect"))
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "")
	first.in(t)
	g.run("second", nil, second.handler("detect"))
	g.place("second", inference("detect"))
	wifi.Cut()
	second.in(t)
	second.open <- "second"
	if a := c.result(); a.Agent != "second" {
		t.Errorf("%+v", a)
	}
	first.open <- "late"
	wifi.Mend()
	if a := c.result(); a.Agent != "first" { // the client drops it
		t.Errorf("%+v", a)
	}
}

// TestResultWaitsForTheConnection: it is finished while there is none.
func TestResultWaitsForTheConnection(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	wifi := g.s.Link("edge")
	lost := make(chan struct{}, 10)
	at := newGate()
	ctx, cancel := context.WithCancel(context.Background())
	nc := g.s.Connect(t, wifi.Dial(), nats.DisconnectErrHandler(func(*nats.Conn, error) { lost <- struct{}{} }))
	ended := make(chan agent.ServeEvent, 10)
	cfg := agent.Config{Fleet: fleet, Environment: environment("edge"), HandoverWait: -1, Logger: quiet(), OnServe: func(e agent.ServeEvent) { ended <- e }}
	done := make(chan error, 1)
	go func() { done <- agent.New(nc, cfg, at.handler("detect")).Run(ctx) }()
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	c.do("edge", c.request(messages.Inference, "detect"), "")
	at.in(t)
	wifi.Break()
	<-lost
	at.open <- "kept"
	for e := range ended {
		if !e.Begin {
			break
		}
	}
	wifi.Mend()
	c.result().want(t, "", "kept")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
