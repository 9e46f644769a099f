package alloc

import (
	"math"
	"strconv"

	"github.com/fleetbus/fleetbus/messages"
)

// Delay is the modelled delay of one request of t on e, ms. It is +Inf where the
// task needs compute or network and the environment has none; never NaN.
func Delay(t messages.Task, e messages.Environment) float64 {
	return ratio(t.WorkGFLOP(), e.Capacity.Compute) + ratio(t.TransferKbit(), e.Capacity.Network) + e.Latency
}

// Cost is what t costs on e when nothing else runs there, per hour: its share of
// the price, or the whole price where e is billed whole, and its fixed cost.
func Cost(t messages.Task, e messages.Environment) float64 {
	if e.Billing == messages.Whole {
		return e.Price + t.Cost
	}
	return ratio(e.Price*t.Demand.Compute, e.Capacity.Compute) + t.Cost
}

// Score weighs a delay (ms) and a cost (per hour): lower is better.
func Score(s messages.Settings, delay, cost float64) float64 {
	return weigh(s.WeightLatency, delay) + weigh(s.WeightCost, cost)
}

// Penalty is the score that t pays on e for what it prefers and has not got there.
func Penalty(t messages.Task, e messages.Environment) float64 {
	if t.Prefer == nil {
		return 0
	}
	return t.Prefer.Weight() * float64(t.Prefer.CountUnmet(e))
}

// Feasible reports whether t alone may run on e by the model: every demand within
// the capacity (the reserve is the plan's business) and the delay within the limit.
func Feasible(t messages.Task, e messages.Environment) bool { return feasible(t, e, Delay(t, e)) }

// feasible is Feasible with a delay that may be another than the modelled one.
func feasible(t messages.Task, e messages.Environment, delay float64) bool {
	if !usable(delay) || !withinLimit(delay, t.Limit) {
		return false
	}
	need, have := vector(t.Demand), vector(e.Capacity)
	for k := range need {
		if !fits(need[k], have[k]) {
			return false
		}
	}
	return true
}

// ratio is a / b, 0 for nothing to do and +Inf for something to do with nothing.
func ratio(a, b float64) float64 {
	switch {
	case a == 0:
		return 0
	case b == 0:
		return math.Inf(1)
	}
	return a / b
}

// weigh keeps 0 · Inf from becoming NaN: what has no weight counts for nothing.
func weigh(w, v float64) float64 {
	if w == 0 {
		return 0
	}
	return w * v
}

// unusable is the delay (ms; some 30,000 years) or cost from which on a placement
// is refused. It keeps sums of scores finite whatever an agent claims to be.
const unusable = 1e15

func usable(v float64) bool { return v < unusable }

// tolerance forgives the rounding of float64 sums. It is half of what
// messages.Resources.Within forgives, so that what is planned here always passes
// there, in whatever order the sum is made.
const tolerance = 5e-10

func fits(need, have float64) bool {
	return need <= have+tolerance*max(1, math.Abs(have))
}

// withinLimit: a limit of 0 or less means none.
func withinLimit(delay, limit float64) bool { return limit <= 0 || fits(delay, limit) }

// resources is how many resources a plan keeps within bounds.
const resources = 3

type resourceKind struct {
	constraint Constraint
	unit       string
}

// kinds describes them, in the order of vector.
var kinds = [resources]resourceKind{
	{ConstraintCompute, "TFLOPS"},
	{ConstraintStorage, "GB"},
	{ConstraintNetwork, "Mbps"},
}

func vector(r messages.Resources) [resources]float64 {
	return [resources]float64{r.Compute, r.Storage, r.Network}
}

// planned is what of e a plan may use: the reserve stays free of the capacity, and
// what others use is gone.
func planned(e Environment, reserve float64) [resources]float64 {
	have, foreign := vector(e.Capacity), vector(e.Foreign)
	for k := range have {
		have[k] = max(0, (1-reserve)*have[k]-foreign[k])
	}
	return have
}

// num renders a number for people: at most nine significant digits.
func num(v float64) string {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 9, 64), 64)
	if err != nil || math.Abs(r) >= 1e15 || (r != 0 && math.Abs(r) < 1e-6) {
		return strconv.FormatFloat(v, 'g', 9, 64)
	}
	return strconv.FormatFloat(r, 'f', -1, 64)
}
