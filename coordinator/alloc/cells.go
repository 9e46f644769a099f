package alloc

import "slices"

// A fleet is mostly small machines that hold a handful of replicas each, in sites that
// share no more than some large ones. The large ones, the hubs, are well described by
// prices for what they have; and at given prices every site is a problem of its own, a
// cell, which package packing solves nearly exactly. So: cells at prices, then who goes to
// the hubs, which gives new prices, and again where that was not good enough.

// What counts as a hub, and as a cell. Where about hubHolds replicas fit, what pretending
// that one of them could be cut is worth is some percent of one in hubHolds; the work for
// a cell grows with the third power of its rows.
const (
	hubHolds = 40
	mostRows = 160
)

// cell is a part of the fleet that shares nothing but hubs with the rest.
type cell struct {
	who   []int   // replicas, ascending
	hubs  []int   // where somebody could go, too, ascending
	bound float64 // what they cost at least, those that go to hubs at their prices, and moves for nothing
	slack float64 // by how much more they cost in the plan at most, moves included
}

// cells is how the replicas of a plan fall apart, and what certifies it.
type cells struct {
	hub    []bool               // by environment
	list   []cell               // sorted by their first replica
	rest   []int                // replicas that can go to hubs only
	roam   []bool               // by replica: it can go to so many cells that it belongs to none
	bin    []int                // scratch: -1 for every environment
	values []float64            // what each replica is worth in the bound
	of     []int                // the cell of a replica; uncounted, or ofHubs
	at     []int                // the cell of an environment, -1 for none
	prices [][resources]float64 // of the hubs, at which the cells were planned last
}

// What a replica is of that is of no cell: not counted, or among the rest.
const (
	uncounted = -1
	ofHubs    = -2
)

// divide makes cells of the replicas listed, ascending.
func (in *instance) divide(who []int) *cells {
	d := &cells{hub: in.hubs(who), values: make([]float64, len(in.reps)), roam: make([]bool, len(in.reps)), bin: none(len(in.envs))}
	for {
		in.components(d, who)
		large := false
		for i := range d.list {
			large = in.dissolve(&d.list[i], d) || large
		}
		if large {
			continue
		}
		d.of, d.at = none(len(in.reps)), none(len(in.envs))
		for i := range d.list {
			in.own(d, i)
		}
		for _, r := range d.rest {
			d.of[r] = ofHubs
		}
		return d
	}
}

// own notes what is of cell i.
func (in *instance) own(d *cells, i int) {
	c := &d.list[i]
	c.hubs = nil
	for _, r := range c.who {
		d.of[r] = i
		for _, x := range in.reps[r].cands {
			if d.hub[x.env] {
				c.hubs = append(c.hubs, x.env)
			} else {
				d.at[x.env] = i
			}
		}
	}
	slices.Sort(c.hubs)
	c.hubs = slices.Compact(c.hubs)
}

// merge makes one cell of two, and returns which. The bound is not that of both.
func (in *instance) merge(d *cells, i, j int) int {
	i, j = min(i, j), max(i, j)
	if i == j {
		return i
	}
	who := slices.Concat(d.list[i].who, d.list[j].who)
	slices.Sort(who)
	d.list[i], d.list[j] = cell{who: who}, cell{}
	for e, c := range d.at {
		if c == j {
			d.at[e] = i
		}
	}
	in.own(d, i)
	return i
}

// admit counts r, which has a place, in the cell that it belongs to, and returns that cell,
// or -1 where it belongs to none. Cells that it ties together become one.
func (in *instance) admit(d *cells, r int) int {
	i, local := -1, false
	for _, c := range in.reps[r].cands {
		if d.hub[c.env] {
			continue
		}
		local = true
		switch at := d.at[c.env]; {
		case at < 0:
		case i < 0:
			i = at
		default:
			i = in.merge(d, i, at)
		}
	}
	if !local {
		d.rest = append(d.rest, r)
		d.of[r] = ofHubs
		return -1
	}
	if i < 0 {
		i = len(d.list)
		d.list = append(d.list, cell{})
	}
	x, _ := slices.BinarySearch(d.list[i].who, r)
	d.list[i].who = slices.Insert(slices.Clone(d.list[i].who), x, r)
	in.own(d, i)
	return i
}

