package natstest_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// A cluster of three goes on without one, and takes it back.
func TestClusterWithoutOneServer(t *testing.T) {
	noLeaks(t)
	c := natstest.StartCluster(t, 3)
	if c.Size() != 3 {
		t.Fatalf("size %d, want 3", c.Size())
	}
	nc := c.Connect(t)
	if nc.ConnectedClusterName() == "" {
		t.Error("the server names no cluster")
	}
	j := js(t, nc)
	must[jetstream.Stream](t)(j.CreateStream(ctx(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3}))
	must[*jetstream.PubAck](t)(j.Publish(ctx(t), "s", nil))

	leader := c.Leader(t, "S")
	c.StopServer(leader)
	// An attempt that reaches a leader in the moment of its end is never answered, so
	// each has to be short.
	publish := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		_, err := j.Publish(ctx, "s", nil)
		return err == nil
	}
	natstest.Eventually(t, patience, "a publish without server "+c.URL(leader), publish)
	if now := c.Leader(t, "S"); now == leader {
		t.Errorf("server %d leads the stream, but was stopped", now)
	}

	c.StartServer(t, leader)
	other := (leader + 1) % c.Size()
	c.StopServer(other)
	natstest.Eventually(t, patience, "a publish without server "+c.URL(other), publish)
	stream := must[jetstream.Stream](t)(j.Stream(ctx(t), "S"))
	info := must[*jetstream.StreamInfo](t)(stream.Info(ctx(t)))
	if info.State.Msgs < 3 {
		t.Errorf("%d messages, want the 3 that were acknowledged", info.State.Msgs)
	}
	if l := c.LeaderOfAll(t); l == other {
		t.Errorf("server %d leads the cluster, but was stopped", l)
	}
}

// A client whose link breaks comes back to a server of the cluster, with the token.
func TestClusterLink(t *testing.T) {
	noLeaks(t)
	c := natstest.StartCluster(t, 3, natstest.Token("secret"))
	l := c.Link("wifi")
	nc := c.Connect(t, l.Dial())
	l.Break()
	natstest.Eventually(t, patience, "the connection to be lost", func() bool { return !nc.IsConnected() })
	l.Mend()
	natstest.Eventually(t, patience, "the connection to be back", nc.IsConnected)
	if _, err := nc.RTT(); err != nil {
		t.Error(err)
	}
	if own := c.ConnectTo(t, 1); own.ConnectedServerName() != "natstest-1" {
		t.Errorf("connected to %s, want natstest-1", own.ConnectedServerName())
	}
}
