package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// gapLine is the result for one file. Cost and Feasible are recomputed from the file,
// and Feasible says that every job is placed and no agent is over its capacity.
type gapLine struct {
	Instance string  `json:"instance"`
	Agents   int     `json:"agents"`
	Jobs     int     `json:"jobs"`
	Cost     float64 `json:"cost"`
	Bound    float64 `json:"bound"`
	Feasible bool    `json:"feasible"`
	First    float64 `json:"first_ms"` // until the first feasible plan; -1 without one
	Total    float64 `json:"total_ms"`
}

// gap solves files of the public format, each within a time.
func gap(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("gap", flag.ContinueOnError)
	limit := flags.Duration("time", time.Second, "time for each instance")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	bestFile := flags.String("best", "", "table of the best known values (CSV: instance, best)")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: bench gap [flags] FILE…")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("gap: name the files to solve")
	}
	if *limit <= 0 {
		return fmt.Errorf("gap: --time is %v; it has to be more than 0", *limit)
	}
	var best map[string]float64
	if *bestFile != "" {
		f, err := os.Open(*bestFile)
		if err != nil {
			return err
		}
		defer f.Close()
		if best, err = readBest(f); err != nil {
			return fmt.Errorf("%s: %w", *bestFile, err)
		}
	}
	var lines []gapLine
	for _, name := range flags.Args() {
		line, err := solveGap(name, *limit)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if *asJSON {
			text, err := json.Marshal(line)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(out, string(text)); err != nil {
				return err
			}
			continue
		}
		lines = append(lines, line)
	}
	if *asJSON {
		return nil
	}
	return gapTable(out, lines, best)
}

func solveGap(name string, limit time.Duration) (gapLine, error) {
	f, err := os.Open(name)
	if err != nil {
		return gapLine{}, err
	}
	defer f.Close()
	g, err := readGap(f)
	if err != nil {
		return gapLine{}, err
	}
	p := g.instance()
	line := gapLine{Instance: filepath.Base(name), Agents: g.agents, Jobs: g.jobs, First: -1}
	start := time.Now()
	ms := func() float64 { return math.Round(float64(time.Since(start).Microseconds())) / 1000 }
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
		return gapLine{}, err
	}
	line.Total, line.Bound = ms(), res.Bound
	line.Cost, line.Feasible = g.verify(res.Assign)
	if !line.Feasible {
		line.First = -1
	}
	return line, nil
}

// gapTable prints a line an instance, and with best known values the gap to them and
// the mean of every class: the letters and digits before the size in a name.
func gapTable(out io.Writer, lines []gapLine, best map[string]float64) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "instance\tagents\tjobs\tcost\tbound\tfeasible\tfirst ms\ttotal ms\tbest\tgap %\t")
	gaps, firsts := make(map[string][]float64), make(map[string][]float64)
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%d\t%d\t%v\t%.6g\t%v\t%.1f\t%.0f\t", l.Instance, l.Agents, l.Jobs, l.Cost, l.Bound, l.Feasible, l.First, l.Total)
		if b, ok := best[l.Instance]; ok {
			gap := 100 * (l.Cost/b - 1)
			class := classOf(l)
			gaps[class], firsts[class] = append(gaps[class], gap), append(firsts[class], l.First)
			fmt.Fprintf(w, "%v\t%.3f\t\n", b, gap)
		} else {
			fmt.Fprint(w, "\t\t\n")
		}
	}
	if len(gaps) > 0 {
		fmt.Fprintln(w, "\nclass\tinstances\tmean gap %\tworst gap %\tworst first ms\t")
		var classes []string
		for class := range gaps {
			classes = append(classes, class)
		}
		slices.Sort(classes)
		for _, class := range classes {
			var sum float64
			for _, g := range gaps[class] {
				sum += g
			}
			fmt.Fprintf(w, "%s\t%d\t%.4f\t%.3f\t%.1f\t\n", class, len(gaps[class]), sum/float64(len(gaps[class])), slices.Max(gaps[class]), slices.Max(firsts[class]))
		}
	}
	return w.Flush()
}

// classOf is what the table groups by: c20400 is of class c, gap3-1 of gap.
func classOf(l gapLine) string {
	if i := strings.IndexAny(l.Instance, "0123456789"); i > 0 {
		return l.Instance[:i]
	}
	return l.Instance
}
