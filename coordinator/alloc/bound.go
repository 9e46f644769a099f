package alloc

import (
	"cmp"
	"slices"
)

// bound is a score that no plan placing the same replicas undercuts: every placed
// replica at the cheapest of the environments on which it fits alone, equal replicas
// that keep apart at as many different ones as they are. The price of a whole-billed
// environment is shared out over replicas so that those who fit there together never
// pay more than it.
func (s *state) bound() float64 {
	share := s.in.priceShares(s.at)
	price := func(r int, c candidate) float64 {
		if f := share[c.env]; f != nil {
			return c.score + f(r)
		}
		return c.score
	}
	var sum float64
	equal := make(map[*candidate][]int) // replicas that keep apart, by the candidates that they share
	for r, e := range s.at {
		if e < 0 {
			continue
		}
		cands := s.in.reps[r].cands
		if s.in.apart[s.in.reps[r].task] {
			equal[&cands[0]] = append(equal[&cands[0]], r)
			continue
		}
		low := price(r, cands[0])
		for _, c := range cands[1:] {
			low = min(low, price(r, c))
		}
		sum += low
	}
	for r, e := range s.at { // by replica, not by the map: sums of floats depend on order
		if e < 0 || !s.in.apart[s.in.reps[r].task] {
			continue
		}
		cands := s.in.reps[r].cands
		list := equal[&cands[0]]
		if list[0] != r {
			continue
		}
		prices := make([]float64, len(cands))
		for i, c := range cands {
			prices[i] = price(r, c)
		}
		slices.SortFunc(prices, func(a, b float64) int { return cmp.Compare(a, b) })
		for _, p := range prices[:len(list)] {
			sum += p
		}
	}
	return sum
}

// priceShares returns, per whole-billed environment, what part of its price a
// replica there pays at least. Any set of replicas that fits there pays at most the
// price in all, which is what makes the bound one. Two ways of sharing have that
// property, per head of the most that can be there and per share of one resource;
// for each environment the one is taken that gives the larger sum.
func (in *instance) priceShares(at []int) []func(r int) float64 {
	out := make([]func(r int) float64, len(in.envs))
	who := make([][]int, len(in.envs))
	for r, e := range at {
		if e < 0 {
			continue
		}
		for _, c := range in.reps[r].cands {
			if in.envs[c.env].whole {
				who[c.env] = append(who[c.env], r)
			}
		}
	}
	for e, list := range who {
		if len(list) == 0 {
			continue
		}
		env := &in.envs[e]
		perHead := env.price / float64(in.most(list))
		best := perHead * float64(len(list))
		out[e] = func(int) float64 { return perHead }
		for k := range env.cap {
			// As much as fits() admits, so that rounding cannot push the sum over the price.
			have := env.cap[k] + tolerance*max(1, env.cap[k])
			var sum float64
			for _, r := range list {
				sum += env.price * in.reps[r].need[k] / have
			}
			if sum > best {
				best = sum
				out[e] = func(r int) float64 { return env.price * in.reps[r].need[k] / have }
			}
		}
	}
	return out
}

// most is how many of the replicas can share one environment, as far as keeping
// apart says.
func (in *instance) most(list []int) int {
	n := 0
	seen := make(map[int]bool)
	for _, r := range list {
		t := in.reps[r].task
		if in.apart[t] && seen[t] {
			continue
		}
		seen[t] = true
		n++
	}
	return n
}
