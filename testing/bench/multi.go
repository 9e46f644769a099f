package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// multiLine is the result for one instance. Cost, Feasible and Used are recomputed. What
// is not known, or makes no sense without a feasible plan, is left out.
type multiLine struct {
	Instance  string   `json:"instance"`
	Class     string   `json:"-"`
	Bins      int      `json:"bins"`
	Items     int      `json:"items"`
	Cost      float64  `json:"cost"`
	Bound     float64  `json:"bound"`
	Gap       *float64 `json:"gap_pct,omitempty"` // certified: to the bound of this run
	Best      float64  `json:"best,omitempty"`    // the best known cost and bound, before this run
	BestBound float64  `json:"best_bound,omitempty"`
	BestGap   *float64 `json:"best_gap_pct,omitempty"` // to the best known cost; below 0: better
	Feasible  bool     `json:"feasible"`
	Used      float64  `json:"used_pct"` // of the tightest resource of each bin, the mean
	First     float64  `json:"first_ms"` // until the first feasible plan; -1 without one
	Total     float64  `json:"total_ms"`
	News      string   `json:"news,omitempty"` // what is better than known
}

// multi solves the own set of instances with three resources.
func multi(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("multi", flag.ContinueOnError)
	limit := flags.Duration("time", time.Second, "time for each instance")
	seeds := flags.Int("seeds", 3, "instances of each type and size; 3 are in the set")
	least := flags.Int("items", 0, "only sizes with at least so many items")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	r := multiRun{out: out, name: "multi.csv", solve: assign.Solve}
	flags.Func("update", "compare with the set in this `file`, and keep there what is better; the file is made if missing", func(path string) error {
		if path == "" {
			return errors.New("name the file, as in --update testing/bench/multi.csv")
		}
		r.update, r.name = path, path
		return nil
	})
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("multi: %q is no flag; it takes no files", flags.Arg(0))
	}
	if *limit <= 0 {
		return fmt.Errorf("multi: --time is %v; it has to be more than 0", *limit)
	}
	if *seeds < 1 {
		return fmt.Errorf("multi: --seeds is %d; it has to be more than 0", *seeds)
	}
	names := multiNames(*seeds, *least)
	if len(names) == 0 {
		return fmt.Errorf("multi: --items is %d; no size has so many, the largest has %d", *least, multiSizes[len(multiSizes)-1][1])
	}
	var err error
	if r.set, err = readMultiSet(bytes.NewReader(multiCSV)); r.update != "" {
		r.set, err = loadMultiSet(r.update)
	}
	if err != nil {
		return fmt.Errorf("multi: %w", err)
	}
	r.limit, r.asJSON = *limit, *asJSON
	return r.run(names)
}

// multiNames are the instances of the first so many seeds, of the sizes with at least so
// many items.
func multiNames(seeds, least int) (names []multiName) {
	for _, class := range multiClasses {
		for _, size := range multiSizes {
			for seed := range seeds {
				if size[1] >= least {
					names = append(names, multiName{class, size[0], size[1], uint64(seed + 1)})
				}
			}
		}
	}
	return names
}

// multiRun solves instances one after the other and compares them with a set.
type multiRun struct {
	out    io.Writer
	asJSON bool
	limit  time.Duration // for each instance
	set    multiSet
	name   string // of the set's file, for people
	update string // the file that keeps what is better; empty: none
	solve  func(*assign.Instance, assign.Options) (assign.Result, error)
}

// run solves and prints the named instances. What cannot be right is an error, told after
// all were solved.
func (r *multiRun) run(names []multiName) error {
	var lines []multiLine
	var wrong []error
	for _, n := range names {
		line, err := r.one(n)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("multi: %s: %w", n, err))
		}
		lines = append(lines, line)
		if !r.asJSON {
			continue
		}
		text, err := json.Marshal(line)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(r.out, string(text)); err != nil {
			return err
		}
	}
	if !r.asJSON {
		if err := r.table(lines); err != nil {
			return err
		}
	}
	return errors.Join(wrong...)
}

// one solves an instance, compares it with the set, and keeps in the set what is better.
func (r *multiRun) one(n multiName) (multiLine, error) {
	line := multiLine{Instance: n.String(), Class: fmt.Sprintf("%s n=%d", n.class, n.items), Bins: n.bins, Items: n.items, First: -1}
	p, err := n.generate()
	if err != nil {
		return line, err
	}
	sum := checksum(p)
	k, ok := r.set[n]
	if changed := ok && k.checksum != sum; changed && r.update == "" {
		return line, fmt.Errorf("its checksum is %s, and %s in %s: the generator has changed; make the set anew with --update", sum, k.checksum, r.name)
	} else if changed {
		k, ok = known{}, false
	}
	start := time.Now()
	ms := func() float64 { return float64(time.Since(start).Microseconds()) / 1000 }
	res, err := r.solve(p, assign.Options{
		Budget: math.MaxInt,
		Stop:   func() bool { return time.Since(start) >= r.limit },
		Improved: func(_ float64, waiting int) {
			if waiting == 0 && line.First < 0 {
				line.First = ms()
			}
		},
	})
	if err != nil {
		return line, err
	}
	line.Total, line.Bound = ms(), res.Bound
	v := verifyMulti(p, res.Assign)
	line.Cost, line.Used, line.Feasible = v.cost, v.used, v.feasible()
	if line.Feasible {
		line.Gap = percent(line.Cost, line.Bound)
	} else {
		line.First = -1
	}
	if ok {
		line.Best, line.BestBound = k.best, k.bound
		if line.Feasible {
			line.BestGap = percent(line.Cost, k.best)
		}
	}
	if err := errors.Join(v.fault, line.fault(res)); err != nil {
		return line, err
	}
	return line, r.keep(n, k, sum, &line)
}

// percent is how much cost is over base.
func percent(cost, base float64) *float64 {
	if base == 0 || math.IsInf(base, 0) {
		return nil
	}
	v := 100 * (cost/base - 1)
	return &v
}

// keep says in the line what is better than k, and with --update writes it down; k is zero
// for an instance that the set does not have, or has otherwise.
func (r *multiRun) keep(n multiName, k known, sum string, line *multiLine) error {
	isNew := k.best == 0
	if isNew && r.update == "" {
		return nil
	}
	if isNew && !line.Feasible {
		return fmt.Errorf("no feasible plan within %v, so it is not in %s: give it more --time", r.limit, r.name)
	}
	cost, bound := line.Feasible && (isNew || line.Cost < k.best), line.Bound > k.bound
	if cost {
		k.best = line.Cost
	}
	if bound {
		k.bound = line.Bound
	}
	switch {
	case isNew:
		line.News = "new"
	case cost && bound:
		line.News = "better cost and bound"
	case cost:
		line.News = "better cost"
	case bound:
		line.News = "better bound"
	}
	if line.News == "" || r.update == "" {
		return nil
	}
	k.checksum = sum
	r.set[n] = k
	// After each, so that one who is interrupted loses nothing.
	return r.set.save(r.update)
}
