package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/fleetbus/fleetbus/agent/backend/deploy"
	guards "github.com/fleetbus/fleetbus/agent/backend/proc"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/pflag"
)

// guardWord as its first argument makes this program the guard of a process that a task has
// brought. It is no subcommand: it is for agents alone.
const guardWord = "guard-process"

func guardProcess(command []string) int { return guards.Guard(command) }

// deployFlags say whether an agent runs what tasks bring, and where.
type deployFlags struct {
	allow bool
	dir   string
	cache float64 // GB
}

func (g *deployFlags) define(f *pflag.FlagSet) {
	f.BoolVar(&g.allow, "allow-run", false, "run what tasks bring, with the rights of this process: whoever may apply tasks runs programs on this machine")
	f.StringVar(&g.dir, "artifact-dir", "", "of --allow-run: `DIRECTORY` of its own for artifacts (default $XDG_STATE_HOME/fleetbus/artifacts/FLEET/ID or ~/.local/state/fleetbus/artifacts/FLEET/ID)")
	f.Var(quantity(&g.cache, fleetfile.Storage), "artifact-cache", "of --allow-run: `AMOUNT` of artifacts that are kept on the disk at most; those that no task here needs make room (default 20GB)")
}

// together refuses what stands alone.
func (g *deployFlags) together() error {
	if !g.allow && (g.dir != "" || g.cache != 0) {
		return usagef("--artifact-dir, --artifact-cache: found one without --allow-run, which alone makes the agent fetch artifacts; add it, or leave them out")
	}
	return nil
}

// check completes the flags.
func (g *deployFlags) check(a *app, id string) error {
	if !g.allow {
		return nil
	}
	if g.dir == "" {
		dir, err := stateDir()
		if err != nil {
			return usagef("--artifact-dir: none given, and there is no default: %v", err)
		}
		g.dir = filepath.Join(dir, "artifacts", a.fleet, id)
	}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return usagef("--artifact-dir: %v; name one that can be written", err)
	}
	return nil
}

// deployer is what runs what tasks bring; nil where the owner does not allow it.
func (a *app) deployer(ctx context.Context, log *slog.Logger, env messages.Environment, g deployFlags) (*deploy.Deployer, func(), error) {
	if !g.allow {
		return nil, func() {}, nil
	}
	guard, err := guardCommand()
	if err != nil {
		return nil, nil, err
	}
	// A connection of its own: a large artifact stands in nobody's way.
	nc, err := a.connectForever(ctx, "fleetbus artifacts "+env.ID, log)
	if err != nil {
		return nil, nil, err
	}
	d, err := deploy.New(nc, deploy.Options{Fleet: a.fleet, Site: env.Site, Agent: env.ID, Dir: g.dir, Cache: int64(g.cache * 1e9), Guard: guard, Logger: log})
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	log.Warn("this agent runs what tasks bring: whoever may apply tasks runs programs on this machine", "agent", env.ID, "artifacts", g.dir)
	return d, func() {
		d.Close()
		nc.Close()
	}, nil
}

// guardCommand is this program as a guard.
func guardCommand() ([]string, error) {
	if runtime.GOOS == "linux" {
		return []string{guards.Self, guardWord}, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []string{exe, guardWord}, nil
}
