package alloc

import (
	"math"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

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

// cellProblem makes a problem of a cell, in which hubs are outside: with the price of moves
// and without the room that roaming replicas have, or, to bound, without both. start is
// where s has the replicas. Who must keep apart on the hubs has them as bins of endless
// room, the cheapest of them: as many as there are to keep apart.
func (s *state) cellProblem(c *cell, d *cells, toBound bool) (p *assign.Instance, envs, start []int) {
	hub, bin, plan := d.hub, d.bin, !toBound
	many := make(map[int]int) // who keep apart, by task
	for _, r := range c.who {
		if t := s.in.reps[r].task; s.in.apart[t] {
			many[t]++
		}
	}
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
		dear := math.Inf(1) // hubs that cost more do not count
		if n := many[rep.task]; it.Apart > 0 && n < len(rep.cands) {
			dear = s.nth(r, n, hub)
		}
		for _, x := range rep.cands {
			if hub[x.env] && (it.Apart == 0 || x.score+s.worth(r, x.env) > dear && x.env != s.at[r] && x.env != rep.cur) {
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

// nth is the price of the n-th cheapest hub for r, moves aside.
func (s *state) nth(r, n int, hub []bool) float64 {
	var prices []float64
	for _, c := range s.in.reps[r].cands {
		if hub[c.env] {
			prices = append(prices, c.score+s.worth(r, c.env))
		}
	}
	if n >= len(prices) {
		return math.Inf(1)
	}
	slices.Sort(prices)
	return prices[n-1]
}
