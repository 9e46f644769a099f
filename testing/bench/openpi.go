package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/policy"
)

// openpiFlags are those of the benchmark of policy clients.
type openpiFlags struct {
	time, kill, service time.Duration
	clients             int
	rate                float64
	fault, profile      string
	json                bool
}

// pictureSide is how wide the pictures of an observation are: with 224 it has the 301,436 bytes
// of DROID's.
const pictureSide = 224

// controlBudget is what an observation may take: an answer is a chunk of actions, and at
// 15 Hz one of 15 lasts a second.
const controlBudget = time.Second

// openpiBench measures policy clients through the gateway, with two policy servers, each
// behind an agent of its own, of which one process is killed every now and then: the
// server, then the agent, in turns. Each client also asks a third policy server straight,
// half a period later, which is what it is compared with. No client connects again: an
// error ends the run, and so does an answer to another observation.
func openpiBench(args []string, out io.Writer) error {
	var f openpiFlags
	flags := flag.NewFlagSet("openpi", flag.ContinueOnError)
	flags.DurationVar(&f.time, "time", 50*time.Second, "for how long the clients ask")
	flags.DurationVar(&f.kill, "kill", 10*time.Second, "a process is killed that often; 0: never")
	flags.DurationVar(&f.service, "service", 0, "time that the policy takes")
	flags.IntVar(&f.clients, "clients", 8, "policy clients at once")
	flags.Float64Var(&f.rate, "rate", 15, "observations a second of each")
	flags.StringVar(&f.fault, "fault", "", "planted in the policy servers, to see that it is noticed: "+faultWrong+" or "+faultDrop)
	flags.StringVar(&f.profile, "profile", "", "directory for a CPU profile of each process, the clients' too")
	flags.BoolVar(&f.json, "json", false, "one JSON object a line")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("openpi: %q is no flag; it takes no files", flags.Arg(0))
	case f.time <= 0 || f.time > time.Hour || f.kill < 0 || f.service < 0:
		return fmt.Errorf("openpi: --time %v, --kill %v, --service %v; allowed are more than 0 up to an hour, and 0 or more", f.time, f.kill, f.service)
	case f.clients < 1 || f.clients > 64 || f.rate <= 0 || f.rate > 200:
		return fmt.Errorf("openpi: --clients %d, --rate %v; allowed are 1 to 64, and up to 200", f.clients, f.rate)
	case f.fault != "" && f.fault != faultWrong && f.fault != faultDrop:
		return fmt.Errorf("openpi: --fault is %q; allowed are %s, %s", f.fault, faultWrong, faultDrop)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	s, err := newStage(ctx, 1, f.profile)
	if err != nil {
		return fmt.Errorf("openpi: %w", err)
	}
	var list []figure
	err = profiled(f.profile, "client", func() error {
		list, err = s.openpi(ctx, f)
		return err
	})
	if err := s.close(err); err != nil {
		return fmt.Errorf("openpi: %w", err)
	}
	return printFigures(out, list, f.json)
}

// pair is a policy server and the agent that asks it.
type pair struct {
	policy, agent         *actor
	policyPart, agentPart part
}

