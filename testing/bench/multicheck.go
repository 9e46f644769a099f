package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// digits is how much, as a part of it, a sum of decimal fractions may be off.
const digits = 1e-9

// verified is what a plan really is.
type verified struct {
	cost    float64 // of what is placed
	used    float64 // of the tightest resource of each bin in percent, the mean
	waiting int
	fault   error // a plan that is none: over a capacity, in a bin that is not allowed
}

// feasible says that everything is placed as it may be.
func (v verified) feasible() bool { return v.waiting == 0 && v.fault == nil }

// verifyMulti recomputes what a plan costs and uses, and whether it keeps the capacities;
// nothing of the engine is used.
func verifyMulti(p *assign.Instance, plan []int) (v verified) {
	if len(plan) != len(p.Items) {
		return verified{fault: fmt.Errorf("the plan has %d places for %d items", len(plan), len(p.Items))}
	}
	var faults []error
	load := make([][assign.Resources]float64, len(p.Capacity))
	for j, b := range plan {
		if b == -1 {
			v.waiting++
			continue
		}
		i := slices.IndexFunc(p.Items[j].Options, func(o assign.Option) bool { return o.Bin == b })
		if i < 0 {
			faults = append(faults, fmt.Errorf("item %d is in bin %d, which it may not be", j, b))
			continue
		}
		o := p.Items[j].Options[i]
		v.cost += o.Cost
		for k, need := range o.Need {
			load[b][k] += need
		}
	}
	for b := range load {
		share := 0.0
		for k, l := range load[b] {
			has := p.Capacity[b][k]
			if l > has*(1+digits) {
				faults = append(faults, fmt.Errorf("bin %d uses %v of its %v of resource %d", b, l, has, k))
			}
			if has > 0 {
				share = max(share, l/has)
			}
		}
		v.used += 100 * share / float64(len(load))
	}
	v.fault = errors.Join(faults...)
	return v
}

// fault compares the line with what the engine says of its plan, with the line's own bound,
// and with what is known. No cost may be under any bound: where one is, the plan, the
// bound or the set is wrong.
func (l multiLine) fault(res assign.Result) error {
	var faults []error
	under := func(a, b float64) bool { return a < b-digits*max(1, math.Abs(b)) }
	if res.Feasible != l.Feasible {
		faults = append(faults, fmt.Errorf("feasible is %v by the engine, and %v recomputed", res.Feasible, l.Feasible))
	}
	if under(l.Cost, res.Cost) || under(res.Cost, l.Cost) {
		faults = append(faults, fmt.Errorf("cost is %v by the engine, and %v recomputed", res.Cost, l.Cost))
	}
	if math.IsNaN(l.Bound) || l.Feasible && under(l.Cost, l.Bound) {
		faults = append(faults, fmt.Errorf("bound %v is over cost %v", l.Bound, l.Cost))
	}
	if l.Best > 0 && under(l.Best, l.Bound) {
		faults = append(faults, fmt.Errorf("bound %v is over the best known cost %v", l.Bound, l.Best))
	}
	if l.Best > 0 && l.Feasible && under(l.Cost, l.BestBound) {
		faults = append(faults, fmt.Errorf("cost %v is under the best known bound %v", l.Cost, l.BestBound))
	}
	return errors.Join(faults...)
}

// multiSum is what the table says of a type and size.
type multiSum struct {
	many, infeasible   int
	gaps, best         []float64
	worst, used, first float64
}

// table prints a line an instance, then a line a type and size, with the means of the
// feasible ones.
func (r *multiRun) table(lines []multiLine) error {
	sums := make(map[string]*multiSum)
	var order []string
	better := 0
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "instance\tcost\tbound\tgap %\tbest\tbest bound\tto best %\tfeasible\tused %\tfirst ms\ttotal ms\tnews\t")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%v\t%.6g\t%s\t%s\t%s\t%s\t%v\t%.1f\t%.1f\t%.0f\t%s\t\n", l.Instance, l.Cost, l.Bound, digits3(l.Gap),
			ifKnown(l.Best), ifKnown(l.BestBound), digits3(l.BestGap), l.Feasible, l.Used, l.First, l.Total, l.News)
		s := sums[l.Class]
		if s == nil {
			s = &multiSum{used: 100}
			sums[l.Class] = s
			order = append(order, l.Class)
		}
		s.many++
		if l.Gap != nil {
			s.gaps, s.worst = append(s.gaps, *l.Gap), max(s.worst, *l.Gap)
		}
		if l.BestGap != nil {
			s.best = append(s.best, *l.BestGap)
		}
		s.used, s.first = min(s.used, l.Used), max(s.first, l.First)
		if !l.Feasible {
			s.infeasible++
		}
		if l.News != "" {
			better++
		}
	}
	fmt.Fprintln(w, "\ntype\tinstances\tinfeasible\tmean gap %\tworst gap %\tmean to best %\tleast used %\tworst first ms\t")
	for _, class := range order {
		s := sums[class]
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%.3f\t%s\t%.1f\t%.1f\t\n", class, s.many, s.infeasible, digits3(mean(s.gaps)), s.worst, digits3(mean(s.best)), s.used, s.first)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if better == 0 {
		return nil
	}
	what := "kept in " + r.name
	if r.update == "" {
		what = "keep them with --update FILE, the set is testing/bench/" + r.name
	}
	_, err := fmt.Fprintf(r.out, "\n%d better or new: %s\n", better, what)
	return err
}

func mean(list []float64) *float64 {
	if len(list) == 0 {
		return nil
	}
	var sum float64
	for _, v := range list {
		sum += v / float64(len(list))
	}
	return &sum
}

func digits3(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *v)
}

func ifKnown(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprint(v)
}
