package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// beside runs what an agent does for its environment beside its tasks: it holds the fleet's
// data in dir, unless that is "", and carries the mail of its programs. What fails there
// does not stop the agent. The function that it returns ends it and returns when it is gone.
func (a *app) beside(ctx context.Context, log *slog.Logger, nc *nats.Conn, env messages.Environment, dir string) (end func(), err error) {
	// It outlives ctx: an agent that drains still reads its mail.
	told := ctx
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	run := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				log.Error(what+" ended; the agent goes on without", "agent", env.ID, "error", oneLine(err))
			}
		})
	}
	run("mail", mail.New(nc, mail.Config{Fleet: a.fleet, Site: env.Site, Name: env.ID, Programs: true, Logger: log}).Run)
	closeData := func() {}
	if dir != "" {
		// A connection of its own: a large body stands in nobody's way.
		bodies, err := a.connectForever(told, "fleetbus data "+env.ID, log)
		if err != nil {
			stop()
			wg.Wait()
			return nil, err
		}
		closeData = bodies.Close
		run("the synced data", data.NewHolder(bodies, data.HolderConfig{Fleet: a.fleet, Environment: env, Dir: dir, Logger: log}).Run)
	}
	return func() {
		stop()
		wg.Wait()
		closeData()
	}, nil
}

// provideEvery is how often it is looked whether an agent of a new site has registered: its
// mail waits no longer than that for streams that the agent may not make itself.
const provideEvery = 10 * time.Second

// provider makes what mail, data and tasks that bring programs need, and agents may not make, where permissions are
// scoped: the buckets, the store, and the streams of every site that has an agent.
func (a *app) provider(nc *nats.Conn, replicas int, log *slog.Logger) part {
	return part{"provider", func(ctx context.Context) error {
		b, err := bus.New(nc, a.fleet, replicas)
		if err != nil {
			return err
		}
		seen, said := uint64(0), ""
		for wait := time.Second; ; {
			err := b.Ask(ctx, 2*provideEvery, func(ctx context.Context) (err error) {
				seen, err = provide(ctx, b, seen)
				return err
			})
			if err == nil {
				wait = provideEvery
			} else if text := err.Error(); text != said && ctx.Err() == nil && nc.IsConnected() {
				said = text
				log.Warn("what mail and data need is not made yet; trying on", "error", oneLine(err))
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil
			}
		}
	}}
}

// provide makes what is missing. seen is the newest registration that was looked at.
func provide(ctx context.Context, b *bus.Bus, seen uint64) (uint64, error) {
	if seen == 0 {
		for _, bucket := range []bus.Bucket{bus.Agents, bus.DataKV, bus.Acks} {
			if _, err := b.KV(ctx, bucket); err != nil {
				return 0, err
			}
		}
		for _, store := range []bus.Objects{bus.Bodies, bus.Artifacts} {
			if _, err := b.Objects(ctx, store); err != nil {
				return 0, err
			}
		}
	}
	newest, err := b.Newest(ctx, bus.Agents)
	if err != nil || newest == seen {
		return seen, err
	}
	registered, err := coordinator.Registrations(ctx, b)
	if err != nil {
		return seen, err
	}
	b.Forget() // a server may have lost its disk since
	for _, r := range registered {
		if err := b.Mail(ctx, r.Environment.Normal().Site); err != nil { // made once per site
			return seen, err
		}
	}
	// Last: it reserves room on the server's disk, and mail is not to wait for that.
	if err := b.TaskLogs(ctx); err != nil {
		return seen, err
	}
	return newest, nil
}

// dataDir is where an agent keeps the fleet's data unless --data-dir says otherwise.
func (a *app) dataDir(id string) (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "data", a.fleet, id), nil
}
