package alloc

import (
	"math"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/packing"
)

// packRounds bounds how often the cells are planned again at new prices.
const packRounds = 8

// patience is how many rounds may pass that place nobody more.
const patience = 2

// enough is the gap from which on more effort is not worth its time.
const enough = 0.005

// Where a replica of a cell goes that stays in none of its environments: to a hub, or
// nowhere.
const (
	toHub   = -1
	nowhere = -2
)

// pack looks for a plan of the replicas listed, ascending, who may all be placed. It
// returns a state of its own, which holds nobody else, with the bound that it found; nil
// where nothing came of it.
func (s *state) pack(who []int, stop func() bool) (best *state) {
	d := s.in.divide(who)
	if len(d.list) == 0 {
		return nil
	}
	at := make([]int, len(s.in.reps)) // environment by replica, or toHub, nowhere
	from := *s                        // with the prices of this round
	from.shadow = make([][resources]float64, len(s.in.envs))
	for e, hub := range d.hub {
		if hub && s.shadow != nil {
			from.shadow[e] = s.shadow[e]
		}
	}
	prices := newHubPrices(s.in)
	var changed []bool
	proof, fewest, since := 0.0, len(who)+1, 0
	for round := range packRounds {
		d = d.clone()
		for i := range d.list {
			if round > 0 && !slices.ContainsFunc(d.list[i].hubs, func(e int) bool { return changed[e] }) {
				continue
			}
			if stop != nil && stop() {
				return best
			}
			from.planCell(d, i, at, round > 0)
		}
		t := from.join(d, who, at, stop)
		if t == nil {
			break
		}
		d.prices = from.shadow
		now, slack := from.proofOf(d), 0.0
		for i := range d.list {
			slack += d.list[i].slack
		}
		lacking := t.homeless(who)
		if since++; lacking < fewest {
			fewest, since = lacking, 0
		}
		if best == nil || lacking < best.homeless(who) || lacking == best.homeless(who) && t.objective() < best.objective() {
			best = t
		}
		if now >= proof {
			proof = now
			best.cells = d
		}
		best.proof = proof
		if best.cells == nil {
			best.cells = d
		}
		from.shadow, changed = prices.next(t, d, who, from.shadow)
		// What is missing and is not the cells' own is what better prices could give.
		if obj := t.objective(); !slices.Contains(changed, true) || since >= patience ||
			lacking == 0 && (obj-now-slack <= enough/2*obj || round >= patience) {
			break
		}
	}
	return best
}

// proveAt looks whether the prices of a search prove more of a plan of the same replicas than
// those that its cells were planned at.
func (s *state) proveAt(shadow [][resources]float64) {
	d := s.cells.clone()
	d.prices = make([][resources]float64, len(s.in.envs))
	for e, hub := range d.hub {
		if hub {
			d.prices[e] = shadow[e]
		}
	}
	view := *s
	view.shadow = d.prices
	for i := range d.list {
		if len(d.list[i].hubs) > 0 {
			view.rebound(d, i, true)
		}
	}
	if proof := view.proofOf(d); proof > s.proof {
		s.proof, s.cells = proof, d
	}
}

// homeless is how many of those listed have no place.
func (s *state) homeless(who []int) int {
	n := 0
	for _, r := range who {
		if s.at[r] < 0 {
			n++
		}
	}
	return n
}

// planCell plans cell i. Where that takes a place from somebody who has one, those wait who
// do in s; and if there is no plan even so, everybody stays where s has him.
func (s *state) planCell(d *cells, i int, at []int, again bool) {
	c := &d.list[i]
	waits := func(r int) bool { return s.at[r] < 0 }
	robbed := func(r int) bool { return at[r] == nowhere && !waits(r) }
	ok := s.tryCell(d, i, at, again)
	if (!ok || slices.ContainsFunc(c.who, robbed)) && slices.ContainsFunc(c.who, waits) {
		for _, r := range c.who {
			if waits(r) {
				at[r] = nowhere
			}
		}
		c.who = slices.DeleteFunc(slices.Clone(c.who), waits)
		ok = s.tryCell(d, i, at, false)
	}
	if ok {
		return
	}
	c.bound, c.slack = 0, 0
	for _, r := range c.who {
		switch e := s.at[r]; {
		case e < 0:
			at[r] = nowhere
		case d.hub[e]:
			at[r] = toHub
		default:
			at[r] = e
		}
	}
}

