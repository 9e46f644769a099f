package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// balanceReady bounds the start of a fleet: far above what it takes.
const balanceReady = 20 * time.Second

const balanceTask = "see"

// balanceFleet is agents and clients on one server, with a plan that stays as it is. What
// they serve is time alone, so one process is enough for all of them.
type balanceFleet struct {
	connect connector
	b       *bus.Bus
	stops   []func() error
}

// connector makes connections to one server.
type connector func(name string) (*nats.Conn, error)

// inVirtualTime runs f where only what waits takes time: what is measured is who serves
// what, not how busy this machine is. Bubbles belong to tests, so this needs one.
//
// f gets a context that was made in there: time stands still for who waits for another.
func inVirtualTime(t *testing.T, f func(context.Context, connector) error) (err error) {
	natstest.Bubble(t, func(t *testing.T) {
		s := natstest.Start(t)
		err = f(context.Background(), func(name string) (*nats.Conn, error) { return bus.Connect("", name, s.Dial()) })
	})
	return err
}

// virtually runs a case in a process of its own, as a test, and returns its figures.
func virtually(ctx context.Context, name string, o balanceOptions) ([]balanceFigure, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "balance", "--case", name, "--json", "--virtual",
		"--seed", fmt.Sprint(o.seed), "--rounds", fmt.Sprint(o.rounds), "--time", o.last.String(), "--uneven", fmt.Sprint(o.uneven))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var list []balanceFigure
	for line := range bytes.Lines(out) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue // what package testing says
		}
		var f balanceFigure
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, fmt.Errorf("%w in %s", err, line)
		}
		list = append(list, f)
	}
	return list, nil
}

// asTest runs f as a test and ends the process.
func asTest(f func(t *testing.T) error) {
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "balance", F: func(t *testing.T) {
		if err := f(t); err != nil {
			t.Fatal(err)
		}
	}}}, nil, nil)
}

// overTCP runs f with a server that listens, in real time.
func overTCP(f func(url string) error) (err error) {
	dir, err := os.MkdirTemp("", "fleetbus-balance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := embed.New(embed.Options{StoreDir: dir, Port: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	defer s.Stop()
	return f(s.ClientURL())
}

// balanceReplica is one replica of the task, on a machine of its own.
type balanceReplica struct {
	agent string
	tier  messages.Tier
	rank  int
	serve func(context.Context, *agent.Request) ([]byte, error)
}

// newBalanceFleet starts an agent for every replica, and returns when each of them is
// ready.
func newBalanceFleet(ctx context.Context, connect connector, idempotent bool, replicas []balanceReplica) (f *balanceFleet, err error) {
	f = &balanceFleet{connect: connect}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, balanceReady)
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	nc, err := connect("balance")
	if err != nil {
		return f, err
	}
	f.stops = append(f.stops, func() error { nc.Close(); return nil })
	if f.b, err = bus.New(nc, "balance", 1); err != nil {
		return f, err
	}
	task := messages.Task{Name: balanceTask, Class: messages.Inference, Replicas: len(replicas), Idempotent: idempotent}
	route := messages.TaskRoute{Task: task}
	for i, r := range replicas {
		id := messages.ReplicaID(balanceTask, fmt.Sprint(i))
		route.Replicas = append(route.Replicas, messages.Route{ID: id, Agent: r.agent, Tier: r.tier, Site: messages.DefaultSite, State: messages.ReplicaReady, Rank: r.rank})
		doc := messages.Placement{Agent: r.agent, Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1, Replicas: []messages.PlacedReplica{{ID: id, Task: task, Rank: r.rank}}}
		if err = f.put(ctx, bus.Placements, r.agent, &doc); err != nil {
			return f, err
		}
	}
	if err = f.put(ctx, bus.RoutesKV, bus.KeyRoutes, &messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1, Tasks: []messages.TaskRoute{route}}); err != nil {
		return f, err
	}
	ready, err := f.beats()
	if err != nil {
		return f, err
	}
	for _, r := range replicas {
		nc, err := connect(r.agent)
		if err != nil {
			return f, err
		}
		a := agent.New(nc, agent.Config{
			Fleet: "balance", Environment: messages.Environment{ID: r.agent, Tier: r.tier, Capacity: messages.Resources{Compute: 1}}, HandoverWait: -1, Logger: quiet,
		}, agent.Func(balanceTask, r.serve))
		f.run(a.Run, nc.Close)
	}
	return f, ready(ctx, len(replicas))
}

func (f *balanceFleet) put(ctx context.Context, b bus.Bucket, key string, m messages.Message) error {
	kv, err := f.b.KV(ctx, b)
	if err != nil {
		return err
	}
	data, err := messages.Encode(m)
	if err == nil {
		_, err = kv.Put(ctx, key, data)
	}
	return err
}

// beats listens to heartbeats, and returns how to wait until n agents have a ready replica.
func (f *balanceFleet) beats() (func(context.Context, int) error, error) {
	var mu sync.Mutex
	up := make(map[string]bool)
	news := make(chan struct{}, 1)
	sub, err := f.b.Conn.Subscribe(f.b.Subject(messages.KindHeartbeat, messages.DefaultSite).String(), func(m *nats.Msg) {
		var h messages.Heartbeat
		if messages.Decode(m.Data, &h) != nil {
			return // the agents of this process make none that cannot be read
		}
		for _, r := range h.Replicas {
			if r.State == messages.ReplicaReady {
				mu.Lock()
				up[h.Agent] = true
				mu.Unlock()
			}
		}
		select {
		case news <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, n int) error {
		defer func() { _ = sub.Unsubscribe() }() // fails only where the connection is closed
		for {
			mu.Lock()
			have := len(up)
			mu.Unlock()
			if have >= n {
				return nil
			}
			select {
			case <-news:
			case <-ctx.Done():
				return fmt.Errorf("%d of %d agents are ready: %w", have, n, ctx.Err())
			}
		}
	}, f.b.Conn.Flush()
}

// client starts a client of an origin, and returns when it is ready.
func (f *balanceFleet) client(ctx context.Context, connect connector, origin string) (*router.Client, error) {
	nc, err := connect(origin)
	if err != nil {
		return nil, err
	}
	c := router.NewClient(nc, router.Config{Fleet: "balance", Origin: origin, Logger: slog.New(slog.DiscardHandler)})
	f.run(c.Run, nc.Close)
	ctx, cancel := context.WithTimeout(ctx, balanceReady)
	defer cancel()
	return c, c.Ready(ctx)
}

// run runs something until the fleet stops.
func (f *balanceFleet) run(run func(context.Context) error, closing func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	f.stops = append(f.stops, func() error {
		cancel()
		err := <-ended
		closing()
		return err
	})
}

// stop ends everything, the last first.
func (f *balanceFleet) stop() error {
	var errs []error
	for i := len(f.stops) - 1; i >= 0; i-- {
		errs = append(errs, f.stops[i]())
	}
	f.stops = nil
	return errors.Join(errs...)
}
