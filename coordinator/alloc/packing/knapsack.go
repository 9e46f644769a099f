package packing

import (
	"cmp"
	"math"
	"slices"
)

// thing is a kind of item that a bin could hold, at what one of it is worth there.
type thing struct {
	kind  int32
	group int32 // at most one of a group; -1 for none
	many  int32 // how many of it there are, at most
	value float64
	need  [resources]float64
	size  float64 // a combination of the needs by weights, 1 for the whole bin
}

// negligible is what a better choice must gain at least to count. Costs are scaled so that
// the largest is 100.
const negligible = 1e-9

// knapsack finds the things worth most that a bin can hold, by branch and bound. It is
// kept from bin to bin for its memory alone.
type knapsack struct {
	things []thing
	chosen []int32 // indices of things, one for each copy
	best   []int32
	value  float64 // of best
	bound  float64 // no choice is worth more
	nodes  int     // what is left of the effort
	cut    float64 // the largest bound of what was left out for lack of effort
	room   [resources]float64
}

// solve looks at all choices that could be the best one, or at as many as nodes say; at
// one, at least.
func (k *knapsack) solve(room [resources]float64, nodes int) {
	k.room, k.nodes = room, nodes
	k.best, k.chosen = k.best[:0], k.chosen[:0]
	k.value, k.cut = 0, 0
	relaxed := k.measure()
	k.branch(0, 1, 0, room)
	k.bound = min(max(k.value, k.cut), max(relaxed, k.value))
}

// measure gives every thing its size, sorts by worth a size, and returns what the choice
// would be worth if the last thing could be cut. Whatever the weights of the resources,
// things that fit have sizes of at most 1 together; those weights are taken that say most.
func (k *knapsack) measure() float64 {
	var total, weight [resources]float64
	for i := range k.things {
		for r, v := range k.things[i].need {
			total[r] += v * float64(k.things[i].many)
		}
	}
	scarce, most := -1, 1.0
	for r, t := range total {
		if k.room[r] > 0 && t/k.room[r] > most {
			scarce, most = r, t/k.room[r]
		}
	}
	if scarce >= 0 {
		weight[scarce] = 1
	}
	best, bestWeight := math.Inf(1), weight
	const rounds = 4
	for round := range rounds {
		k.weigh(weight)
		value, load := k.relaxed()
		if value < best {
			best, bestWeight = value, weight
		}
		over, worst := -1, 1+1e-9
		for r, l := range load {
			if k.room[r] > 0 && l/k.room[r] > worst {
				over, worst = r, l/k.room[r]
			}
		}
		if over < 0 || round == rounds-1 {
			break
		}
		for r := range weight { // more weight for what the relaxed choice takes too much of
			weight[r] *= 0.6
		}
		weight[over] += 0.4
	}
	if weight != bestWeight {
		k.weigh(bestWeight)
	}
	return best
}

func (k *knapsack) weigh(weight [resources]float64) {
	for i := range k.things {
		t := &k.things[i]
		t.size = 0
		for r, w := range weight {
			if w > 0 {
				t.size += w * t.need[r] / k.room[r]
			}
		}
	}
	slices.SortFunc(k.things, func(a, b thing) int {
		return cmp.Or(cmp.Compare(b.value*a.size, a.value*b.size), cmp.Compare(a.kind, b.kind))
	})
}

// relaxed is the worth if the last thing could be cut, and what is loaded then.
func (k *knapsack) relaxed() (value float64, load [resources]float64) {
	left := 1.0
	for i := range k.things {
		t := &k.things[i]
		f := float64(t.many)
		if t.size*f > left {
			f = left / t.size
		}
		left -= f * t.size
		value += f * t.value
		for r, v := range t.need {
			load[r] += f * v
		}
		if f < float64(t.many) {
			break
		}
	}
	return value, load
}

// branch goes on from thing i, with so much room left.
func (k *knapsack) branch(i int, left, value float64, room [resources]float64) {
	if value > k.value {
		k.value = value
		k.best = append(k.best[:0], k.chosen...)
	}
	taken := int32(0) // copies of thing i that are chosen
	for x := len(k.chosen) - 1; x >= 0 && int(k.chosen[x]) == i; x-- {
		taken++
	}
	for ; i < len(k.things); i, taken = i+1, 0 {
		if taken == k.things[i].many || !k.open(i, &room) {
			continue
		}
		k.nodes--
		bound := value + k.rest(i, taken, left, &room)
		if bound <= k.value+negligible {
			return
		}
		if k.nodes < 0 {
			k.cut = max(k.cut, bound)
			return
		}
		t := &k.things[i]
		with := room
		for r, v := range t.need {
			with[r] -= v
		}
		k.chosen = append(k.chosen, int32(i))
		k.branch(i, left-t.size, value+t.value, with)
		k.chosen = k.chosen[:len(k.chosen)-1]
	}
}

// rest is what the things from i on can add at most.
func (k *knapsack) rest(i int, taken int32, left float64, room *[resources]float64) float64 {
	var sum float64
	for ; i < len(k.things); i, taken = i+1, 0 {
		t := &k.things[i]
		if t.need[0] > room[0] || t.need[1] > room[1] || t.need[2] > room[2] {
			continue
		}
		f := float64(t.many - taken)
		if t.size*f > left {
			return sum + t.value*max(0, left)/t.size
		}
		left -= t.size * f
		sum += t.value * f
	}
	return sum
}

// open says that one more of thing i can be added.
func (k *knapsack) open(i int, room *[resources]float64) bool {
	t := &k.things[i]
	if t.need[0] > room[0] || t.need[1] > room[1] || t.need[2] > room[2] {
		return false
	}
	if t.group >= 0 {
		for _, c := range k.chosen {
			if k.things[c].group == t.group {
				return false
			}
		}
	}
	return true
}
