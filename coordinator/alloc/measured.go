package alloc

import (
	"cmp"
	"maps"
	"math"

	"github.com/fleetbus/fleetbus/messages"
)

// Pair is one task on one environment.
type Pair struct {
	Task        string // its name
	Environment string // its id
}

// measured are the delays that count: none outside of mode adaptive.
func (p Problem) measured() map[Pair]float64 {
	if p.Settings.Mode != messages.Adaptive {
		return nil
	}
	return p.Measured
}

// checkMeasured returns the first bad delay, by task and environment.
func (p Problem) checkMeasured() error {
	var first Pair
	var found error
	for k, v := range p.Measured { // an error must not depend on the order of a map
		if found != nil && cmp.Or(cmp.Compare(k.Task, first.Task), cmp.Compare(k.Environment, first.Environment)) > 0 {
			continue
		}
		if err := messages.CheckAmount("measured delay of "+k.Task+" on "+k.Environment, v, 0, math.MaxFloat64, "ms"); err != nil {
			first, found = k, err
		}
	}
	return found
}

// measuredBy is measured by environment, and by task. A task or an environment that
// does not exist is no error: it is gone.
func (in *instance) measuredBy(p Problem) []map[string]float64 {
	var out []map[string]float64
	for k, v := range p.measured() {
		e, ok := in.byID[k.Environment]
		if !ok {
			continue
		}
		if out == nil {
			out = make([]map[string]float64, len(in.envs))
		}
		if out[e] == nil {
			out[e] = make(map[string]float64)
		}
		out[e][k.Task] = v
	}
	return out
}

// delay of t on e, ms: what was measured, where it was, else what the model says.
func (in *instance) delay(t *messages.Task, e int) (ms float64, measured bool) {
	if in.measured != nil {
		if v, ok := in.measured[e][t.Name]; ok {
			return v, true
		}
	}
	return Delay(*t, in.envs[e].Environment.Environment), false
}

// remeasured returns the environments whose measured delays differ between two problems
// of equal settings.
func remeasured(a, b *Problem) map[string]bool {
	x, y := a.measured(), b.measured()
	if maps.Equal(x, y) {
		return nil
	}
	out := make(map[string]bool)
	for k, v := range x {
		if w, ok := y[k]; !ok || v != w {
			out[k.Environment] = true
		}
	}
	for k := range y {
		if _, ok := x[k]; !ok {
			out[k.Environment] = true
		}
	}
	return out
}
