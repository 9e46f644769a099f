package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// figure is one line of a benchmark of the data path. Baseline is that of the loop
// written by hand in the same run, and ratio is value / baseline; 0 where there is none.
type figure struct {
	Bench    string  `json:"bench"`
	Case     string  `json:"case"`
	Metric   string  `json:"metric"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Baseline float64 `json:"baseline,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"`
}

func newFigure(bench, name, metric string, value float64, unit string, baseline float64) figure {
	f := figure{bench, name, metric, round(value), unit, round(baseline), 0}
	if baseline > 0 {
		f.Ratio = round(value / baseline)
	}
	return f
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func printFigures(out io.Writer, list []figure, asJSON bool) error {
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
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "case\tmetric\tours\tby hand\tratio\tunit\t")
	for _, f := range list {
		base, ratio := "", ""
		if f.Baseline > 0 {
			base, ratio = fmt.Sprint(f.Baseline), fmt.Sprintf("%.2f", f.Ratio)
		}
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\t%s\t\n", f.Case, f.Metric, f.Value, base, ratio, f.Unit)
	}
	return w.Flush()
}

// percentile returns the p-th part of times, which it sorts; p is from 0 to 1.
func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.SortFunc(times, cmp.Compare)
	return times[min(len(times)-1, int(p*float64(len(times))))]
}

// latencies are the figures of a case whose requests were timed one by one.
func latencies(bench, name string, ours, bare []time.Duration) (list []figure) {
	for _, m := range []struct {
		metric string
		p      float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"max", 1}} {
		list = append(list, newFigure(bench, name, m.metric, micros(percentile(ours, m.p)), "us", micros(percentile(bare, m.p))))
	}
	return list
}

// asker asks once and returns the answer.
type asker func(ctx context.Context, body []byte) ([]byte, error)

// counter counts the requests of a run, so that each has a body of its own.
type counter struct{ n atomic.Uint64 }

// ask asks with a body of a size and checks that the answer is to it.
func (c *counter) ask(ctx context.Context, a asker, body []byte) (time.Duration, error) {
	n := c.n.Add(1)
	binary.BigEndian.PutUint64(body, n)
	begun := time.Now()
	answer, err := a(ctx, body)
	took := time.Since(begun)
	if err != nil {
		return took, fmt.Errorf("request %d: %w", n, err)
	}
	if len(answer) != numberBytes || binary.BigEndian.Uint64(answer) != n {
		return took, fmt.Errorf("request %d: the answer %x is to another request", n, answer)
	}
	return took, nil
}

// serial asks with each of the askers in turn, a block each, until d is over.
func serial(ctx context.Context, d time.Duration, size, block int, askers ...asker) ([][]time.Duration, error) {
	var count counter
	times := make([][]time.Duration, len(askers))
	body := make([]byte, size)
	over := time.Now().Add(d)
	for round := 0; time.Now().Before(over) || round < 2; round++ {
		for i, a := range askers {
			for k := range block {
				took, err := count.ask(ctx, a, body)
				if err != nil {
					return nil, err
				}
				if round > 0 && k > 0 { // warm; the first of a block finds everything asleep
					times[i] = append(times[i], took)
				}
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return times, nil
}

// parallel asks with each of the askers in turn, from many goroutines for a window each,
// and returns the median rate of each, per second.
func parallel(ctx context.Context, d, window time.Duration, size, many int, askers ...asker) ([]float64, [][]time.Duration, error) {
	var count counter
	rates, times := make([][]float64, len(askers)), make([][]time.Duration, len(askers))
	over := time.Now().Add(d)
	for round := 0; time.Now().Before(over) || round < 2; round++ {
		for i, a := range askers {
			begun := time.Now()
			parts, errs := make([][]time.Duration, many), make([]error, many)
			var all sync.WaitGroup
			for k := range many {
				all.Go(func() {
					body := make([]byte, size)
					for errs[k] == nil && time.Since(begun) < window {
						var took time.Duration
						took, errs[k] = count.ask(ctx, a, body)
						parts[k] = append(parts[k], took)
					}
				})
			}
			all.Wait()
			if err := errors.Join(errs...); err != nil {
				return nil, nil, err
			}
			if round == 0 {
				continue // warming up
			}
			took, n := time.Since(begun), 0
			for _, p := range parts {
				n += len(p)
				times[i] = append(times[i], p...)
			}
			rates[i] = append(rates[i], float64(n)/took.Seconds())
		}
	}
	out := make([]float64, len(askers))
	for i, r := range rates {
		if len(r) > 0 {
			slices.Sort(r)
			out[i] = r[len(r)/2]
		}
	}
	return out, times, nil
}
