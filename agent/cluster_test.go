package agent_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// TestClusterLosesTheLeader: the server that leads the queue stops. The agent, which is
// connected to another one, loses its pulls and makes them again with the next leader.
func TestClusterLosesTheLeader(t *testing.T) {
	t.Parallel()
	cluster := natstest.StartCluster(t, 3)
	stream := bus.StreamName(fleet, site, messages.Inference)
	nc := cluster.Connect(t)
	b, err := bus.New(nc, fleet, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if _, err := b.Consumer(ctx, site, messages.Inference, "detect"); err != nil {
		t.Fatal(err)
	}
	leader := cluster.Leader(t, stream)

	g := &rig{t: t, nc: cluster.ConnectTo(t, (leader+1)%3), beats: make(chan *messages.Heartbeat, 1000)}
	if g.bus, err = bus.New(g.nc, fleet, 0); err != nil {
		t.Fatal(err)
	}
	// The document waits for the agent.
	g.put(bus.Placements, "edge", g.document("edge", placed(inference("detect"))))
	data := cluster.ConnectTo(t, (leader+2)%3)
	stopped := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}()
	cfg := agent.Config{Fleet: fleet, Environment: environment("edge"), HandoverWait: -1, Logger: quiet()}
	go func() { stopped <- agent.New(data, cfg, echo("detect")).Run(run) }()

	c := g.caller("robot")
	serve := func(body string) {
		t.Helper()
		c.queue(c.request(messages.Inference, "detect"), body)
		c.result().want(t, "", body)
	}
	serve("before")
	cluster.StopServer(leader)
	natstest.Eventually(t, patience, "the queue to take a request", func() bool {
		ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
		defer cancel()
		req := c.request(messages.Inference, "detect")
		s := c.bus.Subject(messages.KindWork, site)
		s.Class, s.Task, s.Origin, s.ID = req.Class, req.Task, req.Origin, req.ID
		_, err := g.bus.JS.PublishMsg(ctx, &nats.Msg{Subject: s.String(), Header: nats.Header(req.Header())})
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrNoResponders) {
			t.Log(err)
		}
		return err == nil
	})
	c.result()
}
