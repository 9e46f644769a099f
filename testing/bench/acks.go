package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
)

// ackWithin bounds what acks waits for; it is far above what it takes.
const ackWithin = time.Minute

// acks measures how long it takes until one apply that touches every agent has been placed,
// saved, sent and acknowledged by all of them, and how soon agents that were away
// meanwhile have caught up when they are back.
func acks(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("acks", flag.ContinueOnError)
	agents := flags.Int("agents", 1000, "agents, robots all of them")
	away := flags.Int("away", 50, "how many of them are away during the second apply")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	profile := flags.String("profile", "", "write a CPU profile of the coordinator there")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("acks: %q is no flag; it takes no files", flags.Arg(0))
	case *agents < 1 || *agents > swarmListens:
		return fmt.Errorf("acks: --agents is %d; allowed are 1 to %d", *agents, swarmListens)
	case *away < 0 || *away > *agents/2:
		return fmt.Errorf("acks: --away is %d; allowed are 0 to half of the agents", *away)
	}
	lines, err := measureAcks(partsOptions{agents: *agents, conns: min(*agents, 100), robots: true, profile: *profile}, *away)
	if err != nil {
		return fmt.Errorf("acks: %w", err)
	}
	return printLines(out, lines, *asJSON)
}

// onEach is a task that every robot runs.
func onEach(name string) messages.Task {
	return messages.Task{Name: name, Class: messages.Inference, Per: messages.PerRobot, Demand: messages.Resources{Compute: 0.1, Storage: 1, Network: 0.1}}
}

func measureAcks(o partsOptions, away int) ([]placementLine, error) {
	dir, err := os.MkdirTemp("", "fleetbus-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	agents := o.agents
	p, err := startParts(dir, o)
	defer p.end()
	if err != nil {
		return nil, err
	}
	var heard swarmStats
	if err := p.swarm.ask("beat", &heard); err != nil {
		return nil, err
	}
	if err := p.until("the agents to be ready", func(s messages.State) error { return states(s, agents, 0) }); err != nil {
		return nil, err
	}
	name := strconv.Itoa(agents)
	var lines []placementLine
	add := func(metric string, took time.Duration) {
		lines = append(lines, placementLine{"acks", name, metric, round(float64(took.Microseconds()) / 1000), "ms"})
	}

	// All of them are there.
	begin := time.Now()
	revision, err := p.apply(onEach("first"))
	if err != nil {
		return nil, err
	}
	taken, err := p.taken("first", revision, begin)
	if err != nil {
		return nil, err
	}
	if err := p.until("all documents to be acknowledged", acknowledged); err != nil {
		return nil, err
	}
	add("taken_ms", taken)
	add("acked_ms", time.Since(begin))

	// Some are away; then they are back, with the incarnation that they had: it was the
	// network, and not a restart.
	if away > 0 {
		if err := p.swarm.ask("away "+strconv.Itoa(away), &heard); err != nil {
			return nil, err
		}
		if err := p.until("those that are away to be lost", func(s messages.State) error { return states(s, agents-away, away) }); err != nil {
			return nil, err
		}
		if revision, err = p.apply(onEach("second")); err != nil {
			return nil, err
		}
		if err := p.swarm.ask(fmt.Sprintf("runs %s %d", "second", revision), &heard); err != nil {
			return nil, err
		}
		if heard.Behind < away {
			return nil, fmt.Errorf("%d agents are away and only %d are behind: the benchmark does not measure what it says", away, heard.Behind)
		}
		begin = time.Now()
		if err := p.swarm.ask("back", &heard); err != nil {
			return nil, err
		}
		if taken, err = p.taken("second", revision, begin); err != nil {
			return nil, err
		}
		add("back_taken_ms", taken)
		if err := p.until("all documents to be acknowledged", acknowledged); err != nil {
			return nil, err
		}
		add("back_acked_ms", time.Since(begin))
	}
	// The leader hands over: every document is given out again, and nothing else happens.
	leads, confirmed, err := p.handOver(agents)
	if err != nil {
		return nil, err
	}
	add("handover_ms", leads)
	add("handover_acked_ms", confirmed)
	var used coordinatorStats
	if err := p.coordinator.ask("stats", &used); err != nil {
		return nil, err
	}
	return append(lines, placementLine{"acks", name, "coordinator_cpu_s", round(used.CPU), "s"}, placementLine{"acks", name, "rss_mb", round(used.Memory), "MB"}), nil
}

// handOver starts a second coordinator, lets it get warm, and ends the first as SIGTERM
// does. It returns how long it took until the second led, and until every agent had
// confirmed its document under the new term.
func (p *parts) handOver(agents int) (leads, confirmed time.Duration, err error) {
	if p.follower, err = p.startCoordinator("second", ""); err != nil {
		return 0, 0, err
	}
	var before messages.Term
	if err := p.until("the first to lead", func(s messages.State) error {
		before = s.Term
		return nil
	}); err != nil {
		return 0, 0, err
	}
	var heard coordinatorStats
	if err := p.wait("the second to have heard everybody", func(context.Context) error {
		if err := p.follower.ask("stats", &heard); err != nil {
			return err
		}
		if heard.Beats < 2*uint64(agents) {
			return fmt.Errorf("it heard %d beats", heard.Beats)
		}
		return nil
	}); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.coordinator.end()
	}()
	defer func() {
		<-ended
		p.coordinator, p.follower = p.follower, nil
	}()
	newer := func(s messages.State) error {
		if !before.Before(s.Term) {
			return fmt.Errorf("%s leads with term %s still", s.Leader, s.Term)
		}
		return nil
	}
	if err := p.until("the second to lead", newer); err != nil {
		return 0, 0, err
	}
	leads = time.Since(begin)
	err = p.until("all documents to be acknowledged under the new term", func(s messages.State) error {
		if err := newer(s); err != nil {
			return err
		}
		return acknowledged(s)
	})
	return leads, time.Since(begin), err
}

