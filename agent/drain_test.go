package agent_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

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
