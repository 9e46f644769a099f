package lab

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// Fleet is the name of a lab's fleet.
const Fleet = "lab"

// Patience bounds every wait. It is far above what anything takes.
const Patience = 30 * time.Second

// Lab is the fleet.
type Lab struct {
	t     testing.TB
	s     *natstest.Server
	nc    *nats.Conn
	bus   *bus.Bus
	beats chan *messages.Heartbeat

	mu    sync.Mutex
	rev   uint64
	tasks map[string]messages.TaskRoute
}

// New starts a server with room for 8 MB in a message, and nothing else.
func New(t testing.TB) *Lab {
	t.Helper()
	s := natstest.Start(t, natstest.MaxPayload(8<<20))
	nc := s.Connect(t)
	b, err := bus.New(nc, Fleet, 1)
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{t: t, s: s, nc: nc, bus: b, beats: make(chan *messages.Heartbeat, 10_000), tasks: make(map[string]messages.TaskRoute)}
	if _, err := nc.Subscribe(b.Subject(messages.KindHeartbeat, messages.DefaultSite).String(), func(m *nats.Msg) {
		h := new(messages.Heartbeat)
		if messages.Decode(m.Data, h) == nil {
			select {
			case l.beats <- h:
			default:
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	l.save()
	return l
}

// Log is a logger that FLEETBUS_TEST_LOG=1 shows.
func Log() *slog.Logger {
	var w io.Writer = io.Discard
	if os.Getenv("FLEETBUS_TEST_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Conn is a connection to the server; it ends with the test.
func (l *Lab) Conn() *nats.Conn { return l.s.Connect(l.t) }

func (l *Lab) put(b bus.Bucket, key string, m messages.Message) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	kv, err := l.bus.KV(ctx, b)
	if err != nil {
		l.t.Fatal(err)
	}
	data, err := messages.Encode(m)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := kv.Put(ctx, key, data); err != nil {
		l.t.Fatal(err)
	}
}

// Place says which agents serve a task, the nearest first: that is what clients know.
// Without agents the task waits for room.
func (l *Lab) Place(t messages.Task, agents ...string) {
	l.t.Helper()
	route := messages.TaskRoute{Task: t.Normal()}
	for i, a := range agents {
		route.Replicas = append(route.Replicas, messages.Route{ID: messages.ReplicaID(t.Name, a), Agent: a, Tier: messages.Edge,
			Site: messages.DefaultSite, State: messages.ReplicaReady, Rank: i})
	}
	if len(agents) == 0 {
		route.Waiting = "no machine has room"
	}
	l.mu.Lock()
	l.tasks[t.Name] = route
	l.mu.Unlock()
	l.save()
}

// save writes the routes and tells everybody.
func (l *Lab) save() {
	l.t.Helper()
	l.mu.Lock()
	l.rev++
	routes := &messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: l.rev}
	for _, r := range l.tasks {
		routes.Tasks = append(routes.Tasks, r)
	}
	l.mu.Unlock()
	l.put(bus.RoutesKV, bus.KeyRoutes, routes)
	data, err := messages.Encode(routes)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.nc.Publish(l.bus.Subject(messages.KindRoutes, messages.FleetSite).String(), data); err != nil {
		l.t.Fatal(err)
	}
}

// Agent is a running agent.
type Agent struct {
	nc     *nats.Conn
	cancel context.CancelFunc
	done   chan struct{}
}

// Agent starts an agent that serves a task, and returns when its replica is ready. It ends
// with the test.
func (l *Lab) Agent(id string, t messages.Task, h agent.Handler) *Agent {
	l.t.Helper()
	a := l.Start(id, t, h)
	over := time.After(Patience)
	var last *messages.Heartbeat
	for {
		select {
		case b := <-l.beats:
			if b.Agent != id {
				continue
			}
			last = b
			for _, r := range b.Replicas {
				if r.State == messages.ReplicaReady {
					return a
				}
			}
		case <-over:
			l.t.Fatalf("agent %s is not ready; its last beat: %+v", id, last)
		}
	}
}

// Start is Agent without the wait.
func (l *Lab) Start(id string, t messages.Task, h agent.Handler) *Agent {
	l.t.Helper()
	l.mu.Lock()
	l.rev++
	rev := l.rev
	l.mu.Unlock()
	l.put(bus.Placements, id, &messages.Placement{Agent: id, Term: messages.Term{Epoch: 1, Revision: 1}, Rev: rev,
		Replicas: []messages.PlacedReplica{{ID: messages.ReplicaID(t.Name, id), Task: t.Normal()}}})
	env := messages.Environment{ID: id, Tier: messages.Edge, Capacity: messages.Resources{Compute: 100, Storage: 1000, Network: 100}, Latency: 1}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Agent{nc: l.Conn(), cancel: cancel, done: make(chan struct{})}
	run := agent.New(a.nc, agent.Config{Fleet: Fleet, Environment: env, HandoverWait: -1, Logger: Log()}, h)
	go func() {
		defer close(a.done)
		_ = run.Run(ctx) // a killed one ends with an error, which is what was asked for
	}()
	l.t.Cleanup(a.Stop)
	return a
}

// Stop ends the agent in good order.
func (a *Agent) Stop() {
	a.cancel()
	<-a.done
}

// Kill cuts the agent off, as its death does, and returns when it is gone.
func (a *Agent) Kill() {
	a.nc.Close()
	a.Stop()
}

// Client is a router's client that runs, and knows the routes. It ends with the test.
func (l *Lab) Client(origin string, change ...func(*router.Config)) *router.Client {
	l.t.Helper()
	cfg := router.Config{Fleet: Fleet, Origin: origin, Logger: Log()}
	for _, f := range change {
		f(&cfg)
	}
	c := router.NewClient(l.Conn(), cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx) // it ends with its context
	}()
	l.t.Cleanup(func() { cancel(); <-done })
	ready, stop := context.WithTimeout(ctx, Patience)
	defer stop()
	if err := c.Ready(ready); err != nil {
		l.t.Fatal(err)
	}
	return c
}
