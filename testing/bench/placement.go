package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"
)

// growthSizes are the environments of the rows of --growth, with growthPer replicas each.
var growthSizes = []int{1_000, 3_000, 10_000, 30_000}

const growthPer = 3

// What --runs 0 means: runs are begun as long as all of them have taken less than
// enoughTime, at most enoughRuns. It leaves a size that solves in 3 s its five runs, and a
// benchmark with default flags under 60 s.
const (
	enoughRuns = 5
	enoughTime = 30 * time.Second
)

// placementLine is one figure.
type placementLine struct {
	Bench  string  `json:"bench"`
	Case   string  `json:"case"`
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
}

// placement plans a generated fleet, and repairs the plan after an edge is lost. It
// uses one thread.
func placement(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("placement", flag.ContinueOnError)
	environments := flags.Int("environments", 10_000, "environments of the fleet")
	replicas := flags.Int("replicas", 30_000, "replicas to place")
	seed := flags.Uint64("seed", 1, "seed of the generated fleet")
	runs := flags.Int("runs", 0, "runs that the medians are of; 0: 5, or as many as begin within 30 s")
	growth := flags.Bool("growth", false, "fleets of 1,000 to 30,000 environments with three replicas each")
	clouds := flags.String("clouds", "tight", "tight: as scarce as the sites; roomy: with room for all that could come")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("placement: %q is no flag; it takes no files", flags.Arg(0))
	}
	if *runs < 0 || *runs > 1000 {
		return fmt.Errorf("placement: --runs is %d; allowed are 0 to 1000", *runs)
	}
	if *clouds != "tight" && *clouds != "roomy" {
		return fmt.Errorf("placement: --clouds is %q; allowed are tight and roomy", *clouds)
	}
	sizes := [][2]int{{*environments, *replicas}}
	if *growth {
		var clash error
		flags.Visit(func(f *flag.Flag) {
			if f.Name == "environments" || f.Name == "replicas" {
				clash = fmt.Errorf("placement: --growth sets the sizes itself; leave out --%s", f.Name)
			}
		})
		if clash != nil {
			return clash
		}
		sizes = nil
		for _, n := range growthSizes {
			sizes = append(sizes, [2]int{n, growthPer * n})
		}
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var rows []placementRow
	for _, size := range sizes {
		row, err := measurePlacement(size[0], size[1], *seed, *clouds == "roomy", *runs)
		if err != nil {
			return fmt.Errorf("placement: %w", err)
		}
		rows = append(rows, row)
		if !*asJSON {
			continue
		}
		for _, f := range row.figures() {
			text, err := json.Marshal(f)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(out, string(text)); err != nil {
				return err
			}
		}
	}
	if *asJSON {
		return nil
	}
	return placementTable(out, rows)
}

func placementTable(out io.Writer, rows []placementRow) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "environments\treplicas\truns\tsolve ms\tµs a replica\tgap %\tfull\twaiting\tleast used %\trepair ms\tmoved\tforced\twaiting\tmemory MB\t")
	for _, r := range rows {
		fmt.Fprintf(w, "%d\t%d\t%d\t%.0f\t%.1f\t%.2f\t%v\t%d\t%.1f\t%.1f\t%d\t%d\t%d\t%.0f\t\n", r.environments, r.replicas, r.runs, r.solve,
			1000*r.solve/float64(r.replicas), r.gap, r.fault == "", r.waiting, r.used, r.repair, r.moved, r.forced, r.repairWaiting, r.memory)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.fault != "" {
			if _, err := fmt.Fprintf(out, "%dx%d: %s\n", r.environments, r.replicas, r.fault); err != nil {
				return err
			}
		}
	}
	return nil
}