// tryCell plans cell i, from where s has it or, again, from what at says; not ok where
// there is no plan.
func (s *state) tryCell(d *cells, i int, at []int, again bool) bool {
	c := &d.list[i]
	p, envs, start := s.cellProblem(c, d, false)
	o := packing.Options{Start: start}
	if again {
		o.Values = make([]float64, len(c.who))
		for x, r := range c.who {
			o.Values[x] = d.values[r]
			if start[x] = slices.Index(envs, at[r]); start[x] < 0 && p.Items[x].Wait == 0 && s.at[r] >= 0 && d.hub[s.at[r]] {
				start[x] = slices.Index(envs, s.at[r]) // who keeps apart is on some hub
			}
		}
	}
	res, ok := packing.Solve(p, o)
	if !ok {
		return false
	}
	for x, r := range c.who {
		d.values[r] = res.Values[x]
		switch b := res.Assign[x]; {
		case b >= 0 && !d.hub[envs[b]]:
			at[r] = envs[b]
		case b >= 0 || p.Items[x].Wait > 0:
			at[r] = toHub
		default:
			at[r] = nowhere
		}
	}
	c.bound, c.slack = res.Bound, 0
	if !math.IsInf(res.Objective, 1) {
		c.slack = res.Objective - res.Bound
	}
	if !s.free(d, c, envs) {
		s.rebound(d, i, true)
	}
	return true
}

// free says that neither moves nor roaming replicas stand between a plan and its bound.
func (s *state) free(d *cells, c *cell, envs []int) bool {
	if slices.ContainsFunc(c.who, func(r int) bool { return s.in.reps[r].move > 0 && s.in.reps[r].cur >= 0 }) {
		return false
	}
	return !slices.ContainsFunc(envs, func(e int) bool {
		return slices.ContainsFunc(s.on[e], func(r int) bool { return d.roam[r] })
	})
}

// boundOf is what the replicas of cell i cost at least, by their values.
func (s *state) boundOf(d *cells, i int) (float64, bool) {
	c := &d.list[i]
	p, _, _ := s.cellProblem(c, d, true)
	values := make([]float64, len(c.who))
	for x, r := range c.who {
		values[x] = d.values[r]
	}
	return packing.Bound(p, values)
}

// fewStale is how many cells a repair can afford to compute new values for.
const fewStale = 4

// rebound computes the bound of cell i again, with new values or with those it has.
func (s *state) rebound(d *cells, i int, afresh bool) {
	c := &d.list[i]
	c.bound = 0
	if !afresh {
		if b, ok := s.boundOf(d, i); ok {
			c.bound = b
		}
		return
	}
	p, _, _ := s.cellProblem(c, d, true)
	if res, ok := packing.Solve(p, packing.Options{Nodes: 1}); ok {
		c.bound = res.Bound
		for x, r := range c.who {
			d.values[r] = res.Values[x]
		}
	}
}

// reprove makes the proof that came with d one of s, where the environments listed have
// changed since, some of those who were placed wait, and some are placed that were not.
func (s *state) reprove(d *cells, changed []int) {
	s.proof, s.cells = 0, nil
	if d == nil {
		return
	}
	stale := make(map[int]bool)
	for _, e := range changed {
		if d.at[e] >= 0 {
			stale[d.at[e]] = true
		}
		if s.in.envs[e].Closed != "" {
			continue // who could go there costs no less than before
		}
		for r := range s.in.reps { // who can go there, perhaps since now
			if _, ok := s.in.find(r, e); !ok || d.roam[r] || d.of[r] == uncounted {
				continue
			}
			i := d.of[r]
			switch {
			case d.hub[e] && i >= 0:
				stale[i] = true
			case d.hub[e]:
			case i == ofHubs: // it has a choice now
				d.rest = slices.DeleteFunc(slices.Clone(d.rest), func(x int) bool { return x == r })
				stale[s.in.admit(d, r)] = true
			case d.at[e] < 0:
				d.at[e] = i
				stale[i] = true
			case d.at[e] != i:
				stale[s.in.merge(d, i, d.at[e])] = true
			}
		}
	}
	for i := range d.list {
		if c := &d.list[i]; len(c.who) > 0 && c.bound == 0 { // new, or put together
			stale[i] = true
		}
		if c := &d.list[i]; slices.ContainsFunc(c.who, func(r int) bool { return s.at[r] < 0 }) {
			who := slices.Clone(c.who)
			c.who, stale[i] = who[:0], true
			for _, r := range who {
				if s.at[r] >= 0 {
					c.who = append(c.who, r)
				} else {
					d.of[r] = uncounted
				}
			}
		}
	}
	d.rest = slices.DeleteFunc(slices.Clone(d.rest), func(r int) bool {
		if s.at[r] < 0 {
			d.of[r] = uncounted
		}
		return s.at[r] < 0
	})
	for r := range d.roam {
		d.roam[r] = d.roam[r] && s.at[r] >= 0
	}
	for r, e := range s.at {
		if e >= 0 && d.of[r] == uncounted && !d.roam[r] {
			if i := s.in.admit(d, r); i >= 0 {
				stale[i] = true
			}
		}
	}
	view := *s
	view.shadow = d.prices
	for i := range stale {
		view.rebound(d, i, len(stale) <= fewStale)
	}
	s.proof, s.cells = view.proofOf(d), d
}
