package alloc

import (
	"cmp"
	"slices"
)

// improve lowers the objective by moves until none helps or the steps are used up.
// It never takes a place away.
func (s *state) improve() {
	for {
		better := s.shifts()
		better = s.swaps() || better
		better = s.closings() || better
		better = s.openings() || better
		if !better || s.steps <= 0 {
			return
		}
	}
}

// gains reports whether a change by delta of a value of the size given is more
// than rounding. Without it two plans of one score would alternate for ever.
func gains(delta, size float64) bool { return delta < -tolerance*max(1, size) }

// shifts moves single replicas to where they cost less.
func (s *state) shifts() bool {
	better := false
	for r, e := range s.at {
		if e < 0 {
			continue
		}
		if s.steps -= len(s.in.reps[r].cands); s.steps <= 0 {
			return better
		}
		here := s.here(r)
		c, p, ok := s.best(r, e)
		if !ok || !gains(p-here, here) {
			continue
		}
		s.take(r)
		s.put(r, c.env)
		better = true
	}
	return better
}

// swaps exchanges the environments of two replicas where both together cost less.
func (s *state) swaps() bool {
	better := false
	for r := range s.at {
		if s.at[r] < 0 {
			continue
		}
		for _, c := range s.in.reps[r].cands {
			if c.env == s.at[r] {
				continue
			}
			if x, ok := s.partner(r, c); ok {
				a, b := s.take(r), s.take(x)
				s.put(r, b)
				s.put(x, a)
				better = true
			}
			if s.steps <= 0 {
				return better
			}
		}
	}
	return better
}

// partner finds the first replica on c's environment that r gains by changing
// places with.
func (s *state) partner(r int, c candidate) (int, bool) {
	a, b := s.at[r], c.env
	ca, _ := s.in.find(r, a)
	mine := s.priceBeside(r, c) - s.priceBeside(r, ca)
	for _, x := range s.on[b] {
		if s.steps--; s.steps <= 0 {
			return 0, false
		}
		cx, ok := s.in.find(x, a)
		if !ok {
			continue
		}
		cb, _ := s.in.find(x, b)
		here := s.priceBeside(x, cb)
		if gains(mine+s.priceBeside(x, cx)-here, here) && s.exchangeable(r, x) {
			return x, true
		}
	}
	return 0, false
}

// exchangeable reports whether two replicas on different environments have room
// in each other's place.
func (s *state) exchangeable(r, x int) bool {
	a, b := s.at[r], s.at[x]
	rr, rx := &s.in.reps[r], &s.in.reps[x]
	if rr.task != rx.task {
		if s.in.apart[rr.task] && s.held[[2]int{rr.task, b}] > 0 || s.in.apart[rx.task] && s.held[[2]int{rx.task, a}] > 0 {
			return false
		}
	}
	for k := range rr.need {
		if !fits(s.used[a][k]-rr.need[k]+rx.need[k], s.in.envs[a].cap[k]) ||
			!fits(s.used[b][k]-rx.need[k]+rr.need[k], s.in.envs[b].cap[k]) {
			return false
		}
	}
	return true
}

// closings empties whole-billed environments whose replicas are cheaper elsewhere,
// all together, than the price that this saves.
func (s *state) closings() bool {
	better := false
	for e := range s.in.envs {
		if !s.in.envs[e].whole || len(s.on[e]) == 0 || s.steps <= 0 {
			continue
		}
		better = s.trial(s.on[e], func(r int) (candidate, bool) {
			c, _, ok := s.best(r, e)
			return c, ok
		}) || better
	}
	return better
}

// openings fills empty whole-billed environments with whoever gains most there.
func (s *state) openings() bool {
	better := false
	for e := range s.in.envs {
		if !s.in.envs[e].whole || len(s.on[e]) > 0 || s.steps <= 0 {
			continue
		}
		type gain struct {
			replica int
			by      float64
		}
		var list []gain
		for r := range s.at {
			s.steps--
			if s.at[r] < 0 {
				continue
			}
			if c, ok := s.in.find(r, e); ok {
				if by := s.here(r) - s.priceBeside(r, c); by > 0 {
					list = append(list, gain{r, by})
				}
			}
		}
		slices.SortStableFunc(list, func(a, b gain) int { return cmp.Compare(b.by, a.by) })
		var who []int
		for _, g := range list {
			who = append(who, g.replica)
		}
		better = s.trial(who, func(r int) (candidate, bool) {
			c, ok := s.in.find(r, e)
			return c, ok && s.room(r, e)
		}) || better
	}
	return better
}

// trial moves the replicas to where to says, in order, leaving out who has no place
// there, and keeps the result only if it lowers the objective.
func (s *state) trial(who []int, to func(r int) (candidate, bool)) bool {
	s.log = s.log[:0]
	var delta, size float64
	for _, r := range slices.Clone(who) {
		s.steps -= len(s.in.reps[r].cands)
		c, ok := to(r)
		if !ok {
			continue
		}
		here := s.here(r)
		s.take(r)
		delta += s.price(r, c) - here
		size += here
		s.put(r, c.env)
	}
	if gains(delta, size) {
		return true
	}
	s.undo(0)
	return false
}
