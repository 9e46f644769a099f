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
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// balanceOptions is what the cases of `bench balance` are asked for.
type balanceOptions struct {
	seed   uint64
	rounds int
	last   time.Duration // of a round
	uneven float64       // by how much requests of mixed80 differ, as a part of their mean
	test   *testing.T    // for the cases in virtual time; nil: they get a process of their own
}

// balanceFigure is one figure of `bench balance`. Baseline and ratio are there where a
// twin or a bare loop met the same.
type balanceFigure struct {
	Bench    string   `json:"bench"`
	Case     string   `json:"case"`
	Metric   string   `json:"metric"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline,omitempty"`
	Ratio    *float64 `json:"ratio,omitempty"`
}

func alone(name, metric string, value float64, unit string) balanceFigure {
	return balanceFigure{Bench: "balance", Case: name, Metric: metric, Value: round3(value), Unit: unit}
}

func compared(name, metric string, value, baseline float64, unit string) balanceFigure {
	f := alone(name, metric, value, unit)
	base := round3(baseline)
	f.Baseline = &base
	if baseline > 0 {
		ratio := round3(value / baseline)
		f.Ratio = &ratio
	}
	return f
}

func round3(v float64) float64 { return math.Round(v*1000) / 1000 }

// balanceCases are the cases by name, whether they run in virtual time, and how long they
// last unless told.
var balanceCases = map[string]struct {
	run     func(context.Context, balanceOptions) ([]balanceFigure, error)
	virtual bool
	last    time.Duration
}{
	"mixed80":  {mixed80, true, time.Minute},
	"one-gpu":  {oneGPU, true, 8 * time.Second},
	"uplink10": {uplink10, false, 8 * time.Second},
}

// balance measures who serves what, and how old it is by then.
func balance(args []string, out io.Writer) error {
	names := []string{"mixed80", "one-gpu", "uplink10"}
	flags := flag.NewFlagSet("balance", flag.ContinueOnError)
	cases := flags.String("case", strings.Join(names, ","), "cases, with commas")
	seed := flags.Uint64("seed", 1, "of the load")
	rounds := flags.Int("rounds", 6, "loads of mixed80")
	seconds := flags.Duration("time", 0, "of a round (default 1m: agents learn how slow their machines get), and of each other case (default 8s)")
	uneven := flags.Float64("uneven", 0, "by how much requests of mixed80 differ, 0 to 0.9 of their mean")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	virtual := flags.Bool("virtual", false, "the case runs in this process, as a test, which then ends")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("balance: %q is no flag; it takes no files", flags.Arg(0))
	case *rounds < 1 || *rounds > 100:
		return fmt.Errorf("balance: --rounds is %d; allowed are 1 to 100", *rounds)
	case !(*uneven >= 0 && *uneven <= 0.9):
		return fmt.Errorf("balance: --uneven is %v; allowed are 0 to 0.9", *uneven)
	case *seconds != 0 && *seconds < time.Second || *seconds > time.Hour:
		return fmt.Errorf("balance: --time is %v; allowed are 1s to 1h", *seconds)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	var list []balanceFigure
	o := balanceOptions{seed: *seed, rounds: *rounds, uneven: *uneven}
	for _, name := range strings.Split(*cases, ",") {
		c, ok := balanceCases[name]
		if !ok {
			return fmt.Errorf("balance: there is no case %q; there are: %s", name, strings.Join(names, ", "))
		}
		o.last = cmp.Or(*seconds, c.last)
		run := c.run
		switch {
		case *virtual:
			asTest(func(t *testing.T) error {
				o.test = t
				figures, err := run(ctx, o)
				if err != nil {
					return err
				}
				return printBalance(out, figures, true)
			})
		case c.virtual:
			run = func(ctx context.Context, o balanceOptions) ([]balanceFigure, error) { return virtually(ctx, name, o) }
		}
		figures, err := run(ctx, o)
		if err != nil {
			return fmt.Errorf("balance: %s: %w", name, err)
		}
		list = append(list, figures...)
	}
	return printBalance(out, list, *asJSON)
}

func printBalance(out io.Writer, list []balanceFigure, asJSON bool) error {
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
	fmt.Fprintln(w, "case\tmetric\tvalue\tunit\tbaseline\tratio")
	show := func(v *float64) string {
		if v == nil {
			return ""
		}
		return fmt.Sprint(*v)
	}
	for _, f := range list {
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\t%s\n", f.Case, f.Metric, f.Value, f.Unit, show(f.Baseline), show(f.Ratio))
	}
	return w.Flush()
}

// answered are the times of those that were answered, ascending.
func answered(took []time.Duration) []time.Duration {
	list := slices.DeleteFunc(slices.Clone(took), func(d time.Duration) bool { return d == missed })
	slices.Sort(list)
	return list
}

// quantile of an ascending list; 0 of an empty one.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[min(len(list)-1, int(q*float64(len(list))))]
}
