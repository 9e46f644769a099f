package alloc

import (
	"cmp"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// lagrange is a score that no plan placing the same replicas undercuts, moves free of
// charge, by the prices of the capacities: every placed replica where its score and
// what it takes at the prices is least, less what all environments can sell. Any prices
// give a bound; the better they are, the closer it comes.
func (s *state) lagrange() float64 {
	if s.shadow == nil {
		return 0 // scores are never negative
	}
	reduced := func(r int, c candidate) float64 {
		v := c.score
		for k, n := range s.in.reps[r].need {
			v += s.shadow[c.env][k] * n
		}
		return v
	}
	count := make([]int, len(s.in.leaders)) // placed replicas of each kind
	for r, e := range s.at {
		if e >= 0 {
			count[s.in.reps[r].kind]++
		}
	}
	var sum, size float64
	for r, e := range s.at {
		if e < 0 {
			continue
		}
		cands := s.in.reps[r].cands
		n := count[s.in.reps[r].kind]
		if n == 0 {
			continue // counted with the first of its kind
		}
		count[s.in.reps[r].kind] = 0
		if n > 1 && s.in.apart[s.in.reps[r].task] {
			list := make([]float64, len(cands)) // as many different ones as they are
			for i, c := range cands {
				list[i] = reduced(r, c)
			}
			slices.SortFunc(list, func(a, b float64) int { return cmp.Compare(a, b) })
			for _, v := range list[:n] {
				sum += v
			}
			continue
		}
		low := reduced(r, cands[0])
		for _, c := range cands[1:] {
			low = min(low, reduced(r, c))
		}
		sum += float64(n) * low
	}
	size = sum
	for e := range s.in.envs {
		env := &s.in.envs[e]
		var worth float64
		for k, have := range env.cap {
			// As much as fits() admits, so that rounding cannot push a plan below the bound.
			worth += s.shadow[e][k] * (have + tolerance*max(1, have))
		}
		if env.whole {
			worth -= env.price // one that is open may sell what it has, one that is not sells nothing
		}
		if worth > 0 {
			sum -= worth
			size += worth
		}
	}
	// What rounding may have added.
	return max(0, sum-1e-12*size)
}

// prices are those of s for people and for the next solve.
func (s *state) prices() Prices {
	var out Prices
	for e, v := range s.shadow {
		if v == [resources]float64{} {
			continue
		}
		if out == nil {
			out = make(Prices)
		}
		out[s.in.envs[e].ID] = messages.Resources{Compute: v[0], Storage: v[1], Network: v[2]}
	}
	return out
}

// pricesFrom are the prices by environment; nil for none. What is no price counts for 0.
func (in *instance) pricesFrom(p Prices) [][resources]float64 {
	if len(p) == 0 {
		return nil
	}
	out := make([][resources]float64, len(in.envs))
	for e := range in.envs {
		for k, v := range vector(p[in.envs[e].ID]) {
			if v >= 0 && usable(v) {
				out[e][k] = v
			}
		}
	}
	return out
}
