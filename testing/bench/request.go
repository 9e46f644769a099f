package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
)

// droid is the size of an observation of the DROID robots: two camera frames and a state.
const droid = 301_436

// many is how many requests are under way in direct/c64.
const many = 64

// rateWindow is how long each side of direct/c64 runs before it is the other's turn.
const rateWindow = 250 * time.Millisecond

// dataFlags are the flags of the benchmarks of the data path.
type dataFlags struct {
	time    time.Duration // for each case
	cases   []string
	fault   string
	profile string
	json    bool
}

func parseData(bench string, args, cases []string, def time.Duration, more func(*flag.FlagSet)) (f dataFlags, help bool, err error) {
	flags := flag.NewFlagSet(bench, flag.ContinueOnError)
	flags.DurationVar(&f.time, "time", def, "time for each case")
	only := flags.String("case", "", "only these cases, separated by commas: "+strings.Join(cases, ", "))
	flags.StringVar(&f.fault, "fault", "", "planted in the agent, to see that it is noticed: "+faultWrong+" or "+faultDrop)
	flags.StringVar(&f.profile, "profile", "", "directory for a CPU profile of each process, the client's too")
	flags.BoolVar(&f.json, "json", false, "one JSON object a line")
	if more != nil {
		more(flags)
	}
	if err := flags.Parse(args); err != nil {
		return f, errors.Is(err, flag.ErrHelp), err
	}
	f.cases = cases
	if *only != "" {
		f.cases = strings.Split(*only, ",")
	}
	for _, c := range f.cases {
		if !slices.Contains(cases, c) {
			return f, false, fmt.Errorf("%s: there is no case %q; there are %s", bench, c, strings.Join(cases, ", "))
		}
	}
	switch {
	case flags.NArg() > 0:
		return f, false, fmt.Errorf("%s: %q is no flag; it takes no files", bench, flags.Arg(0))
	case f.time <= 0 || f.time > time.Hour:
		return f, false, fmt.Errorf("%s: --time is %v; allowed is more than 0, up to an hour", bench, f.time)
	case f.fault != "" && f.fault != faultWrong && f.fault != faultDrop:
		return f, false, fmt.Errorf("%s: --fault is %q; allowed are %s, %s", bench, f.fault, faultWrong, faultDrop)
	}
	return f, false, nil
}

// request measures requests that go straight to an agent, and through a router, against
// core request-reply.
func request(args []string, out io.Writer) error {
	f, help, err := parseData("request", args, []string{"direct/128", "direct/301436", "direct/c64", "service/128"}, 8*time.Second, nil)
	if help {
		return nil
	}
	if err != nil {
		return err
	}
	return f.run("request", 1, out, (*stage).request)
}

// run runs a benchmark on n servers and prints what it measures.
func (f dataFlags) run(bench string, n int, out io.Writer, measure func(*stage, context.Context, dataFlags) ([]figure, error)) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	s, err := newStage(ctx, n, f.profile)
	if err != nil {
		return fmt.Errorf("%s: %w", bench, err)
	}
	var list []figure
	err = profiled(f.profile, "client", func() error {
		list, err = measure(s, ctx, f)
		return err
	})
	if err := s.close(err); err != nil {
		return fmt.Errorf("%s: %w", bench, err)
	}
	return printFigures(out, list, f.json)
}

func (s *stage) request(ctx context.Context, f dataFlags) (list []figure, err error) {
	task := messages.Task{Name: benchTask, Class: messages.Inference, Delivery: messages.Direct, Concurrency: messages.MaxConcurrency, Deadline: 2000}
	if _, err := s.agent(ctx, task, 0, part{Name: "edge", Bare: true, Fault: f.fault}); err != nil {
		return nil, err
	}
	if err := s.routes(ctx, task, "edge"); err != nil {
		return nil, err
	}
	ours, stop, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	nc, err := bus.Connect(s.url, "by hand")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	for _, name := range f.cases {
		var times [][]time.Duration
		var err error
		switch name {
		case "direct/128":
			times, err = serial(ctx, f.time, 128, 50, ours.infer, bareDirect(nc))
		case "direct/301436":
			times, err = serial(ctx, f.time, droid, 10, ours.infer, bareDirect(nc))
		case "direct/c64":
			var rates []float64
			if rates, times, err = parallel(ctx, f.time, rateWindow, 128, many, ours.infer, bareDirect(nc)); err == nil {
				list = append(list, newFigure("request", name, "rate", rates[0], "1/s", rates[1]))
			}
		case "service/128":
			if _, _, err = s.start(ctx, part{Role: "router", Name: "router", URL: s.url}); err != nil {
				return nil, err
			}
			door := throughDoor(nc)
			if err = s.until(ctx, "the router to answer", func(ctx context.Context) error {
				_, err := door(ctx, make([]byte, 128))
				return err
			}); err == nil {
				times, err = serial(ctx, f.time, 128, 50, door, bareDirect(nc))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, latencies("request", name, times[0], times[1])...)
	}
	return list, nil
}

// ours is the Go client of the router.
type ours struct{ c *router.Client }

func (o ours) infer(ctx context.Context, body []byte) ([]byte, error) {
	a, err := o.c.Infer(ctx, router.Inference{Task: benchTask, Body: body, Deadline: askWithin})
	if err != nil {
		return nil, err
	}
	return a.Body, nil
}

// client runs a client on a connection of its own; stop ends it.
func (s *stage) client(ctx context.Context) (_ ours, stop func(), err error) {
	nc, err := bus.Connect(s.url, benchOwner)
	if err != nil {
		return ours{}, nil, err
	}
	c := router.NewClient(nc, router.Config{Fleet: benchFleet, Origin: benchOwner, Logger: quiet(s)})
	run, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { _ = c.Run(run) }) // it ends with its context; what fails before is seen by Ready
	stop = func() {
		cancel()
		ended.Wait()
		nc.Close()
	}
	limit, done := context.WithTimeout(ctx, startWithin)
	defer done()
	if err := c.Ready(limit); err != nil {
		stop()
		return ours{}, nil, err
	}
	return ours{c: c}, stop, nil
}

// throughDoor asks the router as any NATS client does.
func throughDoor(nc *nats.Conn) asker {
	s := messages.Subject{Kind: messages.KindRequest, Fleet: benchFleet, Site: benchSite, Class: messages.Inference, Origin: "plain", Task: benchTask}
	subject := s.String()
	return func(_ context.Context, body []byte) ([]byte, error) {
		m, err := nc.Request(subject, body, askWithin)
		if err != nil {
			return nil, err
		}
		if code := m.Header.Get(messages.HeaderError); code != "" {
			return nil, fmt.Errorf("%s: %s", code, m.Header.Get(messages.HeaderErrorText))
		}
		return m.Data, nil
	}
}
