package packing

import "github.com/fleetbus/fleetbus/coordinator/alloc/assign"

// Bound is a bound on the objective of any plan for p, by values of the items: those of
// a result for nearly the same instance, say. It is not ok where [Solve] is not.
func Bound(p *assign.Instance, values []float64) (bound float64, ok bool) {
	s, ok := newSolver(p, false)
	if !ok {
		return 0, false
	}
	s.guess(values)
	copy(s.u, s.bestU)
	bound, _ = s.price()
	return max(0, bound+s.md.base) / s.md.scale, true
}
