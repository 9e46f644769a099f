package alloc

import "slices"

// state is an assignment under construction. It never breaks a constraint.
type state struct {
	in       *instance
	at       []int                // environment of each replica, -1 for none
	on       [][]int              // replicas on each environment, sorted
	used     [][resources]float64 // by them
	held     map[[2]int]int       // replicas of (task, environment)
	locked   []bool               // replicas that the running insertion must leave alone
	log      []change             // since the running insertion began, so that it can be undone
	steps    int                  // what is left of the effort
	repaired bool                 // not solved: its plan is wanted at once
	bulky    bool                 // insertions move the largest aside first
	shadow   [][resources]float64 // prices of the capacities, by environment; nil for none
	proof    float64              // no plan that places the same replicas scores less, moves free; 0 for unknown
	cells    *cells               // that gave it
}

type change struct {
	replica, env int
	put          bool // else taken
}

func newState(in *instance, steps int) *state {
	s := &state{in: in, at: make([]int, len(in.reps)), on: make([][]int, len(in.envs)),
		used: make([][resources]float64, len(in.envs)), held: make(map[[2]int]int, len(in.reps)),
		locked: make([]bool, len(in.reps)), steps: steps}
	for i := range s.at {
		s.at[i] = -1
	}
	return s
}

// room reports whether r may be put on e beside what is there. The caller knows
// that e is a candidate of r.
func (s *state) room(r, e int) bool {
	rep := &s.in.reps[r]
	if s.in.apart[rep.task] && s.held[[2]int{rep.task, e}] > 0 {
		return false
	}
	cap, used := &s.in.envs[e].cap, &s.used[e]
	for k := range rep.need {
		if !fits(used[k]+rep.need[k], cap[k]) {
			return false
		}
	}
	return true
}

func (s *state) put(r, e int) {
	rep := &s.in.reps[r]
	s.log = append(s.log, change{r, e, true})
	s.at[r] = e
	i, _ := slices.BinarySearch(s.on[e], r)
	s.on[e] = slices.Insert(s.on[e], i, r)
	s.held[[2]int{rep.task, e}]++
	for k := range rep.need {
		s.used[e][k] += rep.need[k]
	}
}

func (s *state) take(r int) int {
	e, rep := s.at[r], &s.in.reps[r]
	s.log = append(s.log, change{r, e, false})
	s.at[r] = -1
	i, _ := slices.BinarySearch(s.on[e], r)
	s.on[e] = slices.Delete(s.on[e], i, i+1)
	s.held[[2]int{rep.task, e}]--
	// Summed anew, not subtracted: else rounding errors grow with every move.
	s.used[e] = [resources]float64{}
	for _, x := range s.on[e] {
		for k, n := range s.in.reps[x].need {
			s.used[e][k] += n
		}
	}
	return e
}

// price is the score of r on candidate c given what is on it, and of leaving its
// current environment.
func (s *state) price(r int, c candidate) float64 {
	p := s.priceBeside(r, c)
	if env := &s.in.envs[c.env]; env.whole && len(s.on[c.env]) == 0 {
		p += env.price
	}
	return p
}

// priceBeside is price where something else runs on the environment already.
func (s *state) priceBeside(r int, c candidate) float64 {
	if cur := s.in.reps[r].cur; cur >= 0 && cur != c.env {
		return c.score + s.in.reps[r].move
	}
	return c.score
}

// here is what taking the placed r away would save.
func (s *state) here(r int) float64 {
	e := s.at[r]
	c, _ := s.in.find(r, e)
	p := s.priceBeside(r, c)
	if env := &s.in.envs[e]; env.whole && len(s.on[e]) == 1 {
		p += env.price
	}
	return p
}

// best returns the cheapest candidate of r that has room, other than not.
func (s *state) best(r, not int) (c candidate, price float64, ok bool) {
	for _, x := range s.in.reps[r].cands {
		if x.env == not || !s.room(r, x.env) {
			continue
		}
		if p := s.price(r, x); !ok || p < price {
			c, price, ok = x, p, true
		}
	}
	return c, price, ok
}

// objective is what solving minimises among plans that place the same replicas.
func (s *state) objective() float64 {
	var sum float64
	for r, e := range s.at {
		if e >= 0 {
			c, _ := s.in.find(r, e)
			sum += s.priceBeside(r, c)
		}
	}
	for e := range s.on {
		if env := &s.in.envs[e]; env.whole && len(s.on[e]) > 0 {
			sum += env.price
		}
	}
	return sum
}

// waiting returns the replicas without a place, those ahead first.
func (s *state) waiting() []int {
	var out []int
	for r, e := range s.at {
		if e < 0 {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, s.in.ahead)
	return out
}
