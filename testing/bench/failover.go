package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
)

// The setting of the agents that are killed: a request takes failService, and beside the
// one that is killed there is one with nothing to do.
const failService = 50 * time.Millisecond

// failoverFlags are what the other benchmarks do not have.
type failoverFlags struct {
	kills, leaders int
}

// failover measures from a fault to the answer from elsewhere, less the service time; and
// how long answers stay away when the server that leads the queue is killed.
func failover(args []string, out io.Writer) error {
	var more failoverFlags
	f, help, err := parseData("failover", args, []string{"sigkill/direct", "sigkill/durable", "sigstop/direct", "sigstop/durable", "server-leader"}, leaderCalm,
		func(flags *flag.FlagSet) {
			flags.IntVar(&more.kills, "kills", 30, "agents killed, or stopped, in each case")
			flags.IntVar(&more.leaders, "leader-kills", 1, "servers killed in server-leader")
		})
	if help {
		return nil
	}
	if err != nil {
		return err
	}
	for name, n := range map[string]int{"--kills": more.kills, "--leader-kills": more.leaders} {
		if n < 1 || n > 1000 {
			return fmt.Errorf("failover: %s is %d; allowed are 1 to 1000", name, n)
		}
	}
	var agents, servers []string
	for _, c := range f.cases {
		if c == "server-leader" {
			servers = append(servers, c)
		} else {
			agents = append(agents, c)
		}
	}
	asJSON := f.json
	if f.cases = agents; len(agents) > 0 {
		if err := f.run("failover", 1, out, func(s *stage, ctx context.Context, f dataFlags) ([]figure, error) {
			return s.failover(ctx, f, more.kills)
		}); err != nil {
			return err
		}
	}
	if f.cases, f.json = servers, asJSON; len(servers) > 0 {
		return f.run("failover", 3, out, func(s *stage, ctx context.Context, f dataFlags) ([]figure, error) {
			return s.leaders(ctx, f, more.leaders)
		})
	}
	return nil
}

// failTask is the task of the agents that are killed. Slots are not what is measured: the
// queue may deliver to the spare again what was answered long ago.
func failTask(durable bool) messages.Task {
	t := messages.Task{Name: benchTask, Class: messages.Inference, Delivery: messages.Direct, Concurrency: 4, Deadline: 2000}
	if durable {
		t.Delivery = messages.Durable
	}
	return t
}

func (s *stage) failover(ctx context.Context, f dataFlags, kills int) (list []figure, err error) {
	if err := s.routes(ctx, failTask(false)); err != nil {
		return nil, err
	}
	ours, stop, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, name := range f.cases {
		sig := syscall.SIGKILL
		if strings.HasPrefix(name, "sigstop/") {
			sig = syscall.SIGSTOP
		}
		t := failTask(strings.HasSuffix(name, "/durable"))
		tag := strings.ReplaceAll(name, "/", "-")
		spare, err := s.agent(ctx, t, 1, part{Name: "spare-" + tag, Service: failService, Fault: f.fault})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var times []time.Duration
		for i, quicker := 0, 0; len(times) < kills; i++ {
			took, err := s.killOne(ctx, ours.c, t, sig, i, "victim-"+tag+"-"+strconv.Itoa(i), spare.Name)
			switch {
			case errors.Is(err, errQuicker) && quicker < kills:
				quicker++
			case err != nil:
				return nil, fmt.Errorf("%s, kill %d: %w", name, i+1, err)
			default:
				times = append(times, took)
			}
		}
		spare.kill()
		list = append(list, latencies("failover", name, times, nil)...)
		list = append(list, newFigure("failover", name, "kills", float64(kills), "count", 0))
	}
	return append(list, newFigure("failover", "late", "results", float64(ours.c.Stats().Late), "count", 0)), nil
}

// errQuicker says that a victim had answered when the fault came: on a busy machine that
// is late at times. Such a kill is made again.
var errQuicker = errors.New("the victim was quicker than the fault")

// killOne sends a request to a victim, faults it while it has the request, and returns
// when the spare's answer came: from the fault, less the service time. One fault in three
// falls on a request that was sent and not accepted: a killed victim dies in the moment
// of sending, a stopped one was stopped just before.
func (s *stage) killOne(ctx context.Context, c *router.Client, t messages.Task, sig syscall.Signal, i int, name, spare string) (time.Duration, error) {
	victim, err := s.agent(ctx, t, 0, part{Name: name, Service: failService})
	if err != nil {
		return 0, err
	}
	defer victim.kill()
	if err := s.routes(ctx, t, name, spare); err != nil {
		return 0, err
	}
	if err := s.until(ctx, "the client to know the victim", func(context.Context) error {
		r := c.Routes()
		if found, _ := r.Find(t.Name); len(found.Replicas) == 0 || found.Replicas[0].Agent != name {
			return errors.New("it does not")
		}
		return nil
	}); err != nil {
		return 0, err
	}
	_, share := math.Modf(float64(i) * math.Phi) // spread evenly
	offset := time.Duration(0.9 * share * float64(failService))
	if i%3 == 0 {
		offset = 0
	}
	var fault time.Time
	strike := func() error {
		fault = time.Now()
		return victim.signal(sig)
	}
	if offset == 0 && sig == syscall.SIGSTOP {
		if err := strike(); err != nil {
			return 0, err
		}
	}
	type end struct {
		took  time.Duration
		agent string
		err   error
	}
	ended := make(chan end, 1)
	begun := time.Now()
	go func() {
		var count counter
		count.n.Store(uint64(i) + faultyEvery - 2) // a planted fault is in the first one
		var agent string
		took, err := count.ask(ctx, func(ctx context.Context, body []byte) ([]byte, error) {
			a, err := c.Infer(ctx, router.Inference{Task: t.Name, Body: body, Deadline: askWithin})
			if err != nil {
				return nil, err
			}
			agent = a.Agent
			return a.Body, nil
		}, make([]byte, 128))
		ended <- end{took, agent, err}
	}()
	if fault.IsZero() {
		time.Sleep(offset)
		if err := strike(); err != nil {
			return 0, err
		}
	}
	e := <-ended
	if e.err != nil {
		return 0, fmt.Errorf("%v after the fault, which was %v after the sending: %w", time.Since(fault), fault.Sub(begun), e.err)
	}
	if e.agent != spare {
		return 0, fmt.Errorf("%s answered, %v after the fault; the spare is %s: %w", e.agent, begun.Add(e.took).Sub(fault), spare, errQuicker)
	}
	from := fault
	if begun.After(fault) {
		from = begun
	}
	return begun.Add(e.took).Sub(from) - failService, nil
}
