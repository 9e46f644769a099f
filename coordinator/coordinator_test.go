package coordinator

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

func TestConfigIsChecked(t *testing.T) {
	s := natstest.Start(t)
	nc := s.Connect(t)
	for _, cfg := range []Config{
		{Fleet: "test"}, {Fleet: "te st", ID: "a"}, {Fleet: "test", ID: "a", LeaseTTL: time.Second},
		{Fleet: "test", ID: "a", LeaseTTL: 2500 * time.Millisecond},
	} {
		if err := New(nc, cfg).Run(t.Context()); messages.CodeOf(err) != messages.CodeBadRequest {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// An agent comes, gets its document, confirms it, and is routed to; when it is gone its
// replica moves; whoever asks is told.
func TestPlaceAndReplace(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	nc := s.Connect(t)
	b := newBus(t, nc)
	broadcast, err := nc.SubscribeSync(b.Subject(messages.KindRoutes, messages.FleetSite).String())
	if err != nil {
		t.Fatal(err)
	}
	if out := apply(t, b, detect()); len(out.Created) != 1 {
		t.Fatalf("%+v", out)
	}
	c := run(t, s.Connect(t), "coordinator-1")
	term := c.awaitLead(t)
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	doc := one.newest()
	if doc.Term != term || doc.Inc != one.inc || len(doc.Replicas) != 1 || doc.Replicas[0].Task.Name != "detect" {
		t.Fatalf("document %+v", doc)
	}
	saved(t, b, "edge-1", func(p messages.Placement) bool { return p.Rev == doc.Rev && p.Term == term })
	if _, err := broadcast.NextMsg(within); err != nil {
		t.Fatalf("routes: %v", err)
	}

	startAgent(t, s.Connect(t), edge("edge-2"))
	garbage(t, nc, b)
	natstest.Eventually(t, within, "both agents in the state", func() bool {
		st, err := ReadState(t.Context(), b)
		return err == nil && st.Leader == "coordinator-1" && st.Term == term && len(st.Agents) == 2 && len(st.Replicas) == 1 &&
			st.Agents[0].State == messages.AgentReady && st.Agents[1].State == messages.AgentReady && st.Bad["hb"] > 0
	})
	one.stop()
	routed(t, b, "detect", "edge-2")
	saved(t, b, "edge-1", func(p messages.Placement) bool { return len(p.Replicas) == 0 })
	events(t, b, "elected", "agent_ready", "replica_placed", "replica_ready", "agent_lost", "replica_moved")
}

// garbage sends what no agent of ours says.
func garbage(t *testing.T, nc *nats.Conn, b *bus.Bus) {
	t.Helper()
	s := b.Subject(messages.KindHeartbeat, messages.DefaultSite)
	s.Agent = "edge-9"
	good, err := messages.Encode(&messages.Heartbeat{Agent: "edge-1", State: messages.AgentDraining})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{nil, []byte("{}"), good} { // the last in another's name
		if err := nc.Publish(s.String(), data); err != nil {
			t.Fatal(err)
		}
	}
}

// saved waits until the saved document of an agent is as it should be.
func saved(t *testing.T, b *bus.Bus, agent string, ok func(messages.Placement) bool) {
	t.Helper()
	kv, err := b.KV(context.Background(), bus.Placements)
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, within, "the saved document of "+agent, func() bool {
		e, err := kv.Get(context.Background(), agent)
		if err != nil {
			return false
		}
		var doc messages.Placement
		if err := messages.Decode(e.Value(), &doc); err != nil {
			t.Fatal(err)
		}
		return ok(doc)
	})
}

// events waits until the event stream has all kinds.
func events(t *testing.T, b *bus.Bus, kinds ...string) {
	t.Helper()
	stream, err := b.JS.Stream(context.Background(), bus.EventStreamName("test"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		s := b.Subject(messages.KindEvent, messages.FleetSite)
		s.ID = k
		natstest.Eventually(t, within, "the event "+k, func() bool {
			m, err := stream.GetLastMsgForSubject(context.Background(), s.String())
			var e messages.Event
			return err == nil && messages.Decode(m.Data, &e) == nil && e.Kind == k && e.Reason != ""
		})
	}
}

// A coordinator that comes after another adopts what is placed and moves nothing.
func TestRestartMovesNothing(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	apply(t, b, detect())
	first := run(t, s.Connect(t), "coordinator-1")
	old := first.awaitLead(t)
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	startAgent(t, s.Connect(t), edge("edge-0")) // as good, and first by name
	first.stop()
	second := run(t, s.Connect(t), "coordinator-2")
	term := second.awaitLead(t)
	if !old.Before(term) {
		t.Fatalf("term %s follows %s", term, old)
	}
	natstest.Eventually(t, within, "the document under the new term", func() bool { return one.newest().Term == term })
	routed(t, b, "detect", "edge-1")
	for _, d := range one.docs {
		if len(d.Replicas) != 1 || d.Replicas[0].Drain {
			t.Errorf("document %+v: an election moved something", d)
		}
	}
	if _, err := ReadState(t.Context(), b); err != nil {
		t.Error(err)
	}
	second.stop()
	if _, err := ReadState(t.Context(), b); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("nobody leads: %v", err)
	}
}

// The leader is cut off and does not give its lease back: another leads with a higher
// term within ttl. When the first is back it follows.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	wire := s.Link("coordinator-1")
	first := run(t, s.Connect(t, wire.Dial()), "coordinator-1")
	old := first.awaitLead(t)
	second := run(t, s.Connect(t), "coordinator-2")
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	cut := time.Now()
	wire.Cut()
	term := second.awaitLead(t)
	if took := time.Since(cut); took > MinLeaseTTL+time.Second { // a second for a busy machine
		t.Errorf("another led after %v", took)
	}
	if !old.Before(term) {
		t.Errorf("term %s follows %s", term, old)
	}
	if first.leads() {
		t.Error("two lead")
	}
	natstest.Eventually(t, within, "the document under the new term", func() bool { return one.newest().Term == term })
	wire.Mend()
	natstest.Eventually(t, within, "coordinator-1 to be back", func() bool { return first.nc.IsConnected() })
	routed(t, b, "detect", "edge-1")
	if first.leads() || !second.leads() {
		t.Error("the first took the lead back")
	}
}

// A leader that is stopped gives its lease back, and another leads at once.
func TestHandOver(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	first := run(t, s.Connect(t), "coordinator-1")
	first.awaitLead(t)
	second := run(t, s.Connect(t), "coordinator-2")
	natstest.Eventually(t, within, "coordinator-2 to know the fleet", func() bool {
		select {
		case <-second.ready:
			return true
		default:
			return false
		}
	})
	begin := time.Now()
	first.stop()
	second.awaitLead(t)
	// In virtual time it takes none (testing/vtime); this machine may be busy.
	if took := time.Since(begin); took > retryEvery {
		t.Errorf("the hand-over took %v", took)
	}
}

// Somebody with a newer term has written a document: this leader steps down, and may
// only lead again under a newer term.
func TestConflictStepsDown(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	c := run(t, s.Connect(t), "coordinator-1")
	old := c.awaitLead(t)
	startAgent(t, s.Connect(t), edge("edge-1"))
	kv, err := b.KV(t.Context(), bus.Placements)
	if err != nil {
		t.Fatal(err)
	}
	theirs := messages.Placement{Agent: "edge-1", Term: messages.Term{Epoch: old.Epoch, Revision: old.Revision + 1}, Rev: 1}
	data, err := messages.Encode(&theirs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "edge-1", data); err != nil {
		t.Fatal(err)
	}
	apply(t, b, detect())
	natstest.Eventually(t, within, "a newer term", func() bool {
		r := c.tenure.Load()
		return r != nil && old.Before(r.term)
	})
	routed(t, b, "detect", "edge-1")
}

// The server restarts: the coordinator goes on.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	c := run(t, s.Connect(t), "coordinator-1")
	c.awaitLead(t)
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	s.Restart(t)
	natstest.Eventually(t, within, "the connections", func() bool { return b.Conn.IsConnected() && c.nc.IsConnected() && one.b.Conn.IsConnected() })
	natstest.Eventually(t, within, "a leader", func() bool { _, err := ReadState(t.Context(), b); return err == nil })
	second := detect()
	second.Name = "second"
	natstest.Eventually(t, within, "the second task", func() bool {
		_, err := Apply(t.Context(), b, []messages.Task{second}, nil)
		return err == nil
	})
	routed(t, b, "second", "edge-1")
	routed(t, b, "detect", "edge-1")
}

// The server lost everything that it had stored: what was asked for is written again,
// agents register again, and what runs goes on running.
func TestLostStorage(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	c := run(t, s.Connect(t), "coordinator-1")
	c.awaitLead(t)
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	for _, k := range bus.Buckets() {
		switch k {
		case bus.Jobs, bus.Safety, bus.DataKV, bus.Acks: // others make these
			continue
		}
		if err := b.JS.DeleteKeyValue(t.Context(), bus.BucketName("test", k)); err != nil {
			t.Fatal(err)
		}
	}
	s.Restart(t)
	natstest.Eventually(t, within, "the connections", func() bool { return b.Conn.IsConnected() && one.b.Conn.IsConnected() })
	natstest.Eventually(t, within, "the tasks", func() bool {
		d, err := ReadDesired(t.Context(), b)
		return err == nil && len(d.Tasks) == 1 && d.Tasks[0].Name == "detect"
	})
	one.register()
	routed(t, b, "detect", "edge-1")
	if !one.runs("detect/0") {
		t.Error("edge-1 does not run it any more")
	}
	for _, d := range one.docs {
		if len(d.Replicas) != 1 || d.Replicas[0].Drain {
			t.Errorf("document %+v: something was stopped", d)
		}
	}
}
