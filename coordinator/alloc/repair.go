package alloc

import (
	"cmp"
	"slices"
)

// repairEffort bounds the work of one repair, in the unit of effort: past it a full
// solve is the better use of the time.
const repairEffort = 60_000

// poor is the gap from which on a repaired plan is compared with a full solve, where
// it is also twice what it was before.
const poor = 0.05

// Repair returns a plan for p that differs from p.Current by little: only replicas
// without a valid place move, and those that must make room for them. It is for what
// changes from one moment to the next: an environment lost, closed, new, or fuller
// than it was. Where somebody who had a place finds none, or somebody new none though it
// could run somewhere, or the gap has become poor, p is solved in full, and that plan is
// taken if it places more, or gains more than its moves cost. prices are those of the
// plan in force. A [Solver] does the same faster, by what it knows of the last problem.
func Repair(p Problem, prices Prices, o Options) (Plan, error) {
	if prices != nil {
		o.Prices = prices
	}
	return new(Solver).Repair(p, o)
}

// Repair is the function of that name; without prices in o it begins with those of the
// last plan.
func (v *Solver) Repair(p Problem, o Options) (Plan, error) {
	if err := o.check(); err != nil {
		return Plan{}, err
	}
	old, before := v.s, 0.0
	if old != nil {
		before = old.gap()
	}
	changed, err := v.compile(p)
	if err != nil {
		return Plan{}, err
	}
	waited := make(map[string]bool)
	var s *state
	var homeless []int
	if old != nil {
		for _, r := range old.waiting() {
			waited[old.in.reps[r].ID] = true
		}
	}
	same := changed != nil && old != nil && old.in == v.in
	if same && old.current() {
		s = old
		homeless = s.vacate(changed)
	} else {
		s, homeless = v.in.present()
		if same {
			s.shadow, s.cells = old.shadow, old.cells
		} else if old != nil {
			s.shadow = v.in.pricesFrom(old.prices())
		}
	}
	if o.Prices != nil {
		s.shadow = v.in.pricesFrom(o.Prices)
	}
	s.close()
	s.steps, s.log, s.repaired = repairEffort, s.log[:0], true
	s.construct(homeless)
	s.settle(homeless)
	s.reprove(s.cells, changed)
	if s.unsettled(waited) || s.gap() > max(poor, 2*before) {
		s = s.solveInstead(o)
	}
	v.s = s
	return v.plan(p), nil
}

// current says that s is the plan in force.
func (s *state) current() bool {
	for r, e := range s.at {
		if s.in.reps[r].cur != e {
			return false
		}
	}
	return true
}

