package planreport

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// maxColumns is how many kinds of environments the matrix shows side by side; with more
// it goes downwards. maxRows bounds tables that grow with the fleet; --json has all.
const (
	maxColumns = 6
	maxRows    = 200
	maxNames   = 4 // of what runs on one environment
)

// Write prints the report for people.
func (r *Report) Write(w io.Writer) error {
	p := &printer{w: w}
	p.line("%s: %d replicas, %d environments; a millisecond weighs %s, one per hour %s; reserve %s; mode %s",
		r.File, r.Totals.Replicas, len(r.Environments), r.Settings.WeightLatency, r.Settings.WeightCost, r.Settings.Reserve, r.Settings.Mode)
	for _, n := range r.Notes {
		p.line("note: %s", n)
	}
	r.matrix(p)
	r.plan(p)
	r.waiting(p)
	r.use(p)
	r.totals(p)
	r.comparison(p)
	r.explanations(p)
	return p.err
}

// printer keeps the first error of many writes.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format+"\n", args...); p.err == nil {
		p.err = err
	}
}

// table prints rows in columns, indented, the first row being the head.
func (p *printer) table(rows [][]string) {
	more := len(rows) - 1 - maxRows
	if more > 0 {
		rows = rows[:maxRows+1]
	}
	var b strings.Builder
	// Two spaces between columns.
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
	}
	if err := t.Flush(); p.err == nil {
		p.err = err
	}
	for line := range strings.Lines(b.String()) {
		p.line("%s", strings.TrimRight(line, " \n"))
	}
	if more > 0 {
		p.line("  … and %d more; --json has all", more)
	}
}

// matrix prints the matching matrix, environments that are alike only once.
func (r *Report) matrix(p *printer) {
	if len(r.Matrix) == 0 {
		return
	}
	groups := r.alike()
	cell := make(map[string]Cell, len(r.Matrix))
	var tasks []string
	for _, c := range r.Matrix {
		cell[c.Task+"/"+c.Environment] = c
		if len(tasks) == 0 || tasks[len(tasks)-1] != c.Task {
			tasks = append(tasks, c.Task)
		}
	}
	title := "\nMatching matrix: delay in ms / cost per hour (✗: cannot be placed there, and why)"
	if slices.ContainsFunc(r.Matrix, func(c Cell) bool { return c.Measured }) {
		title += "; what was measured has the model's delay in brackets"
	}
	if slices.ContainsFunc(r.Matrix, func(c Cell) bool { return c.Penalty > 0 }) {
		title += "; + score for preferences that are not met"
	}
	p.line("%s", title)
	if len(groups) > maxColumns {
		rows := [][]string{{"TASK", "ENVIRONMENT", "DELAY / COST"}}
		for _, t := range tasks {
			for _, g := range groups {
				rows = append(rows, []string{t, g.label, cell[t+"/"+g.id].text()})
			}
		}
		p.table(rows)
		return
	}
	rows := [][]string{{"TASK"}}
	for _, g := range groups {
		rows[0] = append(rows[0], g.label)
	}
	for _, t := range tasks {
		row := []string{t}
		for _, g := range groups {
			row = append(row, cell[t+"/"+g.id].text())
		}
		rows = append(rows, row)
	}
	p.table(rows)
}

// delay says a delay, and what the model says where it was measured.
func delay(ms, modelled Num, measured bool) string {
	if measured {
		return ms.String() + " measured (" + modelled.String() + ")"
	}
	return ms.String()
}

func (c Cell) text() string {
	s := delay(c.Delay, c.Modelled, c.Measured) + " / " + c.Cost.String()
	if c.Penalty > 0 {
		s += " + " + c.Penalty.String()
	}
	var why []string
	for _, x := range c.Reasons {
		why = append(why, x.Constraint)
	}
	switch {
	case len(why) == 0:
		return s
	case c.Feasible && !slices.ContainsFunc(c.Reasons, func(x Reason) bool {
		return x.Constraint != "compute" && x.Constraint != "storage" && x.Constraint != "network"
	}):
		return s + " ✗ " + strings.Join(why, ", ") + " (reserve)"
	}
	return s + " ✗ " + strings.Join(why, ", ")
}

// group is environments of which every task says the same.
type group struct{ id, label string }

func (r *Report) alike() []group {
	says := make(map[string]*strings.Builder)
	for _, c := range r.Matrix {
		b := says[c.Environment]
		if b == nil {
			b = &strings.Builder{}
			says[c.Environment] = b
		}
		b.WriteString(c.text() + "\n")
	}
	count := make(map[string]int)
	key := func(e Environment) string { return string(e.Tier) + "\n" + says[e.ID].String() }
	for _, e := range r.Environments {
		count[key(e)]++
	}
	var out []group
	seen := make(map[string]bool)
	for _, e := range r.Environments {
		k := key(e)
		if seen[k] {
			continue
		}
		seen[k] = true
		label := e.ID
		if n := count[k]; n > 1 {
			label = fmt.Sprintf("%s (and %d like it)", e.ID, n-1)
		}
		out = append(out, group{e.ID, label})
	}
	return out
}

func (r *Report) plan(p *printer) {
	if len(r.Assignments) == 0 {
		p.line("\nPlan: nothing is placed")
		return
	}
	p.line("\nPlan")
	// The score is the last; what only some fleets have is left out of the others.
	rows := [][]string{{"REPLICA", "ENVIRONMENT", "TIER", "DELAY MS", "LIMIT MS", "SLACK MS", "COST/H", "PENALTY", "SCORE"}}
	for _, a := range r.Assignments {
		limit, slack := "–", "–"
		if a.Limit > 0 {
			limit, slack = a.Limit.String(), a.Slack.String()
		}
		rows = append(rows, []string{a.Replica, a.Environment, string(a.Tier), delay(a.Delay, a.Modelled, a.Measured), limit, slack,
			a.Cost.String(), a.Penalty.String(), a.Score.String()})
	}
	if r.Totals.Penalty == 0 {
		at := slices.Index(rows[0], "PENALTY")
		for i := range rows {
			rows[i] = slices.Delete(rows[i], at, at+1)
		}
	}
	p.table(rows)
}

