package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
)

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
