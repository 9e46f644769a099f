package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/internal/heap"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// agentFlags are the flags of `fleetbus agent`, and the fields of its --config file.
type agentFlags struct {
	id, tier, billing string
	labels            map[string]string
	capacity          messages.Resources
	latency, price    float64
	simulate          bool
	commands          commands
	backends          backends
	drain             time.Duration
	stateDir          string
	dataDir           string
	reEngage          time.Duration
	hooks             hooks
	foreign           string
	deploy            deployFlags

	config, history string
}

func agentCmd(a *app) *cobra.Command {
	g := agentFlags{labels: make(map[string]string), backends: newBackends()}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run an agent: one per robot, edge box or cloud node",
		Long: `Run an agent: it announces what this machine has, runs the tasks that are placed on it and
serves their requests. On SIGINT or SIGTERM it finishes what it has, then stops; a second
signal stops it at once.

What it can serve: --exec NAME=COMMAND starts a child process for tasks with the handler
NAME (docs/protocol.md has its protocol, examples/exec-python an example); --http, --oip and
--openpi NAME=URL ask a model server that runs already, as it is; --simulate takes as long as
the placement model says, for every other task. docs/backends.md says more.

A robot that loses its link does as its tasks' on_link_loss says. --on-link-loss NAME=COMMAND
is what a task may name there; the command gets FLEETBUS_ROBOT, FLEETBUS_TASK, FLEETBUS_REPLICA
and FLEETBUS_REASON in its environment, and has 10 s. It supplements a hardware stop and never
replaces it.

What the machine has is detected where --compute, --storage, --network or --latency do not say it:
compute by what ` + "`fleetbus agent calibrate`" + ` found, or else an estimate; the latency is the round trip to
the server. Limits of containers count.

Others than fleetbus may use the machine, too. Of what is detected it is measured how much they use;
--foreign-use measured does so for what you have said yourself (then on a machine with a GPU the use
of that GPU counts as compute), --foreign-use none for nothing. Or a file of yours says it, with any of
compute, storage and network: --foreign-use FILE reads it once a second. Nothing is placed onto room
that others use, and what is placed moves away when it is taken for more than 5 s. With --simulate the
machine is made up: it has what you say, and nothing of it is measured.

--allow-run lets tasks bring what serves them: an artifact out of the fleet's store (fleetbus
artifacts) and a command (run: in the fleet file). Whoever may apply tasks then runs programs on this machine,
with the rights of this process: give it a user of its own.

A --config file has the same fields; flags win over it.`,
		Example: `  fleetbus agent --id robot-1 --tier robot --compute 10TFLOPS --network 10Mbps --simulate
  fleetbus agent --id edge-1 --tier edge --compute 100TFLOPS --exec grasp='python3 grasp.py'
  fleetbus agent --id edge-2 --tier edge --compute 100TFLOPS --openpi pi0=ws://127.0.0.1:8000
  fleetbus agent --config agent.yaml --server nats://edge.example:4222`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.agent(cmd, &g) },
	}
	g.define(cmd.Flags())
	cmd.AddCommand(calibrateCmd(a), installCmd(a), uninstallCmd(a))
	return cmd
}