func (r *Report) waiting(p *printer) {
	if len(r.Waiting) == 0 {
		return
	}
	p.line("\nWAITING: %d of %d replicas fit nowhere", len(r.Waiting), r.Totals.Replicas)
	for i, shown := 0, 0; i < len(r.Waiting); shown++ {
		if shown == maxRows {
			p.line("  … and %d more; --json has all", len(r.Waiting)-i)
			return
		}
		// Equal replicas wait for equal reasons.
		x := r.Waiting[i]
		var names []string
		for ; i < len(r.Waiting) && r.Waiting[i].Task == x.Task && r.Waiting[i].Fix == x.Fix && slices.Equal(r.Waiting[i].Reasons, x.Reasons); i++ {
			names = append(names, r.Waiting[i].Replica)
		}
		p.line("  %s", strings.Join(names, ", "))
		for _, y := range x.Reasons {
			p.line("    %s ✗ %s: %s", y.Environment, y.Constraint, y.Text)
		}
		each := ""
		if len(names) > 1 {
			each = " one of them"
		}
		p.line("    to place%s: %s", cmp.Or(each, " it"), x.Fix)
	}
}

// use prints what is taken of every environment that runs something; the others are
// only counted.
func (r *Report) use(p *printer) {
	rows := [][]string{{"ENVIRONMENT", "TIER", "TFLOPS", "GB", "MBPS", "COST/H", "RUNS"}}
	idle := 0
	for _, e := range r.Environments {
		if len(e.Replicas) == 0 {
			idle++
			continue
		}
		rows = append(rows, []string{e.ID, string(e.Tier), e.Compute.text(), e.Storage.text(), e.Network.text(), e.Cost.String(), first(e.Replicas, maxNames)})
	}
	if len(rows) == 1 {
		return
	}
	p.line("\nUse of environments: used / free / may be planned")
	p.table(rows)
	if idle > 0 {
		p.line("  %d more run nothing", idle)
	}
}

func (u Use) text() string {
	if u.Planned == 0 {
		return u.Used.String() + " / 0 / 0"
	}
	return fmt.Sprintf("%s / %s / %s (%.0f %%)", u.Used, u.Free, u.Planned, 100*float64(u.Used/u.Planned))
}

// first lists n names, and counts the rest.
func first(names []string, n int) string {
	if len(names) > n {
		return strings.Join(names[:n], ", ") + fmt.Sprintf(" and %d more", len(names)-n)
	}
	return strings.Join(names, ", ")
}

func (r *Report) totals(p *printer) {
	t := r.Totals
	p.line("\nTotals: %d of %d replicas placed", t.Placed, t.Replicas)
	if t.Placed == 0 {
		return
	}
	p.line("  delay %s ms (one request of each task: %s ms), cost %s per hour", t.Delay, t.DelayEach, t.Cost)
	if t.Penalty > 0 {
		p.line("  preferences that are not met: %s of the score", t.Penalty)
	}
	p.line("  score %s; no plan of these replicas scores below %s, so it is at most %s above the best", t.Score, t.Bound, percent(t.Gap))
}

func (r *Report) comparison(p *printer) {
	if len(r.Comparison) == 0 {
		return
	}
	p.line("\nCompared with: delay of one request of each task, cost per hour, what the plan saves")
	rows := [][]string{{"", "DELAY MS", "SAVED", "COST/H", "SAVED", "POSSIBLE"},
		{"hybrid (this plan)", r.Totals.DelayEach.String(), "", r.Totals.Cost.String(), "", "yes"}}
	for _, c := range r.Comparison {
		if c.Name == hybrid { // the first row, whether it was asked for or not
			continue
		}
		possible := "yes"
		if !c.Possible {
			possible = "no"
		}
		if c.Note != "" && c.Delay == 0 {
			rows = append(rows, []string{c.Name, "–", "", "–", "", c.Note})
			continue
		}
		if c.Note != "" {
			possible += ", " + c.Note
		}
		rows = append(rows, []string{c.Name, c.DelayEach.String(), percent(c.DelaySaved), c.Cost.String(), percent(c.CostSaved), possible})
	}
	p.table(rows)
	for _, c := range r.Comparison {
		for i, b := range c.Broken {
			if i == 3 && len(c.Broken) > 4 {
				p.line("    %s: … and %d more", c.Name, len(c.Broken)-i)
				break
			}
			p.line("    %s ✗ %s: %s", c.Name, b.Constraint, b.Text)
		}
	}
}

func (r *Report) explanations(p *printer) {
	for _, e := range r.Explanations {
		p.line("\nWhy %s", e.Replica)
		rows := make([][]string, 0, len(e.Verdicts)+1)
		rows = append(rows, []string{"ENVIRONMENT", ""})
		for _, v := range e.Verdicts {
			mark := "✗ "
			switch {
			case v.Chosen:
				mark = "✓ "
			case len(v.Reasons) == 0:
				mark = "  "
			}
			rows = append(rows, []string{v.Environment, mark + v.Text})
		}
		p.table(rows)
		if e.Waiting {
			p.line("  it waits; to place it: %s", e.Fix)
		}
	}
}
