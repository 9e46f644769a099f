package alloc

import (
	"cmp"
	"slices"
)

// effort bounds the work of a first plan: about so many comparisons of a replica with
// a place. A count and not a clock, so that equal problems give equal plans. A large fleet
// gets less for each replica: what it misses, package packing finds.
const effort = 4_000_000

func (in *instance) effort() int { return max(effort/10, effort-100*len(in.reps)) }

// rounds bounds how often improving is tried again after it made room for somebody.
const rounds = 4

// Solve returns a plan for p. The error is an [*messages.Error] that names the field
// of p that is wrong (see [Problem.Check]); that something waits is no error. A plan
// always keeps every constraint.
func Solve(p Problem) (Plan, error) { return SolveWith(p, Options{}) }

// SolveWith is [Solve] with a budget, a deadline, or prices to begin with.
func SolveWith(p Problem, o Options) (Plan, error) {
	if err := o.check(); err != nil {
		return Plan{}, err
	}
	in, err := compile(p)
	if err != nil {
		return Plan{}, err
	}
	s := in.solveWith(o)
	plan := s.plan()
	s.explainWaiting(p, &plan)
	return plan, nil
}

func (in *instance) solve() *state { return in.solveWith(Options{}) }

// solveWith finds an assignment: a first one by regret, which decides who waits, then
// more of those who wait where the search finds room for them, then a better one for
// all who are placed.
func (in *instance) solveWith(o Options) *state {
	s := in.first()
	s.shadow = in.pricesFrom(o.Prices)
	if bands := in.bands(); len(s.waiting()) > 0 {
		s = s.promote(bands, o)
	}
	return s.refine(o)
}

// first finds an assignment without a search.
func (in *instance) first() *state {
	// All together gives the best plans where everybody finds a place …
	all := make([]int, len(in.reps))
	for i := range all {
		all[i] = i
	}
	bands := in.bands()
	s := in.attempt([][]int{all}, len(bands) == 1)
	if len(s.waiting()) == 0 || len(bands) == 1 {
		return s
	}
	// … and band by band makes sure that nobody waits for who stands lower.
	if t := in.attempt(bands, true); in.compare(bands, t, s) < 0 {
		return t
	}
	return s
}

// attempt places the groups one after the other; who is placed stays placed, except
// that within a group, where each is one band, one may wait for two others.
func (in *instance) attempt(groups [][]int, bands bool) *state {
	s := newState(in, in.effort())
	for _, g := range groups {
		s.construct(g)
		s.retry(g)
		if bands {
			s.trade(g)
		}
	}
	for range rounds {
		s.improve()
		if !s.retry(s.waiting()) {
			break
		}
	}
	return s
}

// retry tries to place those of the list that wait, and reports whether it placed any.
func (s *state) retry(list []int) bool {
	list = slices.Clone(list)
	slices.SortStableFunc(list, s.in.ahead)
	placed := false
	for _, r := range list {
		if s.at[r] < 0 && s.steps > 0 {
			placed = s.insert(r) || placed
		}
	}
	return placed
}

// tradeFor bounds how many waiting replicas are offered the room of one placed one.
const tradeFor = 16

// trade lets one of a band wait where two others of it find room instead.
func (s *state) trade(band []int) {
	for _, x := range band {
		if s.at[x] < 0 {
			continue
		}
		var waiting []int
		for _, r := range band {
			if s.at[r] < 0 && len(s.in.reps[r].cands) > 0 && len(waiting) < tradeFor {
				waiting = append(waiting, r)
			}
		}
		if len(waiting) < 2 || s.steps <= 0 {
			return
		}
		s.log = s.log[:0]
		s.take(x)
		placed := 0
		for _, r := range waiting {
			tries := insertTries / insertDepth
			before := tries
			if s.insertBy(r, 1, &tries) {
				placed++
			}
			s.steps -= before - tries + 1
		}
		if placed < 2 {
			s.undo(0)
		}
	}
}

// compare says which of two assignments is better, −1 for a: by who waits, the
// first band counting most, then by the objective.
func (in *instance) compare(bands [][]int, a, b *state) int {
	for _, band := range bands {
		na, nb := 0, 0
		for _, r := range band {
			if a.at[r] >= 0 {
				na++
			}
			if b.at[r] >= 0 {
				nb++
			}
		}
		if na != nb {
			return cmp.Compare(nb, na)
		}
	}
	return cmp.Compare(a.objective(), b.objective())
}

// plan turns an assignment into a Plan, without the reasons of who waits.
func (s *state) plan() Plan {
	p := Plan{Assignments: make([]Assignment, 0, len(s.at))}
	paid := make([]bool, len(s.in.envs))
	for r, e := range s.at {
		rep := &s.in.reps[r]
		if e < 0 {
			p.Waiting = append(p.Waiting, Waiting{Replica: rep.ID, Task: rep.Task.Name})
			continue
		}
		c, _ := s.in.find(r, e)
		a := Assignment{Replica: rep.ID, Task: rep.Task.Name, Environment: s.in.envs[e].ID, Delay: c.delay, Cost: c.cost, Penalty: c.penalty}
		if s.in.envs[e].whole && !paid[e] {
			paid[e] = true
			a.Cost += s.in.envs[e].Price
		}
		p.Delay += a.Delay
		p.Cost += a.Cost
		p.Penalty += a.Penalty
		p.Assignments = append(p.Assignments, a)
	}
	p.Score = Score(s.in.settings, p.Delay, p.Cost) + p.Penalty
	p.Bound = s.proof
	if p.Bound == 0 || !s.repaired {
		p.Bound = max(p.Bound, s.lagrange(), s.bound())
	}
	p.Bound = min(p.Bound, p.Score)
	p.Prices = s.prices()
	return p
}
