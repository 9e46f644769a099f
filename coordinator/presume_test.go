package coordinator

import (
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

func overwrite(t *testing.T, b *bus.Bus, bucket bus.Bucket, key string) {
	t.Helper()
	kv, err := b.KV(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), key, []byte("written by a newer program")); err != nil {
		t.Fatal(err)
	}
}

// A coordinator that was not there when somebody wrote nonsense over a task, the settings
// and a registration goes on with what there was: nothing is stopped, nothing runs twice.
func TestUnreadableEntriesOfBefore(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	first := run(t, s.Connect(t), "coordinator-1")
	first.awaitLead(t)
	settings := messages.Settings{WeightLatency: 3, WeightCost: 1, Reserve: 0.3, Mode: messages.Static}
	old, gone := detect(), detect()
	old.Name, gone.Name = "old", "gone"
	if _, err := Apply(t.Context(), b, []messages.Task{detect(), old, gone}, &settings); err != nil {
		t.Fatal(err)
	}
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	all := func() bool { return one.runs("detect/0") && one.runs("old/0") }
	natstest.Eventually(t, within, "the tasks on edge-1", all)
	if err := DeleteTask(t.Context(), b, "gone"); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, within, "a task to be gone", func() bool { return !one.runs("gone/0") })
	routed(t, b, "old", "edge-1")
	two := startAgent(t, s.Connect(t), edge("edge-2"))
	for _, key := range []string{bus.KeyTask + "detect", bus.KeyTask + "gone", bus.KeySettings} {
		overwrite(t, b, bus.Desired, key)
	}
	for range 10 { // as often as versions are kept
		overwrite(t, b, bus.Desired, bus.KeyTask+"old")
	}
	first.stop()
	overwrite(t, b, bus.Agents, "edge-1")
	term := run(t, s.Connect(t), "coordinator-2").awaitLead(t)
	natstest.Eventually(t, within, "edge-1 to be given its document again", func() bool { return one.newest().Term == term && all() })
	d := stateOf(t, b)
	if d.Settings.WeightLatency != 3 || d.Settings.Mode != messages.Static || len(d.Tasks) != 2 {
		t.Errorf("settings %+v, tasks %+v", d.Settings, d.Tasks)
	}
	// What is applied next is planned when all that was there before is.
	next := detect()
	next.Name, next.Handler = "next", "other"
	apply(t, b, next)
	routed(t, b, "next", "edge-2")
	if !all() || two.runs("detect/0") || two.runs("old/0") {
		t.Errorf("edge-1 has %+v, edge-2 %+v", one.newest().Replicas, two.newest().Replicas)
	}
	one.mu.Lock()
	for _, doc := range one.docs {
		if doc.Term == term && len(doc.Replicas) != 2 {
			t.Errorf("document %+v", doc)
		}
	}
	one.mu.Unlock()
	one.register() // as it does when it is started again
	natstest.Eventually(t, within, "edge-1 to be what it is", func() bool {
		st := stateOf(t, b)
		return len(st.Agents) == 2 && st.Agents[0].Environment.Capacity.Compute == 100
	})
}

// stateOf reads the state, or fails.
func stateOf(t *testing.T, b *bus.Bus) messages.State {
	t.Helper()
	st, err := ReadState(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// What cannot be read can be taken back.
func TestRollbackOfNonsense(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	apply(t, b, detect())
	overwrite(t, b, bus.Desired, bus.KeyTask+"detect")
	from, target, err := Rollback(t.Context(), b, "detect", 0)
	if err != nil || from.Revision != 2 || target.Revision != 1 {
		t.Fatalf("from %+v to %+v: %v", from, target, err)
	}
	d, err := ReadDesired(t.Context(), b)
	if err != nil || len(d.Tasks) != 1 || d.Tasks[0].Demand != detect().Demand {
		t.Errorf("%+v, %v", d, err)
	}
}