// clone is d with lists of its own: what one round of planning changes is no business of the
// round before.
func (d *cells) clone() *cells {
	out := *d
	out.list, out.values = slices.Clone(d.list), slices.Clone(d.values)
	return &out
}

func none(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = -1
	}
	return out
}

// hubs are the environments on which many of the replicas listed fit.
func (in *instance) hubs(who []int) []bool {
	many := make([]float64, len(in.envs))
	total := make([][resources]float64, len(in.envs))
	apart := make([]bool, len(in.envs)) // somebody keeps apart there
	for _, r := range who {
		rep := &in.reps[r]
		for _, c := range rep.cands {
			many[c.env]++
			apart[c.env] = apart[c.env] || in.apart[rep.task]
			for k, n := range rep.need {
				total[c.env][k] += n
			}
		}
	}
	out := make([]bool, len(in.envs))
	for e := range in.envs {
		env := &in.envs[e]
		loose, holds := (!env.whole || env.price == 0) && !apart[e], many[e]
		for k, t := range total[e] {
			loose = loose && t <= env.cap[k]
			if t > 0 {
				holds = min(holds, env.cap[k]*many[e]/t)
			}
		}
		out[e] = many[e] > 0 && (loose || holds > in.holds)
	}
	return out
}

// components are the replicas that are tied together by environments that are no hubs.
func (in *instance) components(d *cells, who []int) {
	d.list, d.rest = nil, nil
	parent := make([]int, len(who))
	root := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	at := make([]int, len(in.envs)) // a replica, by index in who, that can go there, counted from 1
	first := make(map[*candidate]int)
	for i, r := range who {
		parent[i] = i
		cands := in.reps[r].cands
		if len(cands) == 0 || d.roam[r] {
			continue
		}
		if j, ok := first[&cands[0]]; ok { // equal replicas share their candidates
			parent[i] = root(j)
			continue
		}
		first[&cands[0]] = i
		for _, c := range cands {
			if d.hub[c.env] {
				continue
			}
			if x := at[c.env]; x > 0 {
				a, b := root(i), root(x-1)
				parent[max(a, b)] = min(a, b)
			} else {
				at[c.env] = i + 1
			}
		}
	}
	index := make(map[int]int)
	for i, r := range who {
		if d.roam[r] {
			continue
		}
		local := slices.ContainsFunc(in.reps[r].cands, func(c candidate) bool { return !d.hub[c.env] })
		if !local {
			if len(in.reps[r].cands) > 0 {
				d.rest = append(d.rest, r)
			}
			continue
		}
		x, ok := index[root(i)]
		if !ok {
			x = len(d.list)
			index[root(i)] = x
			d.list = append(d.list, cell{})
		}
		d.list[x].who = append(d.list[x].who, r)
	}
}

// dissolve takes a cell that is too large apart, and reports whether it was: without the
// replicas that can go to many places in it, or else its environments are hubs.
func (in *instance) dissolve(c *cell, d *cells) bool {
	if in.rowsOf(c, d) <= in.rows {
		return false
	}
	found := false
	for _, r := range c.who {
		n := 0
		for _, x := range in.reps[r].cands {
			if !d.hub[x.env] {
				n++
			}
		}
		if n > in.rows/2 {
			d.roam[r], found = true, true
		}
	}
	if !found {
		for _, r := range c.who {
			for _, x := range in.reps[r].cands {
				d.hub[x.env] = true
			}
		}
	}
	return true
}

// rowsOf is how many rows the programme of a cell has: one for each environment, and one
// for the equal replicas that have a choice, which are no longer equal where moving them
// costs something.
func (in *instance) rowsOf(c *cell, d *cells) int {
	type equal struct {
		kind, cur int
		move      float64
	}
	kinds, envs := make(map[equal]bool), make(map[int]bool)
	for _, r := range c.who {
		rep := &in.reps[r]
		if len(rep.cands) == 1 {
			envs[rep.cands[0].env] = true
			continue
		}
		k := equal{kind: rep.kind, cur: -1}
		if rep.cur >= 0 && rep.move > 0 {
			k.cur, k.move = rep.cur, rep.move
		}
		kinds[k] = true
		for _, x := range rep.cands {
			if !d.hub[x.env] {
				envs[x.env] = true
			}
		}
	}
	return len(kinds) + len(envs)
}