func (g *agentFlags) define(f *pflag.FlagSet) {
	f.StringVar(&g.id, "id", "", "`NAME` of the agent, unique in the fleet; the newer of two with one id wins")
	f.StringVar(&g.tier, "tier", "", "where it stands: robot, edge or cloud")
	f.Var(labelValue(g.labels), "label", "`KEY=VALUE` that tasks can ask for; may be repeated")
	f.Var(quantity(&g.capacity.Compute, fleetfile.Compute), "compute", "what the machine has, `AMOUNT` like 100TFLOPS")
	f.Var(quantity(&g.capacity.Storage, fleetfile.Storage), "storage", "`AMOUNT` like 1000GB")
	f.Var(quantity(&g.capacity.Network, fleetfile.Network), "network", "`AMOUNT` like 100Mbps")
	f.Var(quantity(&g.latency, fleetfile.Duration), "latency", "`TIME` from who asks to this machine, like 10ms")
	f.Float64Var(&g.price, "price", 0, "currency per hour")
	f.StringVar(&g.billing, "billing", "", "share: a task pays for what it holds; whole: all is paid as soon as anything runs (default share)")
	f.BoolVar(&g.simulate, "simulate", false, "serve every task by taking as long as the model says")
	f.Var(&g.commands, "exec", "`NAME=COMMAND` that serves the handler NAME; may be repeated")
	g.backends.define(f)
	f.DurationVar(&g.drain, "drain-timeout", agent.DefaultDrainTimeout, "how long it may take to finish when it is told to stop")
	f.StringVar(&g.stateDir, "state-dir", "", "of a robot: `DIRECTORY` that keeps why it is stopped (default $XDG_STATE_HOME/fleetbus/agents or ~/.local/state/fleetbus/agents)")
	f.StringVar(&g.dataDir, "data-dir", "", "`DIRECTORY` of its own for the fleet's synced data (default $XDG_STATE_HOME/fleetbus/data/FLEET/ID or ~/.local/state/fleetbus/data/FLEET/ID)")
	f.DurationVar(&g.reEngage, "re-engage", 0, "of a robot: take actions again after its link was lost and has been well for so long, at least 4s; 0: only after `fleetbus release`")
	f.Var(&g.hooks, "on-link-loss", "of a robot: `NAME=COMMAND` that runs when its link is lost, for tasks with on_link_loss: NAME; may be repeated")
	f.StringVar(&g.foreign, "foreign-use", "", "measured, none, or a YAML `FILE` that says what others use of this machine, for example compute: 40TFLOPS; replace it as often as you like (default: measured, of what is detected)")
	g.deploy.define(f)
	f.StringVar(&g.config, "config", "", "YAML `FILE` with these fields")
	f.StringVar(&g.history, "history", "", "append what is executed to this `FILE`")
	_ = f.MarkHidden("history") // of the demo and its checker; it fails only for a flag that is not there
}

// environment is the machine as the planner sees it.
func (g *agentFlags) environment(site string) (messages.Environment, error) {
	if g.id == "" {
		return messages.Environment{}, usagef("--id: none given; name the agent, for example --id robot-1")
	}
	if g.tier == "" {
		return messages.Environment{}, usagef("--tier: none given, allowed are cloud, edge, robot")
	}
	tier, err := messages.ParseTier(g.tier)
	if err != nil {
		return messages.Environment{}, usageError{err}
	}
	e := messages.Environment{
		ID: g.id, Tier: tier, Site: site, Labels: g.labels, Capacity: g.capacity,
		Latency: g.latency, Price: g.price, Billing: messages.Billing(g.billing), Version: versionString(),
	}
	if err := e.Check(""); err != nil {
		return e, usageError{err}
	}
	return e.Normal(), nil
}

// together checks what one field alone cannot say.
func (g *agentFlags) together(env messages.Environment) error {
	if g.drain <= 0 {
		return usagef("--drain-timeout: found %v, allowed is more than 0", g.drain)
	}
	if env.Tier != messages.Robot && (g.stateDir != "" || g.reEngage != 0 || len(g.hooks) > 0) {
		return usagef("agent %s: found --state-dir, --re-engage or --on-link-loss on tier %s; they are of robots, which alone run actions", g.id, env.Tier)
	}
	return g.deploy.together()
}

