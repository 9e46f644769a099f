package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/fleetbus/fleetbus/testing/stopping"
)

// stopFigure is one figure of `bench stop`.
type stopFigure struct {
	Bench  string  `json:"bench"`
	Case   string  `json:"case"`
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
}

// stop stops a fleet of robots in real processes, under request load.
func stop(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("stop", flag.ContinueOnError)
	robots := flags.Int("robots", 50, "robots, each a process with an action that runs")
	rounds := flags.Int("rounds", 5, "how often all are stopped")
	cuts := flags.Int("cuts", 10, "robots whose link is cut, one after the other")
	binary := flags.String("binary", "", "the program; without it is built")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("stop: %q is no flag; it takes no files", flags.Arg(0))
	case *robots < 1 || *robots > 1000:
		return fmt.Errorf("stop: --robots is %d; allowed are 1 to 1000", *robots)
	case *rounds < 1 || *rounds > 1000:
		return fmt.Errorf("stop: --rounds is %d; allowed are 1 to 1000", *rounds)
	case *cuts < 0 || *cuts > *robots:
		return fmt.Errorf("stop: --cuts is %d; allowed are 0 to the number of robots, %d", *cuts, *robots)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	r, err := stopping.Measure(ctx, stopping.Config{Robots: *robots, Rounds: *rounds, Cuts: *cuts, Binary: *binary})
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return printStop(out, stopFigures(strconv.Itoa(*robots), r), *asJSON)
}

func stopFigures(name string, r stopping.Result) []stopFigure {
	var list []stopFigure
	add := func(metric string, value float64, unit string) {
		list = append(list, stopFigure{"stop", name, metric, value, unit})
	}
	for _, s := range []struct {
		metric string
		times  []time.Duration
	}{{"all_acked", r.All}, {"ack", r.Acks}, {"action_ended", r.Ended}, {"self_stop", r.SelfStop}} {
		if len(s.times) > 0 {
			add(s.metric+"_median", inMillis(stopping.Median(s.times)), "ms")
			add(s.metric+"_worst", inMillis(slices.Max(s.times)), "ms")
		}
	}
	add("requests", float64(r.Requests), "count")
	add("requests_failed", float64(r.Failed), "count")
	add("commands_refused", float64(r.Busy), "count")
	return list
}

func inMillis(d time.Duration) float64 {
	return math.Round(float64(d.Microseconds())) / 1000
}

func printStop(out io.Writer, list []stopFigure, asJSON bool) error {
	if asJSON {
		for _, f := range list {
			text, err := json.Marshal(f)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(out, string(text)); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "robots\tmetric\tvalue\tunit")
	for _, f := range list {
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\n", f.Case, f.Metric, f.Value, f.Unit)
	}
	return w.Flush()
}
