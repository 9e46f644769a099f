package alloc

import (
	"math"
	"slices"
)

// proofOf is a score that no plan placing the same replicas undercuts, at the prices of
// the hubs that the cells were planned at: the cells, the others where they are cheapest,
// less what the hubs can sell.
func (s *state) proofOf(d *cells) float64 {
	var sum, size float64
	for i := range d.list {
		sum += d.list[i].bound
	}
	for _, r := range d.rest {
		v, _ := s.outside(r, d.hub, false)
		sum += v
	}
	for r, roams := range d.roam {
		if !roams {
			continue
		}
		low := math.Inf(1)
		for _, c := range s.in.reps[r].cands {
			low = min(low, c.score+s.worth(r, c.env))
		}
		sum += low
	}
	size = sum
	for e, hub := range d.hub {
		if !hub {
			continue
		}
		env := &s.in.envs[e]
		if env.Closed != "" {
			continue // nobody goes there
		}
		worth := 0.0
		for k, have := range env.cap {
			worth += s.shadow[e][k] * (have + tolerance*max(1, have))
		}
		if worth -= env.price; worth > 0 {
			sum -= worth
			size += worth
		}
	}
	// What rounding may have added.
	return max(0, sum-1e-9*size)
}

// join puts the replicas of the cells where they are planned, and looks for the best places
// on hubs for all others. It returns nil where the plans do not fit after all.
func (s *state) join(d *cells, who, at []int, stop func() bool) *state {
	t := newState(s.in, s.steps)
	others := slices.Clone(d.rest)
	put := func(r, e int) bool {
		if !t.room(r, e) {
			return false
		}
		t.put(r, e)
		return true
	}
	for _, r := range who {
		if e := s.at[r]; d.roam[r] && e >= 0 {
			if d.hub[e] {
				others = append(others, r)
			} else if !put(r, e) {
				return nil
			}
		}
	}
	for i := range d.list {
		for _, r := range d.list[i].who {
			switch e := at[r]; {
			case e == -1:
				others = append(others, r)
			case e >= 0:
				if !put(r, e) {
					return nil
				}
			}
		}
	}
	slices.Sort(others)
	view := *s // a search leaves its prices behind
	h := view.search(others, Options{Stop: stop}, false, d.hub)
	t.shadow = h.shadow
	for _, r := range others {
		if e := h.at[r]; e >= 0 && !put(r, e) {
			return nil
		}
	}
	return t
}
