package assign

import (
	"cmp"
	"math"
	"slices"
)

// tolerance forgives the rounding of float64 sums, as in package alloc.
const tolerance = 5e-10

// core is a checked instance in flat arrays, the items in an order that does not
// depend on the caller's. Bin m, after the last, is where items wait: every item has
// it as its last option, needs nothing there, and there is always room.
type core struct {
	n, m, k int       // items, bins, resources that anybody needs
	cap     []float64 // by bin·k + resource
	room    []float64 // cap and what rounding may add to it
	open    []float64 // by bin, the waiting one too
	order   []int     // the caller's index of each item
	which   []int     // the caller's index of each resource
	first   []int32   // where the options of an item begin; one more for the end
	bin     []int32   // of an option, ascending within an item
	cost    []float64 // of an option, the price of a move in it
	moved   []float64 // of an option, the price of a move alone; nil without
	need    []float64 // by option·k + resource
	full    []bool    // items with an option for every bin: found without a search
	mayWait []bool    // items whose waiting has a price of its own, to be weighed like any place
	group   []int32   // of an item, -1 for none
	members [][]int32 // of a group
	start   []int32   // option of an item to start from, -1 for none
	whole   bool      // every cost is an integer, so the optimum is
}

func compile(p *Instance, o *Options) *core {
	c := &core{n: len(p.Items), m: len(p.Capacity)}
	for k := range Resources {
		if slices.ContainsFunc(p.Items, func(it Item) bool {
			return slices.ContainsFunc(it.Options, func(x Option) bool { return x.Need[k] > 0 })
		}) {
			c.which = append(c.which, k)
		}
	}
	c.k = len(c.which)
	c.open = make([]float64, c.m+1)
	copy(c.open, p.Open)
	for _, list := range p.Capacity {
		for _, k := range c.which {
			c.cap = append(c.cap, list[k])
			c.room = append(c.room, list[k]+tolerance*max(1, list[k]))
		}
	}
	for range c.k {
		c.cap, c.room = append(c.cap, math.MaxFloat64), append(c.room, math.MaxFloat64)
	}
	sorted := make([][]Option, c.n)
	for j := range p.Items {
		sorted[j] = c.usable(p.Items[j].Options)
	}
	startOf := func(j int) int {
		if o.Start == nil {
			return -1
		}
		return o.Start[j]
	}
	c.order = make([]int, c.n)
	for j := range c.order {
		c.order[j] = j
	}
	slices.SortStableFunc(c.order, func(a, b int) int {
		x, y := &p.Items[a], &p.Items[b]
		return cmp.Or(slices.CompareFunc(sorted[a], sorted[b], compareOptions), cmp.Compare(x.Apart, y.Apart),
			cmp.Compare(x.Wait, y.Wait), cmp.Compare(startOf(a), startOf(b)))
	})
	c.fill(p, o, sorted, startOf)
	return c
}

// usable returns the options that fit alone, by bin.
func (c *core) usable(list []Option) []Option {
	out := make([]Option, 0, len(list))
	for _, x := range list {
		fits := true
		for i, k := range c.which {
			fits = fits && x.Need[k] <= c.room[x.Bin*c.k+i]
		}
		if fits {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b Option) int { return cmp.Compare(a.Bin, b.Bin) })
	return out
}

func compareOptions(a, b Option) int {
	return cmp.Or(cmp.Compare(a.Bin, b.Bin), cmp.Compare(a.Cost, b.Cost), slices.Compare(a.Need[:], b.Need[:]))
}

func (c *core) fill(p *Instance, o *Options, sorted [][]Option, startOf func(int) int) {
	wait := waiting(p, o, sorted)
	c.whole = o.MovePrice == math.Trunc(o.MovePrice)
	groups := make(map[int]int32)
	total := c.n
	for _, list := range sorted {
		total += len(list)
	}
	c.bin, c.cost, c.need = make([]int32, 0, total), make([]float64, 0, total), make([]float64, 0, total*c.k)
	if o.MovePrice > 0 {
		c.moved = make([]float64, 0, total)
	}
	for i, j := range c.order {
		c.first = append(c.first, int32(len(c.bin)))
		home, at := startOf(j), int32(-1)
		for _, x := range sorted[j] {
			price := 0.0
			if home == x.Bin {
				at = int32(len(c.bin))
			} else if home >= 0 {
				price = o.MovePrice
			}
			c.add(int32(x.Bin), x.Cost, price)
			for _, k := range c.which {
				c.need = append(c.need, x.Need[k])
			}
		}
		w := p.Items[j].Wait
		c.mayWait = append(c.mayWait, w > 0)
		if w == 0 {
			w = wait
		}
		c.add(int32(c.m), w, 0)
		c.need = append(c.need, make([]float64, c.k)...)
		c.start = append(c.start, at)
		c.full = append(c.full, len(sorted[j]) == c.m)
		g := int32(-1)
		if a := p.Items[j].Apart; a > 0 {
			var ok bool
			if g, ok = groups[a]; !ok {
				g = int32(len(c.members))
				groups[a] = g
				c.members = append(c.members, nil)
			}
			c.members[g] = append(c.members[g], int32(i))
		}
		c.group = append(c.group, g)
	}
	c.first = append(c.first, int32(len(c.bin)))
	for _, v := range c.open {
		c.whole = c.whole && v == math.Trunc(v)
	}
}

func (c *core) add(bin int32, cost, move float64) {
	c.bin = append(c.bin, bin)
	c.cost = append(c.cost, cost+move)
	if c.moved != nil {
		c.moved = append(c.moved, move)
	}
	c.whole = c.whole && cost == math.Trunc(cost)
}

// waiting is a price of waiting that no plan can be worth: over what anything costs at
// most, and what all others can save together.
func waiting(p *Instance, o *Options, sorted [][]Option) float64 {
	var top, span float64
	for j := range p.Items {
		if len(sorted[j]) == 0 {
			continue
		}
		lo, hi := math.Inf(1), math.Inf(-1)
		for _, x := range sorted[j] {
			lo, hi = min(lo, x.Cost), max(hi, x.Cost)
		}
		if w := p.Items[j].Wait; w > 0 {
			lo, hi = min(lo, w), max(hi, w)
		}
		top = max(top, hi)
		span += hi - lo + o.MovePrice
	}
	for _, v := range p.Open {
		span += v
	}
	return math.Ceil(top + span + 1)
}

// find returns the option of item j in bin b, -1 if there is none.
func (c *core) find(j, b int32) int32 {
	lo, hi := c.first[j], c.first[j+1]-1
	if b == int32(c.m) {
		return hi
	}
	if c.full[j] {
		return lo + b
	}
	for lo < hi {
		mid := (lo + hi) / 2
		if c.bin[mid] < b {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if c.bin[lo] == b {
		return lo
	}
	return -1
}

// wait is the option of item j to wait.
func (c *core) wait(j int32) int32 { return c.first[j+1] - 1 }

// waits says that the option is to wait.
func (c *core) waits(o int32) bool { return c.bin[o] == int32(c.m) }
