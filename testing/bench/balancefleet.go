package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
)

// balanceReady bounds the start of a fleet: far above what it takes.
const balanceReady = 20 * time.Second

const balanceTask = "see"

// balanceFleet is a server, agents and clients over TCP, with a plan that stays as it is.
// What they serve is time alone, so one process and few cores are enough for all of them.
type balanceFleet struct {
	server *embed.Server
	dir    string
	b      *bus.Bus
	stops  []func() error
}

// balanceReplica is one replica of the task, on a machine of its own.
type balanceReplica struct {
	agent string
	tier  messages.Tier
	rank  int
	serve func(context.Context, *agent.Request) ([]byte, error)
}

// newBalanceFleet starts a server and an agent for every replica, and returns when each
// of them is ready.
func newBalanceFleet(ctx context.Context, replicas []balanceReplica) (f *balanceFleet, err error) {
	f = new(balanceFleet)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, balanceReady)
	defer cancel()
	if f.dir, err = os.MkdirTemp("", "fleetbus-balance-"); err != nil {
		return f, err
	}
	quiet := slog.New(slog.DiscardHandler)
	if f.server, err = embed.New(embed.Options{StoreDir: f.dir, Port: -1, Logger: quiet}); err != nil {
		return f, err
	}
	if err = f.server.Start(); err != nil {
		return f, err
	}
	nc, err := bus.Connect(f.server.ClientURL(), "balance")
	if err != nil {
		return f, err
	}
	f.stops = append(f.stops, func() error { nc.Close(); return nil })
	if f.b, err = bus.New(nc, "balance", 1); err != nil {
		return f, err
	}
	task := messages.Task{Name: balanceTask, Class: messages.Inference, Replicas: len(replicas)}
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
		nc, err := bus.Connect(f.server.ClientURL(), r.agent)
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

// client starts a client of an origin on a connection to url, and returns when it is ready.
func (f *balanceFleet) client(ctx context.Context, url, origin string) (*router.Client, error) {
	nc, err := bus.Connect(url, origin)
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
	if f.server != nil {
		f.server.Stop()
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}
