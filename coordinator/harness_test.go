package coordinator

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

const server = "github.com/nats-io/nats-server/v2/server"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The embedded server's clock for access times outlives it by design.
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
	)
}

const within = 15 * time.Second // for whatever a busy machine makes slow

// quick finds out about a loss in a second; the other defaults stand.
var quick = placement.Calm{LostAfter: time.Second, Beat: 400 * time.Millisecond, Dwell: time.Second, Cycle: time.Second}

// runner is a coordinator that runs.
type runner struct {
	*Coordinator
	stop func()
}

// run starts a coordinator with the shortest lease. It ends with the test, or at stop.
func run(t *testing.T, nc *nats.Conn, id string, mods ...func(*Coordinator)) *runner {
	t.Helper()
	c := New(nc, Config{Fleet: "test", ID: id, LeaseTTL: MinLeaseTTL, Logger: slog.New(slog.DiscardHandler)})
	c.calm = quick
	for _, mod := range mods {
		mod(c)
	}
	return launch(t, c)
}

// launch runs a coordinator. It ends with the test, or at stop.
func launch(t *testing.T, c *Coordinator) *runner {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return &runner{c, stop}
}

func (r *runner) leads() bool { return r.tenure.Load() != nil }

func (r *runner) awaitLead(t *testing.T) messages.Term {
	t.Helper()
	natstest.Eventually(t, within, r.cfg.ID+" to lead", r.leads)
	return r.tenure.Load().term
}

func newBus(t *testing.T, nc *nats.Conn) *bus.Bus {
	t.Helper()
	b, err := bus.New(nc, "test", 1)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// agentOf is an agent as the coordinator sees one: it registers, beats, and answers
// placements; a replica is ready as soon as it is placed.
type agentOf struct {
	t    *testing.T
	b    *bus.Bus
	env  messages.Environment
	inc  messages.Incarnation
	stop func()
	mute atomic.Bool              // it does not beat
	sees func(messages.Placement) // every document that comes, before it is answered; may be nil

	mu   sync.Mutex
	seq  uint64
	docs []messages.Placement // all that were applied
}

func startAgent(t *testing.T, nc *nats.Conn, env messages.Environment, mods ...func(*agentOf)) *agentOf {
	t.Helper()
	a := &agentOf{t: t, b: newBus(t, nc), env: env.Normal()}
	for _, mod := range mods {
		mod(a)
	}
	a.register()
	s := a.b.Subject(messages.KindPlace, a.env.Site)
	s.Agent = env.ID
	sub, err := nc.Subscribe(s.String(), a.place)
	if err != nil {
		t.Fatal(err)
	}
	s = a.b.Subject(messages.KindProbe, a.env.Site)
	s.Agent = env.ID
	probes, err := nc.Subscribe(s.String(), func(m *nats.Msg) {
		if data, err := messages.Encode(&messages.Probe{}); err == nil {
			_ = m.Respond(data)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var beats sync.WaitGroup
	beats.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			a.beat()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	a.stop = sync.OnceFunc(func() {
		cancel()
		beats.Wait()
		_ = sub.Unsubscribe()
		_ = probes.Unsubscribe()
	})
	t.Cleanup(a.stop)
	return a
}

// register begins a new incarnation, as an agent does that finds its registration gone.
func (a *agentOf) register() {
	a.t.Helper()
	kv, err := a.b.KV(context.Background(), bus.Agents)
	if err != nil {
		a.t.Fatal(err)
	}
	data, err := messages.Encode(&messages.Registration{Environment: a.env})
	if err != nil {
		a.t.Fatal(err)
	}
	rev, err := kv.Put(context.Background(), a.env.ID, data)
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inc = messages.Incarnation{Epoch: kv.Epoch, Revision: rev}
}

func (a *agentOf) place(m *nats.Msg) {
	var doc messages.Placement
	if err := messages.Decode(m.Data, &doc); err != nil {
		a.t.Errorf("placement: %v", err)
		return
	}
	if a.sees != nil {
		a.sees(doc)
	}
	a.mu.Lock()
	ack := messages.PlacementAck{Agent: a.env.ID, Inc: a.inc}
	if held := a.held(); doc.Newer(held.Term, held.Rev) {
		a.docs = append(a.docs, doc)
	} else {
		ack.Error = "not newer"
	}
	ack.Term, ack.Rev, ack.Replicas = a.held().Term, a.held().Rev, a.statuses()
	a.mu.Unlock()
	data, err := messages.Encode(&ack)
	if err != nil {
		a.t.Error(err)
		return
	}
	_ = m.Respond(data)
	a.beat()
}

func (a *agentOf) held() messages.Placement {
	if len(a.docs) == 0 {
		return messages.Placement{}
	}
	return a.docs[len(a.docs)-1]
}

func (a *agentOf) statuses() (out []messages.ReplicaStatus) {
	for _, r := range a.held().Replicas {
		st := messages.ReplicaStatus{ID: r.ID, State: messages.ReplicaReady}
		if r.Drain {
			st.State = messages.ReplicaStopped
		}
		out = append(out, st)
	}
	return out
}

func (a *agentOf) beat() {
	if a.mute.Load() {
		return
	}
	a.mu.Lock()
	a.seq++
	hb := messages.Heartbeat{Agent: a.env.ID, Inc: a.inc, Seq: a.seq, State: messages.AgentReady, Capacity: a.env.Capacity,
		Term: a.held().Term, Rev: a.held().Rev, Replicas: a.statuses()}
	a.mu.Unlock()
	data, err := messages.Encode(&hb)
	if err != nil {
		a.t.Error(err)
		return
	}
	s := a.b.Subject(messages.KindHeartbeat, a.env.Site)
	s.Agent = a.env.ID
	_ = a.b.Conn.Publish(s.String(), data)
}

// newest is the document that the agent holds.
func (a *agentOf) newest() messages.Placement {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held()
}

func (a *agentOf) runs(replica string) bool {
	for _, r := range a.newest().Replicas {
		if r.ID == replica && !r.Drain {
			return true
		}
	}
	return false
}

func edge(id string) messages.Environment {
	return messages.Environment{ID: id, Tier: messages.Edge, Latency: 10, Handlers: []string{messages.AnyHandler},
		Capacity: messages.Resources{Compute: 100, Storage: 100, Network: 100}}
}

func detect() messages.Task {
	return messages.Task{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: 10, Storage: 1, Network: 1}}
}

func apply(t *testing.T, b *bus.Bus, tasks ...messages.Task) Applied {
	t.Helper()
	out, err := Apply(context.Background(), b, tasks, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// routed waits until the routes say that a task is ready on an agent.
func routed(t *testing.T, b *bus.Bus, task, agent string) {
	t.Helper()
	kv, err := b.KV(context.Background(), bus.RoutesKV)
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, within, task+" to be ready on "+agent, func() bool {
		e, err := kv.Get(context.Background(), bus.KeyRoutes)
		if err != nil {
			return false
		}
		var r messages.Routes
		if err := messages.Decode(e.Value(), &r); err != nil {
			t.Fatal(err)
		}
		route, ok := r.Find(task)
		return ok && len(route.Replicas) == 1 && route.Replicas[0].Agent == agent && route.Replicas[0].State == messages.ReplicaReady
	})
}
