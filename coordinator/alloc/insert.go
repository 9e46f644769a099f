package alloc

import (
	"cmp"
	"slices"
)

// insertDepth bounds how many replicas move aside for one, one after the other.
// insertTries bounds how many constellations are looked at for one waiting replica.
const (
	insertDepth = 3
	insertTries = 4_000
)

// insert places r, moving others aside where it must: nobody loses its place. It
// reports whether that was possible; if not, nothing has changed.
func (s *state) insert(r int) bool {
	s.log = s.log[:0]
	for depth := 0; depth <= insertDepth; depth++ {
		tries := min(insertTries, s.steps)
		before := tries
		ok := s.insertBy(r, depth, &tries)
		s.steps -= before - tries
		if ok {
			return true
		}
	}
	return false
}

// insertBy is insert with at most depth replicas moving aside one after the other.
func (s *state) insertBy(r, depth int, tries *int) bool {
	*tries -= len(s.in.reps[r].cands) / 16 // a look at many costs more than one at few
	if c, _, ok := s.best(r, -1); ok {
		s.put(r, c.env)
		return true
	}
	if depth == 0 {
		return false
	}
	s.locked[r] = true
	defer func() { s.locked[r] = false }()
	for _, e := range s.cheapest(r) {
		movable := s.movable(e)
		price := 1 + len(s.on[e])/16 // taking one of many away costs more than one of few
		for i, x := range movable {
			if *tries -= price; *tries < 0 {
				return false
			}
			if s.swapIn(r, e, []int{x}, depth, tries) {
				return true
			}
			for _, y := range movable[i+1:] {
				if *tries -= price; *tries < 0 {
					return false
				}
				if s.swapIn(r, e, []int{x, y}, depth, tries) {
					return true
				}
			}
		}
	}
	return false
}

// swapIn puts r on e in the place of those that leave, if they all find another.
func (s *state) swapIn(r, e int, leave []int, depth int, tries *int) bool {
	mark := len(s.log)
	for _, x := range leave {
		s.take(x)
	}
	ok := s.room(r, e)
	if ok {
		s.put(r, e)
	}
	for i := 0; ok && i < len(leave); i++ {
		ok = s.insertBy(leave[i], depth-1, tries)
		if ok { // the next one must not push it out again
			x := leave[i]
			s.locked[x] = true
			defer func() { s.locked[x] = false }()
		}
	}
	if !ok {
		s.undo(mark)
	}
	return ok
}

// undo takes back what was done since the log had mark entries.
func (s *state) undo(mark int) {
	for i := len(s.log) - 1; i >= mark; i-- {
		if c := s.log[i]; c.put {
			s.take(c.replica)
		} else {
			s.put(c.replica, c.env)
		}
	}
	s.log = s.log[:mark]
}

// movable are the replicas on e that have another candidate and are not locked. Those
// that hold most of what is scarcest there come first where that is asked for: one that
// goes can make room for several.
func (s *state) movable(e int) []int {
	var out []int
	for _, x := range s.on[e] {
		if !s.locked[x] && len(s.in.reps[x].cands) > 1 {
			out = append(out, x)
		}
	}
	if s.bulky {
		scarce, most := 0, 0.0
		for k, have := range s.in.envs[e].cap {
			if have > 0 && s.used[e][k]/have > most {
				scarce, most = k, s.used[e][k]/have
			}
		}
		slices.SortStableFunc(out, func(a, b int) int {
			return cmp.Compare(s.in.reps[b].need[scarce], s.in.reps[a].need[scarce])
		})
	}
	return out
}

// cheapest are the candidate environments of r, the cheapest first.
func (s *state) cheapest(r int) []int {
	cands := slices.Clone(s.in.reps[r].cands)
	slices.SortStableFunc(cands, func(a, b candidate) int { return cmp.Compare(s.price(r, a), s.price(r, b)) })
	out := make([]int, len(cands))
	for i, c := range cands {
		out[i] = c.env
	}
	return out
}
