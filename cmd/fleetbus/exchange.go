package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
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

// dataDir is where an agent keeps the fleet's data unless --data-dir says otherwise.
func (a *app) dataDir(id string) (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "data", a.fleet, id), nil
}