// states wants so many agents ready, and so many lost.
func states(s messages.State, ready, lost int) error {
	n := make(map[messages.AgentState]int)
	for _, a := range s.Agents {
		n[a.State]++
	}
	if n[messages.AgentReady] != ready || n[messages.AgentLost] != lost {
		return fmt.Errorf("of %d agents %d are ready and %d lost", len(s.Agents), n[messages.AgentReady], n[messages.AgentLost])
	}
	return nil
}

// acknowledged wants every agent to have confirmed its newest document, and every replica
// to be ready.
func acknowledged(s messages.State) error {
	for _, a := range s.Agents {
		if a.Rev == 0 || a.Applied != a.Rev {
			return fmt.Errorf("%s has confirmed revision %d of %d", a.Environment.ID, a.Applied, a.Rev)
		}
	}
	for _, r := range s.Replicas {
		if r.State != messages.ReplicaReady {
			return fmt.Errorf("%s is %s", r.ID, r.State)
		}
	}
	return nil
}

// until asks the leader until there is no error.
func (p *parts) until(what string, ok func(messages.State) error) error {
	return p.wait(what, func(ctx context.Context) error {
		// A question to one who is just leaving is not answered, so it is asked again soon.
		try, cancel := context.WithTimeout(ctx, 75*time.Millisecond)
		defer cancel()
		s, err := coordinator.ReadState(try, p.b)
		if err != nil {
			return err
		}
		return ok(s)
	})
}

func (p *parts) wait(what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.patience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s: %w", p.patience, what, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// taken waits until every agent has a document with the task, and returns when the last
// one took it: both ends are on this machine's clock.
func (p *parts) taken(task string, revision uint64, begin time.Time) (time.Duration, error) {
	var s swarmStats
	err := p.wait("every agent to have "+task, func(context.Context) error {
		if err := p.swarm.ask(fmt.Sprintf("runs %s %d", task, revision), &s); err != nil {
			return err
		}
		if s.Behind > 0 {
			return fmt.Errorf("%d of %d have not", s.Behind, s.Agents)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	last, err := time.Parse(time.RFC3339Nano, s.Ended)
	return last.Sub(begin.Round(0)), err
}

// apply applies tasks, and returns the revision of the last entry that was written.
func (p *parts) apply(tasks ...messages.Task) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := coordinator.Apply(ctx, p.b, tasks, nil); err != nil {
		return 0, err
	}
	d, err := coordinator.ReadDesired(ctx, p.b)
	if err != nil {
		return 0, err
	}
	newest := uint64(0)
	for _, t := range d.Tasks {
		newest = max(newest, t.Revision)
	}
	return newest, nil
}