// agent runs one agent until it is told to stop and has drained.
func (a *app) agent(cmd *cobra.Command, g *agentFlags) (err error) {
	heap.Floor()
	if g.config != "" {
		if err := loadFlags(g.config, cmd.Flags()); err != nil {
			return fileError(cmd, err)
		}
		if err := messages.CheckName("site", a.site); err != nil {
			return usageError{err}
		}
	}
	env, err := g.environment(a.site)
	if err != nil {
		return err
	}
	if err := g.together(env); err != nil {
		return err
	}
	log := a.serviceLog(cmd)
	handlers, err := g.handlers(log)
	if err != nil {
		return err
	}
	if env.Tier == messages.Robot && g.stateDir == "" {
		if g.stateDir, err = robotDir(); err != nil {
			log.Warn("no directory for what stops this robot: what it decides without a link ends with a restart; name one with --state-dir", "reason", oneLine(err))
		}
	}
	if g.dataDir == "" {
		if g.dataDir, err = a.dataDir(env.ID); err != nil {
			log.Warn("no directory for the fleet's synced data: this agent holds none; name one with --data-dir", "reason", oneLine(err))
		}
	}
	if err := g.deploy.check(a, env.ID); err != nil {
		return err
	}
	machine := g.machineOf(cmd.Flags(), log)
	hooks, err := g.hooks.functions()
	if err != nil {
		return err
	}
	file := g.foreign
	if file == foreignMeasured || file == foreignNone {
		file = ""
	}
	foreign, stop, err := watchForeign(cmd.Context(), file, log)
	if err != nil {
		return fileError(cmd, err)
	}
	defer stop()
	if g.history != "" {
		w, err := history.Open(g.history, env.ID)
		if err != nil {
			return err
		}
		defer func() {
			if failed := w.Close(); err == nil {
				err = failed
			}
		}()
		for i, h := range handlers {
			if handlers[i], err = recorded(h, w); err != nil {
				return usageError{err}
			}
		}
	}
	return again(cmd.Context(), log, "agent "+env.ID, func(ctx context.Context) error {
		return a.runAgent(ctx, log, machine, agent.Config{
			Fleet: a.fleet, Environment: env, DrainTimeout: g.drain, Logger: log, Version: versionString(),
			StateDir: g.stateDir, ReEngage: g.reEngage, LinkHooks: hooks, Foreign: foreign,
		}, handlers, g.dataDir, g.deploy)
	})
}

func (a *app) runAgent(ctx context.Context, log *slog.Logger, machine *machine, cfg agent.Config, handlers []agent.Handler, dataDir string, deploy deployFlags) error {
	env := cfg.Environment
	nc, err := a.connectForever(ctx, bus.AgentConn(a.fleet, env.ID), log)
	if err != nil {
		return err
	}
	defer nc.Close()
	done, err := machine.begin(ctx, nc, &cfg)
	if err != nil {
		return err
	}
	defer done()
	env = cfg.Environment
	// Heartbeats have a connection of their own: a large body on its way must not look
	// like the death of the agent.
	beats, err := a.connectForever(ctx, bus.BeatConn(a.fleet, env.ID), log)
	if err != nil {
		return err
	}
	defer beats.Close()
	cfg.BeatConn = beats
	if env.Tier == messages.Robot {
		// Likewise for stops, which nothing may delay.
		if cfg.SafetyConn, err = a.connectForever(ctx, "fleetbus safety "+env.ID, log); err != nil {
			return err
		}
		defer cfg.SafetyConn.Close()
	}
	end, err := a.beside(ctx, log, nc, env, dataDir)
	if err != nil {
		return err
	}
	defer end()
	deployer, closeDeployer, err := a.deployer(ctx, log, env, deploy)
	if err != nil {
		return err
	}
	defer closeDeployer()
	if deployer != nil {
		cfg.Deployer = deployer
	}
	log.Info("agent runs", "agent", env.ID, "tier", env.Tier, "fleet", a.fleet, "site", env.Site, "server", nc.ConnectedUrlRedacted())
	defer context.AfterFunc(ctx, func() {
		log.Info("told to stop: finishing what is under way; a second signal stops at once", "agent", env.ID, "at_most", cfg.DrainTimeout)
	})()
	return agent.New(nc, cfg, handlers...).Run(ctx)
}

// robotDir is where a robot keeps why it is stopped, unless --state-dir says otherwise;
// "" with an error where nothing can be kept there.
func robotDir() (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "agents")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, nil
}

// quantityValue is a flag with a unit.
type quantityValue struct {
	into *float64
	unit fleetfile.Unit
}

func quantity(into *float64, u fleetfile.Unit) *quantityValue { return &quantityValue{into, u} }

func (q *quantityValue) Set(s string) error {
	v, err := q.unit.Parse(s)
	if err != nil {
		return plain(err)
	}
	if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("found %q, allowed is 0 %s or more", s, q.unit.Base())
	}
	*q.into = v
	return nil
}

func (q *quantityValue) Type() string { return "amount" }

func (q *quantityValue) String() string {
	if q.into == nil || *q.into == 0 {
		return ""
	}
	return number(*q.into) + q.unit.Base()
}
