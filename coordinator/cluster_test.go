package coordinator

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// In a cluster the server that keeps the lease stops: with the shipped ttl that costs no
// election of a coordinator, a task that is applied meanwhile is placed, and a hand-over
// afterwards moves nothing.
func TestClusterLosesTheLeaseServer(t *testing.T) {
	t.Parallel()
	cluster := natstest.StartCluster(t, 3)
	b, err := bus.New(cluster.Connect(t), "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	start := func(id string, node int) *runner {
		c := New(cluster.ConnectTo(t, node), Config{Fleet: "test", ID: id, Logger: slog.New(slog.DiscardHandler)})
		return launch(t, c)
	}
	// The buckets are there, and so is whoever keeps them, before anybody chooses where to
	// connect.
	for _, k := range bus.Buckets() {
		if _, err := b.KV(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	keeper := cluster.Leader(t, "KV_"+bus.BucketName("test", bus.LeaseKV))
	first := start("coordinator-1", (keeper+1)%3)
	term := first.awaitLead(t)
	start("coordinator-2", (keeper+2)%3)
	one := startAgent(t, cluster.ConnectTo(t, (keeper+1)%3), edge("edge-1"))
	operator, err := bus.New(cluster.ConnectTo(t, (keeper+2)%3), "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, operator, detect())
	routed(t, operator, "detect", "edge-1")
	cluster.StopServer(keeper)
	second := detect()
	second.Name = "second"
	natstest.Eventually(t, 2*within, "a task to be applied", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := Apply(ctx, operator, []messages.Task{second}, nil)
		return err == nil
	})
	natstest.Eventually(t, 2*within, "the task to be placed", func() bool { return one.runs("second/0") && one.runs("detect/0") })
	if r := first.tenure.Load(); r == nil || r.term != term {
		t.Errorf("the lead went from term %s, because a server stopped", term)
	}
	first.stop()
	natstest.Eventually(t, 2*within, "the second to lead", func() bool {
		st, err := ReadState(context.Background(), operator)
		return err == nil && term.Before(st.Term) && st.Leader == "coordinator-2"
	})
	natstest.Eventually(t, 2*within, "the document of its term", func() bool { return term.Before(one.newest().Term) })
	one.mu.Lock()
	defer one.mu.Unlock()
	for _, d := range one.docs {
		for _, r := range d.Replicas {
			if r.Drain {
				t.Errorf("document %+v: something was moved", d)
			}
		}
	}
}
