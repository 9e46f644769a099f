package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// multiSizes are the sizes of the set: bins and items.
var multiSizes = [][2]int{{5, 100}, {10, 100}, {20, 200}, {10, 400}, {20, 400}, {20, 900}, {60, 900}, {20, 1600}, {40, 1600}, {80, 1600}}

// filled is which part of what the items need on average the bins have of their tight
// resource: the first in bins of even number, the second in the others.
const filled = 0.92

// generate makes an instance with three resources, in the manner of the public types: in
// C costs have nothing to do with needs, in D they are at odds, in E they are so over
// orders of magnitude. Equal arguments give equal instances.
func generate(class string, m, n int, seed uint64) (*assign.Instance, error) {
	if !slices.Contains([]string{"c", "d", "e"}, class) {
		return nil, fmt.Errorf("there is no type %q; there are c, d and e", class)
	}
	rng := rand.New(rand.NewPCG(seed, uint64(class[0])<<40|uint64(m)<<20|uint64(n)))
	p := &assign.Instance{Capacity: make([][assign.Resources]float64, m), Items: make([]assign.Item, n)}
	between := func(lo, hi int) float64 { return float64(lo + rng.IntN(hi-lo+1)) }
	for j := range p.Items {
		for b := range m {
			o := assign.Option{Bin: b}
			var mean float64
			for k := range o.Need {
				switch class {
				case "c":
					o.Need[k] = between(5, 25)
				case "d":
					o.Need[k] = between(1, 100)
				case "e":
					o.Need[k] = math.Ceil(1 - 10*math.Log(1-rng.Float64()))
				}
				mean += o.Need[k] / assign.Resources
				p.Capacity[b][k] += o.Need[k] / float64(m)
			}
			switch class {
			case "c":
				o.Cost = between(10, 50)
			case "d":
				o.Cost = math.Round(111-mean) + between(-10, 10)
			case "e":
				o.Cost = math.Round(1000/mean - 10*rng.Float64())
			}
			p.Items[j].Options = append(p.Items[j].Options, o)
		}
	}
	for b := range p.Capacity {
		for k := range p.Capacity[b] {
			room := filled
			if k != b%2 {
				room += 0.1
			}
			p.Capacity[b][k] = math.Floor(room * p.Capacity[b][k])
		}
	}
	return p, nil
}

// multiLine is the result for one instance. Cost, Feasible and Used are recomputed.
type multiLine struct {
	Instance string  `json:"instance"`
	Class    string  `json:"-"`
	Bins     int     `json:"bins"`
	Items    int     `json:"items"`
	Cost     float64 `json:"cost"`
	Bound    float64 `json:"bound"`
	Gap      float64 `json:"gap_pct"` // certified: to the bound
	Feasible bool    `json:"feasible"`
	Used     float64 `json:"used_pct"` // of the tightest resource of each bin, the mean
	First    float64 `json:"first_ms"`
	Total    float64 `json:"total_ms"`
}

// multi solves the own set of instances with three resources.
func multi(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("multi", flag.ContinueOnError)
	limit := flags.Duration("time", time.Second, "time for each instance")
	seeds := flags.Int("seeds", 3, "instances of each type and size")
	least := flags.Int("items", 0, "only sizes with at least so many items")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 || *limit <= 0 || *seeds < 1 {
		return errors.New("multi: --time and --seeds have to be more than 0, and it takes no files")
	}
	var lines []multiLine
	for _, class := range []string{"c", "d", "e"} {
		for _, size := range multiSizes {
			for seed := range *seeds {
				if size[1] < *least {
					continue
				}
				line, err := solveMulti(class, size[0], size[1], uint64(seed+1), *limit)
				if err != nil {
					return err
				}
				lines = append(lines, line)
				if !*asJSON {
					continue
				}
				text, err := json.Marshal(line)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintln(out, string(text)); err != nil {
					return err
				}
			}
		}
	}
	if *asJSON {
		return nil
	}
	return multiTable(out, lines)
}

func solveMulti(class string, m, n int, seed uint64, limit time.Duration) (multiLine, error) {
	p, err := generate(class, m, n, seed)
	if err != nil {
		return multiLine{}, err
	}
	line := multiLine{Instance: fmt.Sprintf("%s%d-%d-%d", class, m, n, seed), Class: fmt.Sprintf("%s n=%d", class, n), Bins: m, Items: n, First: -1}
	start := time.Now()
	ms := func() float64 { return float64(time.Since(start).Microseconds()) / 1000 }
	res, err := assign.Solve(p, assign.Options{
		Budget: math.MaxInt,
		Stop:   func() bool { return time.Since(start) >= limit },
		Improved: func(_ float64, waiting int) {
			if waiting == 0 && line.First < 0 {
				line.First = ms()
			}
		},
	})
	if err != nil {
		return multiLine{}, err
	}
	line.Total, line.Bound = ms(), res.Bound
	line.Cost, line.Used, line.Feasible = verifyMulti(p, res.Assign)
	line.Gap = 100 * (line.Cost/line.Bound - 1)
	return line, nil
}

// verifyMulti recomputes what a plan costs, how much it uses of the tightest resource of each
// bin in percent, and whether it keeps the capacities; nothing of the engine is used.
func verifyMulti(p *assign.Instance, plan []int) (cost, used float64, feasible bool) {
	load := make([][assign.Resources]float64, len(p.Capacity))
	feasible = len(plan) == len(p.Items)
	for j, b := range plan {
		i := slices.IndexFunc(p.Items[j].Options, func(o assign.Option) bool { return o.Bin == b })
		if i < 0 {
			feasible = false
			continue
		}
		o := p.Items[j].Options[i]
		cost += o.Cost
		for k, v := range o.Need {
			load[b][k] += v
		}
	}
	var tight float64
	for b := range load {
		share := 0.0
		for k, v := range load[b] {
			feasible = feasible && v <= p.Capacity[b][k]*(1+1e-9)
			share = max(share, v/p.Capacity[b][k])
		}
		tight += share
	}
	return cost, 100 * tight / float64(len(load)), feasible
}

func multiTable(out io.Writer, lines []multiLine) error {
	type sum struct {
		many                    int
		gap, worst, used, first float64
		infeasible              int
	}
	sums := make(map[string]*sum)
	var order []string
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "instance\tcost\tbound\tgap %\tfeasible\tused %\tfirst ms\ttotal ms\t")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%v\t%.6g\t%.3f\t%v\t%.1f\t%.1f\t%.0f\t\n", l.Instance, l.Cost, l.Bound, l.Gap, l.Feasible, l.Used, l.First, l.Total)
		s := sums[l.Class]
		if s == nil {
			s = &sum{used: 100}
			sums[l.Class] = s
			order = append(order, l.Class)
		}
		s.many++
		s.gap += l.Gap
		s.worst, s.used, s.first = max(s.worst, l.Gap), min(s.used, l.Used), max(s.first, l.First)
		if !l.Feasible {
			s.infeasible++
		}
	}
	fmt.Fprintln(w, "\ntype\tinstances\tinfeasible\tmean gap %\tworst gap %\tleast used %\tworst first ms\t")
	for _, class := range order {
		s := sums[class]
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t%.3f\t%.1f\t%.1f\t\n", class, s.many, s.infeasible, s.gap/float64(s.many), s.worst, s.used, s.first)
	}
	return w.Flush()
}
