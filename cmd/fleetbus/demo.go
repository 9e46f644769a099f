package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/configs"
	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

// The demo's fleet and its times. Every wait is bounded; together with the kills they
// stay under a minute.
const (
	demoFleet      = "demo"
	demoLeaseTTL   = 3 * time.Second  // short, so that the second coordinator leads within the demo; the default rides out broker elections
	demoStartWait  = 20 * time.Second // for the whole fleet to be placed: process starts dominate
	demoReturnWait = 10 * time.Second // for a restarted agent to serve again
	demoBetween    = time.Second      // of quiet traffic between two faults
	demoStopWait   = 15 * time.Second // for a child to end on SIGTERM; an agent drains first
)

type demoOptions struct {
	kills   int
	calm    time.Duration
	json    bool
	keep    string
	verbose bool
}

func demoCmd(a *app) *cobra.Command {
	o := demoOptions{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole story on this machine: three tiers in real processes, killed on purpose",
		Long: `demo starts a NATS server, a coordinator, a router, one cloud, two edge and four
robot agents as separate processes, streams observations from every robot, moves
every robot, trains in the cloud; then kills the busiest edge agent again and again,
and the coordinator. Clients and executors write histories; a checker that shares
nothing with router and agents judges them. Exit status 1 if anything was lost or
done twice.

FB_FAULT=drop or FB_FAULT=twice plants a fault in the executors, for the checker to
find.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.kills < 0 || o.kills > 20 {
				return usagef("--kills: found %d, allowed are 0 to 20", o.kills)
			}
			if o.calm < 0 {
				return usagef("--calm: found %v, allowed is 0 or more", o.calm)
			}
			o.json = a.json // the result, at the end; the story goes to standard error
			return runDemo(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&o.kills, "kills", 5, "how often the busiest edge agent is killed (0 to 20)")
	cmd.Flags().DurationVar(&o.calm, "calm", 3*time.Second, "traffic before the first kill")
	cmd.Flags().StringVar(&o.keep, "keep", "", "keep logs and histories in this `DIRECTORY`")
	cmd.Flags().BoolVar(&o.verbose, "verbose", false, "children log at debug level")
	return cmd
}

// demo is one run.
type demo struct {
	demoOptions
	out    *stage
	dir    string
	url    string
	procs  *family
	board  *board
	hist   *history.Writer
	nc     *nats.Conn
	bus    *bus.Bus
	envs   []messages.Environment
	tasks  []messages.Task
	fleet  []*requester
	falls  []fall
	newest atomic.Value // messages.Progress of some job, for the status line
	began  time.Time
}

func runDemo(ctx context.Context, o demoOptions, stdout io.Writer) (err error) {
	story := stdout
	if o.json {
		story = os.Stderr
	}
	d := &demo{demoOptions: o, board: newBoard(), began: time.Now()}
	d.out = newStage(story, d.began)
	if d.dir = o.keep; d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "fleetbus-demo-"); err != nil {
			return fmt.Errorf("make a directory for the demo: %w", err)
		}
		defer os.RemoveAll(d.dir)
	} else if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return fmt.Errorf("make --keep directory: %w", err)
	}
	if d.procs, err = newFamily(d.dir); err != nil {
		return err
	}
	defer d.procs.killAll()
	if d.hist, err = history.Open(d.historyPath("clients"), "clients"); err != nil {
		return err
	}
	if err := d.play(ctx); err != nil {
		_ = d.hist.Close()
		return err
	}
	if err := d.hist.Close(); err != nil {
		return fmt.Errorf("the clients' history is not whole, so nothing can be judged: %w", err)
	}
	return d.conclude(stdout)
}

func (d *demo) historyPath(who string) string {
	return filepath.Join(d.dir, "history-"+who+".jsonl")
}

// play is the story, from the first process to the last.
func (d *demo) play(ctx context.Context) error {
	if err := d.load(); err != nil {
		return err
	}
	if err := d.raise(ctx); err != nil {
		return err
	}
	defer d.nc.Close()

	// Clients run until everything is over; they are the robots' own programs.
	clients, stopClients := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stopClients()
	for _, e := range d.envs {
		if e.Tier != messages.Robot {
			continue
		}
		r, err := newRequester(d.url, demoFleet, e.ID, d.hist, d.board, d.logger("client-"+e.ID))
		if err != nil {
			return err
		}
		d.fleet = append(d.fleet, r)
		running.Go(func() {
			defer r.nc.Close()
			_ = r.client.Run(clients) // ends with clients
		})
	}
	for _, r := range d.fleet {
		if err := r.client.Ready(ctx); err != nil {
			return err
		}
	}
	d.compare(ctx)

	stop := make(chan struct{})
	var traffic sync.WaitGroup
	halt := sync.OnceFunc(func() { close(stop); traffic.Wait() })
	defer halt()
	for i, r := range d.fleet {
		traffic.Go(func() { r.stream(ctx, stop, "inference") })
		traffic.Go(func() { r.command(ctx, stop, "action") })
		if i == 0 {
			traffic.Go(func() { r.train(ctx, stop, "training", func(p messages.Progress) { d.newest.Store(p) }) })
		}
	}
	d.out.say("traffic: %d robots × %d Hz × %d bytes of inference, actions to each robot, training jobs in the cloud", len(d.fleet), time.Second/inferenceEvery, droidBytes)
	live, stopLive := context.WithCancel(ctx)
	var shown sync.WaitGroup
	shown.Go(func() { d.out.live(live, d.status) })
	err := d.faults(ctx)
	stopLive()
	shown.Wait()
	if err != nil {
		return err
	}
	d.out.say("traffic stops; what runs is waited for")
	halt()
	return d.lower(ctx)
}

// load reads the fleet of the demo: smart-factory's environments and tasks, with two
// edges and four robots instead of one, and enough replicas for them.
func (d *demo) load() error {
	data, err := configs.Files.ReadFile("smart-factory.yaml")
	if err != nil {
		return err
	}
	file, err := fleetfile.Parse("smart-factory.yaml", data)
	if err != nil {
		return err
	}
	count := map[messages.Tier]int{messages.Cloud: 1, messages.Edge: 2, messages.Robot: 4}
	for _, e := range file.Environments {
		for n := 1; n <= count[e.Tier]; n++ {
			copied := e
			copied.ID = fmt.Sprintf("%s-%d", e.Tier, n)
			d.envs = append(d.envs, copied)
		}
	}
	for _, t := range file.Tasks {
		switch t.Class {
		case messages.Inference:
			t.Replicas, t.Concurrency = 3, 4 // both edges, and the cloud to spill to
		case messages.Action:
			t.Replicas, t.Per = 0, messages.PerRobot
		case messages.Training:
			t.Work = new(float64)
			*t.Work = 2_000_000 // two seconds on the cloud, so that there is progress to see
			t.Limit = 10_000
		}
		d.tasks = append(d.tasks, t)
	}
	// The same requests, all on the cloud: what the fleet would do without its other tiers.
	for _, name := range []string{"inference", "action"} {
		for _, t := range d.tasks {
			if t.Name == name {
				work, transfer := t.WorkGFLOP(), t.TransferKbit()
				t.Name, t.Class, t.Per, t.Replicas, t.Limit, t.Concurrency = "cloud-"+name, messages.Inference, messages.PerFleet, 1, 0, 4
				t.Deadline = 1_000 // as for the others: see messages.Task.CallerDeadline
				t.Work, t.Transfer, t.Tiers = &work, &transfer, []messages.Tier{messages.Cloud}
				d.tasks = append(d.tasks, t)
			}
		}
	}
	return nil
}

func (d *demo) env(id string) messages.Environment {
	for _, e := range d.envs {
		if e.ID == id {
			return e
		}
	}
	return messages.Environment{}
}

// logger writes to a file: what the library logs of faults that the demo makes itself
// would only hide the story.
func (d *demo) logger(name string) *slog.Logger {
	f, err := os.OpenFile(filepath.Join(d.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(f, nil)) // the file lives as long as the process
}

// raise starts the server, the coordinator, the router and the agents, applies the
// tasks, and waits until everything is placed and ready.
func (d *demo) raise(ctx context.Context) error {
	portFile := filepath.Join(d.dir, "server.url")
	if err := d.procs.start("server", "server", "--listen", "127.0.0.1:-1", "--store-dir", filepath.Join(d.dir, "store"), "--port-file", portFile); err != nil {
		return err
	}
	err := d.until(ctx, demoStartWait, "the server to listen", func() (bool, string) {
		url, err := os.ReadFile(portFile)
		d.url = string(url)
		return err == nil && d.url != "", "it has not written its address"
	})
	if err != nil {
		return err
	}
	if d.nc, err = bus.Connect(d.url, "demo"); err != nil {
		return err
	}
	if d.bus, err = bus.New(d.nc, demoFleet, 0); err != nil {
		return err
	}
	if err := d.startCoordinator(1); err != nil {
		return err
	}
	if err := d.procs.start("router", d.with("router")...); err != nil {
		return err
	}
	for _, e := range d.envs {
		if err := d.startAgent(e, 1); err != nil {
			return err
		}
	}
	d.out.say("started %d processes: server, coordinator, router and %d agents", 3+len(d.envs), len(d.envs))
	settings := messages.DefaultSettings()
	settings.Reserve = 0 // the action task needs all of a robot's 10 Mbps: see `fleetbus plan -f configs/three-tiers.yaml`
	if _, err := coordinator.Apply(ctx, d.bus, d.tasks, &settings); err != nil {
		return err
	}
	err = d.until(ctx, demoStartWait, "every replica to be ready", func() (bool, string) {
		s, err := coordinator.ReadState(ctx, d.bus)
		if err != nil {
			return false, err.Error()
		}
		return d.placed(s)
	})
	if err != nil {
		return err
	}
	return d.showPlan(ctx)
}

// placed reports whether all agents are ready and every replica serves, and if not why.
func (d *demo) placed(s messages.State) (bool, string) {
	if len(s.Agents) < len(d.envs) {
		return false, fmt.Sprintf("%d of %d agents are there", len(s.Agents), len(d.envs))
	}
	if len(s.Replicas) < len(d.tasks) {
		return false, fmt.Sprintf("%d replicas are planned", len(s.Replicas))
	}
	for _, r := range s.Replicas {
		if r.State != messages.ReplicaReady {
			return false, fmt.Sprintf("replica %s is %s: %s", r.ID, r.State, r.Reason)
		}
	}
	return true, ""
}

// until asks cond every 20 ms until it holds; past the limit the error says what it last
// said. A child that has died ends the wait at once.
func (d *demo) until(ctx context.Context, limit time.Duration, what string, cond func() (bool, string)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, why := cond()
		if ok {
			return nil
		}
		if err := d.procs.anyDead(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s: %s (logs: --keep DIR)", limit, what, why)
		}
	}
}