// present puts everybody where it is now, those ahead first, and returns who has no
// valid place.
func (in *instance) present() (s *state, homeless []int) {
	s = newState(in, repairEffort)
	order := make([]int, len(in.reps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, in.ahead)
	for _, r := range order {
		if e := in.reps[r].cur; e >= 0 {
			if _, ok := in.find(r, e); ok && s.room(r, e) {
				s.put(r, e)
				continue
			}
		}
		homeless = append(homeless, r)
	}
	return s, homeless
}

// vacate takes away whoever can no longer be on the environments listed, and returns
// all who wait now.
func (s *state) vacate(changed []int) []int {
	for _, e := range changed {
		for _, r := range slices.Clone(s.on[e]) {
			if _, ok := s.in.find(r, e); !ok {
				s.take(r)
			}
		}
		for {
			r, ok := s.surplus(e)
			if !ok {
				break
			}
			s.take(r)
		}
	}
	return s.waiting()
}

// surplus is who gives way first where e is over its capacity: who stands lowest, of
// those the smallest that is enough, or else the largest.
func (s *state) surplus(e int) (who int, ok bool) {
	var over [resources]float64
	for k, have := range s.in.envs[e].cap {
		if !fits(s.used[e][k], have) {
			over[k], ok = s.used[e][k]-have, true
		}
	}
	if !ok || len(s.on[e]) == 0 {
		return 0, false
	}
	share := func(r int) float64 { // of the excess that goes with r, 1 for all of it
		out := 1.0
		for k, v := range over {
			if v > 0 {
				out = min(out, s.in.reps[r].need[k]/v)
			}
		}
		return out
	}
	return slices.MinFunc(s.on[e], func(a, b int) int {
		return cmp.Or(s.in.ahead(b, a), cmp.Compare(share(b), share(a)), cmp.Compare(s.size(a), s.size(b)), cmp.Compare(b, a))
	}), true
}

// close drops the prices of environments that nobody can use: what they have is not
// for sale, and would weaken the bound.
func (s *state) close() {
	if s.shadow == nil {
		return
	}
	s.shadow = slices.Clone(s.shadow)
	for e := range s.in.envs {
		if s.in.envs[e].Closed != "" {
			s.shadow[e] = [resources]float64{}
		}
	}
}

// settle finds places for those listed who still wait, by moving others: with whoever can step
// aside, the largest first or in order, or with a plan of their whole cell for as few moves
// as possible: whichever places more, and then moves fewer.
func (s *state) settle(homeless []int) {
	if !slices.ContainsFunc(homeless, func(r int) bool { return s.at[r] < 0 && len(s.in.reps[r].cands) > 0 }) {
		return
	}
	begin := slices.Clone(s.at)
	ways := [...]func(){
		func() { s.retry(homeless); s.mend(homeless) },
		func() { s.bulky = true; s.retry(homeless); s.mend(homeless) },
		func() { s.mend(homeless); s.retry(homeless) },
	}
	var best, least []int
	for _, way := range ways {
		s.restore(begin)
		s.steps = repairEffort
		way()
		s.bulky = false
		if n := append(s.lacking(homeless), s.moves()); least == nil || slices.Compare(n, least) < 0 {
			best, least = slices.Clone(s.at), n
		}
		if s.homeless(homeless) == 0 && 5*s.moves() <= 6*len(homeless) {
			break // few enough
		}
	}
	s.restore(best)
}

// lacking counts who of the list has no place, by how high they stand: those ahead first.
func (s *state) lacking(list []int) []int {
	order := slices.Clone(list)
	slices.SortStableFunc(order, s.in.ahead)
	var out []int
	for i, r := range order {
		if i == 0 || s.in.ahead(order[i-1], r) != 0 {
			out = append(out, 0)
		}
		if s.at[r] < 0 {
			out[len(out)-1]++
		}
	}
	return out
}

// restore makes the assignment what it was.
func (s *state) restore(at []int) {
	for r, e := range at {
		if s.at[r] >= 0 && s.at[r] != e {
			s.take(r)
		}
	}
	for r, e := range at {
		if e >= 0 && s.at[r] < 0 {
			s.put(r, e)
		}
	}
	s.log = s.log[:0]
}

// moves is how many are not where they were.
func (s *state) moves() int {
	n := 0
	for r, e := range s.at {
		if cur := s.in.reps[r].cur; e >= 0 && cur >= 0 && e != cur {
			n++
		}
	}
	return n
}

// unsettled says that somebody waits who did not wait before, and for whom a plan of the
// whole fleet could find a place.
func (s *state) unsettled(waited map[string]bool) bool {
	return slices.ContainsFunc(s.waiting(), func(r int) bool {
		return len(s.in.reps[r].cands) > 0 && !waited[s.in.reps[r].ID] && !s.hopeless(r)
	})
}

// hopeless says that r can only run in a cell in which nobody stands lower: a plan of that
// cell has been looked for, and nobody else could make room.
func (s *state) hopeless(r int) bool {
	d := s.cells
	if d == nil {
		return false
	}
	i := -1
	for _, c := range s.in.reps[r].cands {
		at := d.at[c.env]
		if d.hub[c.env] || at < 0 || i >= 0 && at != i || slices.ContainsFunc(s.on[c.env], func(x int) bool { return d.roam[x] }) {
			return false
		}
		i = at
	}
	return !slices.ContainsFunc(d.list[i].who, func(x int) bool { return s.in.ahead(r, x) < 0 })
}

// gap is by how much the objective may be above the best there is; 0 where nothing
// says so. Without prices, which is where nothing was scarce so far, the plain bound says
// it: whoever had to leave then costs more than it, and is worth a better look.
func (s *state) gap() float64 {
	bound := s.proof
	switch {
	case bound > 0:
	case s.shadow != nil:
		bound = s.lagrange()
	default:
		bound = s.bound()
	}
	if bound > 0 {
		return s.objective()/bound - 1
	}
	return 0
}

// mend plans the cells anew of those listed who wait, where that gives more of them a place
// and takes none away.
func (s *state) mend(who []int) {
	d := s.cells
	if d == nil {
		return
	}
	done := make(map[int]bool)
	for _, r := range who {
		if s.at[r] >= 0 || d.roam[r] || len(s.in.reps[r].cands) == 0 {
			continue
		}
		i := d.of[r]
		if i == uncounted {
			i = s.in.admit(d, r)
		}
		if i >= 0 && !done[i] {
			done[i] = true
			s.replan(d, i)
		}
	}
}

// replan plans cell i anew; nothing changes where that takes a place away or gives none.
func (s *state) replan(d *cells, i int) {
	at := make([]int, len(s.at))
	view := *s
	view.shadow = d.prices
	c := d.list[i]
	stay := 0.0 // more than most moves can gain: few moves before good ones
	for _, r := range c.who {
		for _, x := range s.in.reps[r].cands {
			stay = max(stay, x.score)
		}
	}
	moves, values := make([]float64, len(c.who)), slices.Clone(d.values) // those of before say more
	for x, r := range c.who {
		moves[x] = s.in.reps[r].move
		s.in.reps[r].move += stay
	}
	view.planCell(d, i, at, false)
	for x, r := range c.who {
		s.in.reps[r].move = moves[x]
	}
	d.values = values
	d.list[i] = c
	had := slices.DeleteFunc(slices.Clone(c.who), func(r int) bool { return s.at[r] < 0 })
	mark := len(s.log)
	for _, r := range had {
		s.take(r)
	}
	for _, r := range c.who {
		if e := at[r]; e >= 0 && s.room(r, e) {
			s.put(r, e)
		}
	}
	for _, r := range c.who { // the hubs after the cell's own
		if s.at[r] < 0 {
			if x, _, ok := s.best(r, -1); ok {
				s.put(r, x.env)
			}
		}
	}
	if s.homeless(had) > 0 || s.homeless(c.who) >= len(c.who)-len(had) {
		s.undo(mark)
	}
}

// solveInstead solves in full, and returns the better plan. Among plans that place as
// many, one that lets somebody wait who has a place is not better.
func (s *state) solveInstead(o Options) *state {
	if o.Prices == nil {
		o.Prices = s.prices()
	}
	t := s.in.solveWith(o)
	bands := s.in.bands()
	if s.in.compare(bands, t, s) >= 0 {
		return s
	}
	more := false
	for _, band := range bands {
		var n, m int
		for _, r := range band {
			if t.at[r] >= 0 {
				n++
			}
			if s.at[r] >= 0 {
				m++
			}
		}
		more = more || n != m
	}
	for r := range s.at {
		if !more && s.at[r] >= 0 && t.at[r] < 0 {
			return s
		}
	}
	return t
}