func (s *stage) openpi(ctx context.Context, f openpiFlags) ([]figure, error) {
	task := messages.Task{Name: benchTask, Class: messages.Inference, Delivery: messages.Direct, Concurrency: f.clients, Deadline: float64(controlBudget / time.Millisecond)}
	pairs := make([]*pair, 2)
	for i := range pairs {
		name := string(rune('a' + i))
		p := &pair{policyPart: part{Role: "policy", Name: "policy-" + name, Service: f.service, Fault: f.fault}}
		var where string
		var err error
		if p.policy, where, err = s.start(ctx, p.policyPart); err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(where)
		if err != nil {
			return nil, err
		}
		if p.policyPart.Port, err = strconv.Atoi(port); err != nil { // where it is found again
			return nil, err
		}
		p.agentPart = part{Name: "edge-" + name, Kind: "openpi", Target: "ws://" + where}
		if p.agent, err = s.agent(ctx, task, 0, p.agentPart); err != nil {
			return nil, err
		}
		pairs[i] = p
	}
	_, direct, err := s.start(ctx, part{Role: "policy", Name: "policy-direct", Service: f.service})
	if err != nil {
		return nil, err
	}
	route := taskRoute(task, "edge-a", "edge-b")
	for i := range route.Replicas {
		route.Replicas[i].Rank = 0 // the two are equally near
	}
	if err := s.save(ctx, route); err != nil {
		return nil, err
	}
	_, door, err := s.start(ctx, part{Role: "gateway", Name: "gateway", Kind: "openpi", URL: s.url})
	if err != nil {
		return nil, err
	}
	run, stop := context.WithTimeout(ctx, f.time)
	defer stop()
	group := &clients{f: f, bodies: make([][]byte, f.clients)}
	killed := make(chan error, 1)
	go func() { killed <- s.killInTurns(ctx, run, f.kill, task, pairs, group) }()
	var all sync.WaitGroup
	for n := range f.clients {
		all.Go(func() { group.ask(ctx, run, n, "ws://"+door, "ws://"+direct) })
	}
	all.Wait()
	stop()
	if err := <-killed; err != nil {
		return nil, err
	}
	if len(group.errs) > 0 {
		return nil, fmt.Errorf("%d errors in %d observations, %d answers to another one; the first: %w", len(group.errs), len(group.door), group.stale, group.errs[0])
	}
	list := latencies("openpi", "droid", group.door, group.direct)
	for _, m := range []struct {
		metric string
		p      float64
	}{{"added p50", 0.5}, {"added p99", 0.99}} {
		list = append(list, newFigure("openpi", "droid", m.metric, micros(percentile(group.door, m.p))-micros(percentile(group.direct, m.p)), "us", 0))
	}
	for _, c := range []struct {
		metric string
		n      int
	}{{"answers", len(group.door)}, {"kills", group.kills}, {"errors", len(group.errs)}, {"stale", group.stale}} {
		list = append(list, newFigure("openpi", "droid", c.metric, float64(c.n), "1", 0))
	}
	return list, nil
}

// killInTurns kills a process of one pair, then of the other: policy servers, agents, and
// so on. What was killed is started again by its supervisor, half a period later.
func (s *stage) killInTurns(ctx, run context.Context, every time.Duration, task messages.Task, pairs []*pair, g *clients) error {
	if every == 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-run.Done():
			return nil
		case <-tick.C:
		}
		p := pairs[n%2]
		isAgent := n/2%2 == 1
		if isAgent {
			p.agent.kill()
		} else {
			p.policy.kill()
		}
		g.killed()
		select {
		case <-run.Done():
			return nil
		case <-time.After(every / 2):
		}
		var err error
		if isAgent {
			p.agent, err = s.agent(ctx, task, 0, p.agentPart)
		} else {
			p.policy, _, err = s.start(ctx, p.policyPart)
		}
		if err != nil && run.Err() == nil {
			return err
		}
	}
}

// clients are the policy clients, and what they have seen.
type clients struct {
	f      openpiFlags
	bodies [][]byte

	mu           sync.Mutex
	door, direct []time.Duration
	errs         []error
	stale, kills int
}

func (g *clients) killed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.kills++
}

func (g *clients) note(list *[]time.Duration, took time.Duration, err error, stale bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*list = append(*list, took)
	if stale {
		g.stale++
	}
	if err != nil {
		g.errs = append(g.errs, err)
	}
}

// ask is one client: at its rate it asks through the door, and half a period later
// straight. An error of either ends it, as it would end the stock client.
func (g *clients) ask(ctx, run context.Context, n int, door, direct string) {
	period := time.Duration(float64(time.Second) / g.f.rate)
	ways := []struct {
		url  string
		list *[]time.Duration
		c    *policy.Client
	}{{url: door, list: &g.door}, {url: direct, list: &g.direct}}
	for i := range ways {
		c, err := policy.Connect(ctx, ways[i].url, "")
		if err != nil {
			g.note(ways[i].list, 0, fmt.Errorf("client %d: connect to %s: %w", n, ways[i].url, err), false)
			return
		}
		defer c.Close()
		ways[i].c = c
	}
	next := time.Now().Add(period * time.Duration(n) / time.Duration(g.f.clients)) // robots are not in step
	for id := uint64(n) << 32; ; id++ {
		for i := range ways {
			timer := time.NewTimer(time.Until(next))
			select {
			case <-timer.C:
			case <-run.Done():
				timer.Stop()
				return
			}
			next = next.Add(period / 2)
			observation := policy.Observation(pictureSide, id)
			begun := time.Now()
			answer, err := ways[i].c.Infer(ctx, observation)
			took := time.Since(begun)
			stale := false
			if err != nil {
				err = fmt.Errorf("client %d, observation %x of %s: %w", n, id, ways[i].url, err)
			} else if got := policy.AnswerTo(answer); got != id {
				err, stale = fmt.Errorf("client %d: the answer to observation %x is to another request, %x", n, id, got), true
			}
			g.note(ways[i].list, took, err, stale)
			if err != nil {
				return
			}
		}
	}
}
