package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// The documents are lost while the lease is well: the leader goes on, and what every
// agent runs is saved again.
func TestLostPlacementsBucket(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	run(t, s.Connect(t), "coordinator-1").awaitLead(t)
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	if err := b.JS.DeleteKeyValue(t.Context(), bus.BucketName("test", bus.Placements)); err != nil {
		t.Fatal(err)
	}
	second := detect()
	second.Name = "second"
	apply(t, b, second)
	natstest.Eventually(t, within, "the second task on edge-1", func() bool { return one.runs("second/0") && one.runs("detect/0") })
	saved(t, b, "edge-1", func(doc messages.Placement) bool { return len(doc.Replicas) == 2 })
}

// The desired state is lost, and somebody applies a task before the coordinator finds
// out: the others are written again.
func TestDesiredIsRestoredBesideWhatIsNew(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	run(t, s.Connect(t), "coordinator-1").awaitLead(t)
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	if err := b.JS.DeleteKeyValue(t.Context(), bus.BucketName("test", bus.Desired)); err != nil {
		t.Fatal(err)
	}
	second := detect()
	second.Name = "second"
	apply(t, b, second)
	s.Restart(t) // so that the watcher begins anew at once
	natstest.Eventually(t, within, "both tasks on edge-1", func() bool { return one.runs("second/0") && one.runs("detect/0") })
	one.mu.Lock()
	defer one.mu.Unlock()
	for _, d := range one.docs {
		if len(d.Replicas) == 0 || d.Replicas[0].ID != "detect/0" || d.Replicas[0].Drain {
			t.Errorf("document %+v: something was stopped", d)
		}
	}
}

// Somebody writes nonsense over a task and over a registration: both go on as they were,
// also when the buckets are read anew.
func TestUnreadableEntriesChangeNothing(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	c := run(t, s.Connect(t), "coordinator-1")
	c.awaitLead(t)
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	for bucket, key := range map[bus.Bucket]string{bus.Desired: bus.KeyTask + "detect", bus.Agents: "edge-1"} {
		kv, err := b.KV(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), key, []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
	}
	read := func(times int) {
		t.Helper()
		natstest.Eventually(t, within, "the nonsense to be read", func() bool {
			n := c.garbage.Counts()
			return n["desired task.detect"] >= times && n["registration"] >= times
		})
	}
	read(1)
	s.Restart(t) // the watchers begin anew
	read(2)
	second := detect()
	second.Name = "second"
	natstest.Eventually(t, within, "the second task", func() bool {
		_, err := Apply(context.Background(), b, []messages.Task{second}, nil)
		return err == nil
	})
	natstest.Eventually(t, within, "the second task on edge-1", func() bool { return one.runs("second/0") })
	if !one.runs("detect/0") {
		t.Error("detect was stopped")
	}
}

// A save that begins when the tenure is over, because its goroutine stood still after it
// was allowed, writes nothing.
func TestNoSaveAfterTheTenure(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	kv, err := b.KV(t.Context(), bus.Placements)
	if err != nil {
		t.Fatal(err)
	}
	r := &reign{ended: make(chan struct{}), kv: map[bus.Bucket]bus.KV{bus.Placements: kv}}
	r.tenure.Store(&tenure{ttl: MinLeaseTTL, proven: time.Now().Add(-MinLeaseTTL)})
	p := newPerformer(&Coordinator{bus: b, log: slog.New(slog.DiscardHandler)})
	of := func([]byte) (edition, error) { return edition{}, nil }
	if _, err := p.save(t.Context(), r, bus.Placements, "edge-1", 0, edition{}, []byte("late"), of); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("saved, or another error: %v", err)
	}
	if _, err := kv.Get(t.Context(), "edge-1"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("something was written: %v", err)
	}
}
