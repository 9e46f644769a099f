package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// printTable prints the figures, an hour after the other.
func printTable(out io.Writer, list []result) error {
	for i, r := range list {
		if i > 0 && r.hour == list[i-1].hour {
			continue
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s hour, %d requests:\n", r.hour, r.Requests)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "\tused of paid\tof machines\tmean\tp50\tp99\tcost/h\tmissed\trefused\tmoves\t")
		for _, o := range list[i:] {
			if o.hour != r.hour {
				break
			}
			fmt.Fprintf(w, "%s\t%.1f %%\t%.1f %%\t%.1f ms\t%.1f ms\t%.1f ms\t%.2f\t%.2f %%\t%.2f %%\t%d\t\n", o.scheme.name, o.Utilisation, o.Machines, o.Mean, o.P50, o.P99, o.Cost, o.Missed, o.Refused, o.Moves)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if err := printHeadlines(out, r.hour, list[i:]); err != nil {
			return err
		}
	}
	return nil
}

// sought is what the hybrid was said to be worth, for people to compare.
var sought = []string{"+20 to +40 %", "-30 to -70 %", "-15 to -30 %"}

// printHeadlines prints what the hybrid is worth: by how much its figures differ from those
// of each other case of the hour, in percent, for each of its modes.
func printHeadlines(out io.Writer, hour string, list []result) error {
	var hybrids, others []result
	for _, r := range list {
		switch {
		case r.hour != hour:
		case r.scheme.tier == "":
			hybrids = append(hybrids, r)
		default:
			others = append(others, r)
		}
	}
	if len(hybrids) == 0 || len(others) == 0 {
		return nil
	}
	var modes []string
	for _, h := range hybrids {
		modes = append(modes, strings.TrimPrefix(h.scheme.name, "hybrid-"))
	}
	fmt.Fprintf(out, "hybrid (%s) against:\n", strings.Join(modes, ", "))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tused of paid\tmean\tcost/h\t")
	for _, o := range others {
		fmt.Fprint(w, o.scheme.name)
		for _, of := range []func(*figures) float64{
			func(f *figures) float64 { return f.Utilisation }, func(f *figures) float64 { return f.Mean }, func(f *figures) float64 { return f.Cost },
		} {
			var parts []string
			for _, h := range hybrids {
				parts = append(parts, fmt.Sprintf("%+.0f", 100*(of(h.figures)/of(o.figures)-1)))
			}
			fmt.Fprintf(w, "\t%s %%", strings.Join(parts, ", "))
		}
		fmt.Fprintln(w, "\t")
	}
	fmt.Fprint(w, "sought")
	for _, s := range sought {
		fmt.Fprintf(w, "\t%s", s)
	}
	fmt.Fprintln(w, "\t")
	return w.Flush()
}

// line is one figure for programs, as `bench --json` prints them. Baseline is that of the
// first case of the same hour.
type line struct {
	Bench    string   `json:"bench"`
	Case     string   `json:"case"`
	Metric   string   `json:"metric"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline,omitempty"`
	Ratio    *float64 `json:"ratio,omitempty"`
}

type measured struct {
	metric string
	value  float64
	unit   string
}

func (f *figures) list() []measured {
	out := []measured{
		{"used_of_paid", f.Utilisation, "%"}, {"used_of_machines", f.Machines, "%"}, {"mean", f.Mean, "ms"}, {"p50", f.P50, "ms"},
		{"p99", f.P99, "ms"}, {"cost", f.Cost, "per hour"}, {"missed", f.Missed, "%"}, {"refused", f.Refused, "%"}, {"moves", float64(f.Moves), ""},
	}
	for k, v := range f.ByKind {
		name := kinds[k].name
		out = append(out, measured{name + "_mean", v.Mean, "ms"}, measured{name + "_p99", v.P99, "ms"}, measured{name + "_missed", v.Missed, "%"})
		for _, t := range tiers {
			out = append(out, measured{name + "_on_" + string(t), v.Tiers[t], "%"})
		}
	}
	return out
}

func printJSON(out io.Writer, list []result) error {
	enc := json.NewEncoder(out)
	base := make(map[string][]measured)
	for _, r := range list {
		all := r.list()
		first := base[r.hour]
		if first == nil {
			base[r.hour] = all
		}
		for i, m := range all {
			l := line{Bench: "replay", Case: r.hour + " " + r.scheme.name, Metric: m.metric, Value: round(m.value), Unit: m.unit}
			if first != nil {
				b := round(first[i].value)
				l.Baseline = &b
				if b > 0 {
					ratio := round(l.Value / b)
					l.Ratio = &ratio
				}
			}
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// The lines of the README between which the table stands.
const (
	tableBegin = "<!-- make replay writes from here -->\n"
	tableEnd   = "<!-- to here -->\n"
)

// withTable returns a text with the table put where it belongs.
func withTable(text []byte, list []result) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(tableBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ok2 {
		return nil, fmt.Errorf("no place for the table: expected the lines %q and %q, in this order", strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	var table bytes.Buffer
	if err := printTable(&table, list); err != nil {
		return nil, err
	}
	var lines []string
	for _, l := range strings.Split(strings.TrimRight(table.String(), "\n"), "\n") {
		lines = append(lines, strings.TrimRight(l, " "))
	}
	block := "```\n" + strings.Join(lines, "\n") + "\n```\n"
	return slices.Concat(before, []byte(tableBegin), []byte(block), []byte(tableEnd), after), nil
}
