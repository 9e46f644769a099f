package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// warmUp is how long the agents beat before it counts: the first beats make every agent
// known to be there, which is more work than any beat after them.
const warmUp = 5 * time.Second

// settleWithin is how long what was sent may be on its way to the coordinator at the end.
const settleWithin = 5 * time.Second

// heartbeat measures what the beats of a fleet cost a coordinator that leads: agents in a
// process of their own, over TCP, through a server in a process of its own, to a
// coordinator in a process of its own, whose time and memory are told.
func heartbeat(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("heartbeat", flag.ContinueOnError)
	agents := flags.Int("agents", 50_000, "agents that beat once a second")
	conns := flags.Int("conns", 100, "connections for all of them")
	seconds := flags.Int("seconds", 20, "how long it is measured")
	tasks := flags.Int("replicas", 100, "replicas that are placed meanwhile, so that there is something to judge")
	profile := flags.String("profile", "", "write a CPU profile of the coordinator there")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("heartbeat: %q is no flag; it takes no files", flags.Arg(0))
	case *agents < 1 || *agents > 200_000:
		return fmt.Errorf("heartbeat: --agents is %d; allowed are 1 to 200000", *agents)
	case *conns < 1 || *conns > 1000:
		return fmt.Errorf("heartbeat: --conns is %d; allowed are 1 to 1000", *conns)
	case *seconds < 1 || *seconds > 600:
		return fmt.Errorf("heartbeat: --seconds is %d; allowed are 1 to 600", *seconds)
	case *tasks < 0 || *tasks > min(1000, *agents):
		return fmt.Errorf("heartbeat: --replicas is %d; allowed are 0 to 1000, and as many as there are agents", *tasks)
	}
	lines, err := measureHeartbeats(partsOptions{agents: *agents, conns: *conns, profile: *profile}, *tasks, warmUp, time.Duration(*seconds)*time.Second)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return printLines(out, lines, *asJSON)
}

func measureHeartbeats(o partsOptions, tasks int, warmUp, during time.Duration) ([]placementLine, error) {
	dir, err := os.MkdirTemp("", "fleetbus-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p, err := startParts(dir, o)
	defer p.end()
	if err != nil {
		return nil, err
	}
	if _, err := p.apply(pinned(tasks)...); err != nil {
		return nil, err
	}
	var swarm, server usage
	var before, after coordinatorStats
	var beats swarmStats
	if err := p.swarm.ask("beat", &beats); err != nil {
		return nil, err
	}
	<-time.After(warmUp)
	if err := errors.Join(p.coordinator.ask("stats", &before), p.server.ask("stats", &swarm)); err != nil {
		return nil, err
	}
	begin := time.Now()
	<-time.After(during)
	if err := errors.Join(p.coordinator.ask("stats", &after), p.server.ask("stats", &server)); err != nil {
		return nil, err
	}
	took := time.Since(begin).Seconds()
	if err := p.swarm.ask("still", &beats); err != nil {
		return nil, err
	}
	last := after
	for deadline := time.Now().Add(settleWithin); last.Beats < beats.Sent && time.Now().Before(deadline); {
		if err := p.coordinator.ask("stats", &last); err != nil {
			return nil, err
		}
		<-time.After(50 * time.Millisecond)
	}
	name := strconv.Itoa(o.agents)
	return []placementLine{
		{"heartbeat", name, "coordinator_cores", round((after.CPU - before.CPU) / took), "cores"},
		{"heartbeat", name, "server_cores", round((server.CPU - swarm.CPU) / took), "cores"},
		{"heartbeat", name, "rss_mb", round(last.Memory), "MB"},
		{"heartbeat", name, "rate", round(float64(after.Beats-before.Beats) / took), "beats/s"},
		{"heartbeat", name, "lost", float64(beats.Sent) - float64(last.Beats), "beats"},
		{"heartbeat", name, "malformed", float64(last.Malformed), "messages"},
	}, nil
}

// pinned makes tasks that can only be on the first agents, one on each: there is something
// to judge in their beats, and nothing to search a place for, which is what the benchmark
// `placement` measures.
func pinned(n int) (list []messages.Task) {
	for i := range n {
		list = append(list, messages.Task{
			Name: fmt.Sprintf("task-%05d", i), Class: messages.Inference, Robot: swarmEnvironment(i, false).ID,
			Demand: messages.Resources{Compute: 1, Storage: 1, Network: 1},
		})
	}
	return list
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// printLines prints figures: a table, or one JSON object a line.
func printLines(out io.Writer, lines []placementLine, asJSON bool) error {
	if !asJSON {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "case\tmetric\tvalue\tunit")
		for _, l := range lines {
			fmt.Fprintf(w, "%s\t%s\t%v\t%s\n", l.Case, l.Metric, l.Value, l.Unit)
		}
		return w.Flush()
	}
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, string(text)); err != nil {
			return err
		}
	}
	return nil
}

// parts are the processes of a fleet, and a connection to it.
type parts struct {
	server, coordinator, swarm *child
	follower                   *child // nil for none
	url                        string
	b                          *bus.Bus
	patience                   time.Duration // of everything that is waited for
}

type partsOptions struct {
	agents, conns int
	robots        bool // all agents are robots
	drop          int  // planted fault: one of so many beats is counted and not sent; 0 for none
	stuck         int  // planted fault: the last so many agents take no documents
	patience      time.Duration
	profile       string // file for a CPU profile of the coordinator, or ""
}

// startParts starts a server, a swarm that is registered and silent, and a coordinator that
// leads. What it returns is to be ended, also with an error.
func startParts(dir string, o partsOptions) (*parts, error) {
	p := &parts{patience: cmp.Or(o.patience, ackWithin)}
	var url string
	var err error
	if p.server, err = startChild(&url, "server", "--dir", dir); err != nil {
		return p, err
	}
	nc, err := bus.Connect(url, "bench")
	if err != nil {
		return p, err
	}
	if p.b, err = bus.New(nc, benchFleet, 0); err != nil {
		nc.Close()
		return p, err
	}
	var registered swarmStats
	if p.swarm, err = startChild(&registered, "swarm", "--url", url, "--agents", strconv.Itoa(o.agents), "--conns", strconv.Itoa(o.conns), "--robots="+strconv.FormatBool(o.robots),
		"--drop", strconv.Itoa(o.drop), "--stuck", strconv.Itoa(o.stuck)); err != nil {
		return p, err
	}
	p.url = url
	if p.coordinator, err = p.startCoordinator("first", o.profile); err != nil {
		return p, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return p, awaitLeader(ctx, p.b)
}

// startCoordinator starts a coordinator; the first one leads, others follow.
func (p *parts) startCoordinator(id, profile string) (*child, error) {
	var word string
	return startChild(&word, "coordinator", "--url", p.url, "--id", id, "--profile", profile)
}

func (p *parts) end() {
	if p.b != nil {
		p.b.Conn.Close()
	}
	for _, c := range []*child{p.swarm, p.follower, p.coordinator, p.server} {
		if c != nil {
			c.end()
		}
	}
}
