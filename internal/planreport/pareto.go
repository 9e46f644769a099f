package planreport

import (
	"cmp"
	"math"
	"slices"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
)

// Frontier is what a fleet can have: every trade of delay against cost that some pair of
// weights chooses and no other beats in both.
type Frontier struct {
	File   string  `json:"file"`
	Fleet  string  `json:"fleet"`
	Points []Point `json:"points"` // by delay, the fastest first
	Plans  int     `json:"plans"`  // how many plans were made
	Note   string  `json:"note,omitempty"`
}

// Point is one plan on the frontier.
type Point struct {
	DelayEach     Num      `json:"delay_each_ms"` // one request of each task: the sum of their mean delays
	Delay         Num      `json:"delay_ms"`
	Cost          Num      `json:"cost_per_hour"`
	Placed        int      `json:"placed"`
	Waiting       int      `json:"waiting"`
	WeightLatency Num      `json:"weight_latency"` // weights that choose it; the ratio nearest to 1 of those tried
	WeightCost    Num      `json:"weight_cost"`
	Presets       []string `json:"presets"` // those whose weights choose it, with the file's reserve

	Assignments []Assignment `json:"assignments"`
}

// sweepSteps ratios of the two weights are tried, evenly on a logarithmic scale from
// 10^-sweepDecades to 10^sweepDecades, and the two ends where one of them is 0. A
// millisecond and a unit of currency differ by a few orders of magnitude at most.
const (
	sweepSteps   = 61
	sweepDecades = 4
	maxWeight    = 10 // the largest weight that is allowed
)

// Pareto sweeps the weights and returns the frontier. Plans that leave more replicas
// waiting than others are left out: they are not cheaper, they do less.
func Pareto(f *fleetfile.File) (*Frontier, error) {
	out := &Frontier{File: f.Name, Fleet: f.Fleet, Points: []Point{}}
	var all []Point
	try := func(latency, cost float64, preset string) error {
		settings := f.Planning()
		settings.WeightLatency, settings.WeightCost = latency, cost
		g := *f
		g.Settings, g.Baselines = &settings, nil
		r, err := Build(&g)
		if err != nil {
			return err
		}
		out.Plans++
		p := Point{DelayEach: r.Totals.DelayEach, Delay: r.Totals.Delay, Cost: r.Totals.Cost, Placed: r.Totals.Placed, Waiting: r.Totals.Waiting,
			WeightLatency: Num(latency), WeightCost: Num(cost), Presets: []string{}, Assignments: r.Assignments}
		if preset != "" {
			p.Presets = append(p.Presets, preset)
		}
		all = append(all, p)
		return nil
	}
	for i := range sweepSteps {
		ratio := math.Pow(10, sweepDecades*(2*float64(i)/(sweepSteps-1)-1))
		if err := try(maxWeight*min(1, 1/ratio), maxWeight*min(1, ratio), ""); err != nil {
			return nil, err
		}
	}
	for _, w := range [][2]float64{{maxWeight, 0}, {0, maxWeight}} {
		if err := try(w[0], w[1], ""); err != nil {
			return nil, err
		}
	}
	presets := messages.Presets()
	for _, name := range []string{"realtime", "balanced", "cost"} {
		if err := try(presets[name].WeightLatency, presets[name].WeightCost, name); err != nil {
			return nil, err
		}
	}
	out.Points = frontier(all)
	if len(out.Points) == 1 {
		out.Note = "one plan is best whatever the weights: nothing can be traded"
	}
	return out, nil
}

// frontier keeps what no other point beats, one point for each pair of delay and cost.
func frontier(all []Point) []Point {
	most := 0
	for _, p := range all {
		most = max(most, p.Placed)
	}
	all = slices.DeleteFunc(all, func(p Point) bool { return p.Placed < most })
	// Of equal plans the one whose weights differ least stands for the others.
	balance := func(p Point) float64 {
		if p.WeightLatency == 0 || p.WeightCost == 0 {
			return math.Inf(1)
		}
		return math.Abs(math.Log(float64(p.WeightLatency / p.WeightCost)))
	}
	slices.SortStableFunc(all, func(a, b Point) int {
		return cmp.Or(cmp.Compare(round(a.DelayEach), round(b.DelayEach)), cmp.Compare(round(a.Cost), round(b.Cost)), cmp.Compare(balance(a), balance(b)))
	})
	out := []Point{}
	for _, p := range all {
		last := len(out) - 1
		if last >= 0 && round(out[last].DelayEach) == round(p.DelayEach) && round(out[last].Cost) == round(p.Cost) {
			for _, name := range p.Presets {
				if !slices.Contains(out[last].Presets, name) {
					out[last].Presets = append(out[last].Presets, name)
				}
			}
			continue
		}
		if last >= 0 && round(out[last].Cost) <= round(p.Cost) {
			continue // slower, and no cheaper
		}
		out = append(out, p)
	}
	return out
}

// round makes two sums of the same numbers in another order equal.
func round(n Num) float64 {
	v := float64(n)
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	scale := math.Pow(10, 9-math.Ceil(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
