package assign

import (
	"math"
	"slices"
)

// dual is the state of the subgradient: prices for the capacities, and the best bound
// and the prices that gave it.
//
// With prices, the cost of any plan is at least Σ_items min_options (cost + price·need)
// + Σ_bins min(0, opening price − price·capacity): a bin that is open may sell what it
// has, one that is not sells nothing.
type dual struct {
	c      *core
	price  []float64 // by bin·k + resource; the waiting bin's stay 0
	dir    []float64 // smoothed direction, per share of the capacity
	load   []float64
	best   float64
	prices []float64 // that gave best
	step   float64
	since  int // iterations since best rose
}

func newDual(c *core) *dual {
	k := len(c.cap)
	return &dual{c: c, price: make([]float64, k), dir: make([]float64, k), load: make([]float64, k),
		best: math.Inf(-1), prices: make([]float64, k), step: 1}
}

// warm starts from the prices of an earlier result.
func (d *dual) warm(prices [][Resources]float64) {
	for i, list := range prices {
		for x, k := range d.c.which {
			d.price[i*d.c.k+x] = list[k]
		}
	}
}

// reduced is the cost of an option with what it takes of the capacities at the prices.
func (d *dual) reduced(o int32, prices []float64) float64 {
	c := d.c
	v := c.cost[o]
	b := int(c.bin[o]) * c.k
	for k := range c.k {
		v += prices[b+k] * c.need[int(o)*c.k+k]
	}
	return v
}

// value computes the bound at the present prices, and what the items load in it.
func (d *dual) value() float64 {
	c := d.c
	clear(d.load)
	var sum float64
	for j := range c.n {
		best, at := math.Inf(1), int32(0)
		if c.k == 1 {
			for o := c.first[j]; o < c.first[j+1]; o++ {
				if v := c.cost[o] + d.price[c.bin[o]]*c.need[o]; v < best {
					best, at = v, o
				}
			}
		} else {
			for o := c.first[j]; o < c.first[j+1]; o++ {
				if v := d.reduced(o, d.price); v < best {
					best, at = v, o
				}
			}
		}
		sum += best
		b := int(c.bin[at]) * c.k
		for k := range c.k {
			d.load[b+k] += c.need[int(at)*c.k+k]
		}
	}
	for i := range c.m {
		var worth float64
		for k := range c.k {
			// Plans may use what rounding adds, so the bound must grant it too.
			worth += d.price[i*c.k+k] * c.room[i*c.k+k]
		}
		sum += min(0, c.open[i]-worth)
	}
	return sum
}

// climb makes some iterations towards the largest bound; target is the objective of a
// plan, or a guess above the bound.
func (d *dual) climb(iterations int, target float64) {
	for range iterations {
		v := d.value()
		d.since++
		if v > d.best+1e-6*math.Abs(d.best) || math.IsInf(d.best, -1) {
			d.since = 0
		}
		if v > d.best {
			d.best = v
			copy(d.prices, d.price)
		}
		if d.since >= 8 {
			d.since = 0
			d.step *= 0.7
		}
		if !d.follow(v, target) {
			return
		}
	}
}

// follow takes one step; false at the top.
func (d *dual) follow(v, target float64) bool {
	c := d.c
	const memory = 0.6 // of earlier directions: damps the zigzag between two bins
	var norm float64
	for i := range c.m {
		closed := false
		if c.open[i] > 0 {
			var worth float64
			for k := range c.k {
				worth += d.price[i*c.k+k] * c.cap[i*c.k+k]
			}
			closed = worth <= c.open[i]
		}
		for k := range c.k {
			x := i*c.k + k
			have := c.cap[x]
			if have == 0 {
				d.dir[x] = 0
				continue
			}
			g := d.load[x]/have - 1
			if closed {
				g++
			}
			d.dir[x] = (1-memory)*g + memory*d.dir[x]
			if d.price[x] == 0 && d.dir[x] < 0 {
				d.dir[x] = 0
			}
			norm += d.dir[x] * d.dir[x]
		}
	}
	gap := max(target-v, 1e-4*math.Abs(v))
	if norm < 1e-18 || d.step < 1e-5 || gap == 0 {
		return false
	}
	t := d.step * gap / norm
	for x := range c.m * c.k {
		if c.cap[x] > 0 {
			d.price[x] = max(0, d.price[x]+t*d.dir[x]/c.cap[x])
			if d.price[x] > limit {
				d.price[x] = limit
			}
		}
	}
	return true
}

// resume goes back to the best prices, to go on from them with small steps.
func (d *dual) resume(step float64) {
	copy(d.price, d.prices)
	clear(d.dir)
	d.step, d.since = step, 0
}

// bound is what no plan undercuts.
func (d *dual) bound() float64 {
	b := d.best
	if math.IsInf(b, -1) {
		return b
	}
	// What rounding may have added in the sum over the items.
	b -= 1e-12 * math.Abs(b)
	if d.c.whole && math.Abs(b) < 1e12 {
		b = math.Ceil(b - 1e-6*max(1, math.Abs(b)*1e-3))
	}
	return b
}

// spread is a typical difference between the best and the second option by reduced
// cost: the scale of what the search has to weigh. 0 where nobody has an option.
func (d *dual) spread() float64 {
	c := d.c
	var gaps []float64
	var sum, many float64
	for j := range c.n {
		lo, hi := math.Inf(1), math.Inf(1)
		for o := c.first[j]; o < c.first[j+1]-1; o++ {
			sum += math.Abs(c.cost[o])
			many++
			if v := d.reduced(o, d.prices); v < lo {
				lo, hi = v, lo
			} else if v < hi {
				hi = v
			}
		}
		if !math.IsInf(hi, 1) {
			gaps = append(gaps, hi-lo)
		}
	}
	if many == 0 {
		return 0
	}
	slices.Sort(gaps)
	for _, g := range gaps[len(gaps)/2:] {
		if g > 0 {
			return g
		}
	}
	// No choice but to wait, or all the same to everybody.
	return max(0.05*sum/many, 1e-9)
}
