package alloc

import (
	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

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
	hubs  bool    // somebody could go to a hub
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
	of, at []int                // the cell of a replica and of an environment, -1 for none
	prices [][resources]float64 // of the hubs, at which the cells were planned last
}

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
			for _, r := range d.list[i].who {
				d.of[r] = i
				for _, c := range in.reps[r].cands {
					if !d.hub[c.env] {
						d.at[c.env] = i
					}
				}
			}
		}
		return d
	}
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
		local, hubs := false, false
		for _, c := range in.reps[r].cands {
			local, hubs = local || !d.hub[c.env], hubs || d.hub[c.env]
		}
		if !local {
			if hubs {
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
		d.list[x].hubs = d.list[x].hubs || hubs
	}
}

// dissolve takes a cell that is too large apart, and reports whether it was: without the
// replicas that can go to many places in it, or else its environments are hubs.
func (in *instance) dissolve(c *cell, d *cells) bool {
	kinds, envs := make(map[int]bool), make(map[int]bool)
	for _, r := range c.who {
		kinds[in.reps[r].kind] = true
		for _, x := range in.reps[r].cands {
			if !d.hub[x.env] {
				envs[x.env] = true
			}
		}
	}
	if len(kinds)+len(envs) <= in.rows {
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
		for e := range envs {
			d.hub[e] = true
		}
	}
	return true
}

// outside is what r costs on the best of the hubs at the prices; not ok where it can go to
// none.
func (s *state) outside(r int, hub []bool, moves bool) (price float64, ok bool) {
	for _, c := range s.in.reps[r].cands {
		if !hub[c.env] {
			continue
		}
		v := c.score + s.worth(r, c.env)
		if moves {
			v += s.priceBeside(r, c) - c.score
		}
		if !ok || v < price {
			price, ok = v, true
		}
	}
	return price, ok
}

// instance makes a problem of a cell, in which hubs are outside: with the price of moves,
// and without the room that roaming replicas have, or for a bound without both. start is
// where s has the replicas.
func (s *state) instance(c *cell, d *cells, plan bool) (p *assign.Instance, envs, start []int) {
	hub, bin := d.hub, d.bin
	p = &assign.Instance{Items: make([]assign.Item, len(c.who))}
	start = make([]int, len(c.who))
	for i, r := range c.who {
		rep := &s.in.reps[r]
		it := &p.Items[i]
		if s.in.apart[rep.task] {
			it.Apart = rep.task + 1
		}
		if it.Apart == 0 {
			if v, ok := s.outside(r, hub, plan); ok {
				it.Wait = max(v, 1e-12) // 0 would stand for "must not"
			}
		}
		for _, x := range rep.cands {
			if hub[x.env] && it.Apart == 0 {
				continue
			}
			o := assign.Option{Cost: x.score, Need: rep.need}
			if plan {
				o.Cost = s.priceBeside(r, x)
			}
			if bin[x.env] < 0 {
				bin[x.env] = len(envs)
				envs = append(envs, x.env)
				room, price := s.in.envs[x.env].cap, s.in.envs[x.env].price
				if hub[x.env] { // only for who must keep apart there
					room, price = [resources]float64{}, 0
				}
				p.Capacity, p.Open = append(p.Capacity, room), append(p.Open, price)
			}
			if o.Bin = bin[x.env]; hub[x.env] {
				o.Cost += s.worth(r, x.env)
				o.Need = [resources]float64{}
			}
			it.Options = append(it.Options, o)
		}
		start[i] = -1
		if e := s.at[r]; e >= 0 && (!hub[e] || it.Apart > 0) {
			start[i] = bin[e]
		}
	}
	for b, e := range envs {
		bin[e] = -1
		for _, r := range s.on[e] {
			if !plan || !d.roam[r] || hub[e] {
				continue
			}
			for k, n := range s.in.reps[r].need {
				p.Capacity[b][k] = max(0, p.Capacity[b][k]-n)
			}
			p.Open[b] = 0
		}
	}
	return p, envs, start
}
