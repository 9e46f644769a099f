package alloc

import (
	"cmp"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
	"github.com/fleetbus/fleetbus/messages"
)

// Prices are what a unit of each capacity is worth in a plan, in score, by environment
// id; an environment where all are 0 is absent. They come with a plan, and the next
// solve or repair of nearly the same problem begins with them.
type Prices map[string]messages.Resources

// Options say how hard to try. The zero value is what [Solve] does.
type Options struct {
	// Budget is the number of steps of the search, each about 50 ns; a larger one never
	// gives a worse plan. 0 is a budget by the size of the problem: about a millisecond
	// for tens of replicas, about a second for tens of thousands. A first plan is made,
	// and sites are planned one by one, in any case.
	Budget int
	// Stop is asked every few thousand steps of the search; true ends it, and the best
	// plan so far is returned. With it, plans depend on when it says so. Nil: only the
	// budget ends it.
	Stop func() bool
	// Prices are those of an earlier plan. Nil: from nothing.
	Prices Prices
}

// The default budget by size. The search needs some hundreds of steps a replica before
// it gains anything, small problems get more of them, and in large ones what it gains
// beyond is soon not worth the time.
const (
	stepsPerReplica = 300
	stepsPerOption  = 50 // what the prices use
	stepsMore       = 1_000
	replicasMore    = 60         // of the first of them
	mostSteps       = 20_000_000 // for one part: large ones take their time by the step, too
)

// mostOptions bounds the places that the search looks at, all replicas together: a
// replica that may run anywhere in a large fleet is looked at in its best places. The
// bound looks at all of them.
const mostOptions = 1_000_000

// check says what is wrong with o.
func (o Options) check() error {
	if o.Budget < 0 {
		return messages.Errorf(messages.CodeBadRequest, "budget: %d; allowed is 0 (by the size of the problem) or more", o.Budget)
	}
	return nil
}

// model is what the search is given: some replicas as items, the environments that
// they could go to as bins.
type model struct {
	assign.Instance
	who   []int // replica of each item
	start []int // bin of each item
	envs  []int // environment of each bin
}

// model makes items of the replicas listed, which start where s has them. bin is -1
// for every environment, and is so again afterwards.
func (s *state) model(who, bin []int, only []bool) *model {
	in := s.in
	m := &model{who: who, start: make([]int, len(who))}
	total := 0
	for _, r := range who {
		total += len(in.reps[r].cands)
	}
	width := len(in.envs)
	if total > mostOptions {
		width = max(8, mostOptions/len(who))
	}
	best := make(map[*candidate][]candidate) // the cheapest of long lists, sorted by environment
	options := make([]assign.Option, 0, min(total, mostOptions)+2*len(who))
	m.Items = make([]assign.Item, len(who))
	for i, r := range who {
		rep := &in.reps[r]
		cands := rep.cands
		if only != nil || len(cands) > width {
			list, ok := best[&cands[0]]
			if !ok {
				list = slices.Clone(cands)
				if only != nil {
					list = slices.DeleteFunc(list, func(c candidate) bool { return !only[c.env] })
				}
				slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(a.score, b.score) })
				list = slices.Clone(list[:min(width, len(list))])
				slices.SortFunc(list, func(a, b candidate) int { return cmp.Compare(a.env, b.env) })
				best[&cands[0]] = list
			}
			cands = list
		}
		first := len(options)
		for _, c := range cands {
			options = append(options, assign.Option{Bin: m.bin(in, c.env, bin), Cost: s.priceBeside(r, c), Need: rep.need})
		}
		for _, e := range []int{s.at[r], rep.cur} { // who is there can stay
			if only != nil || len(cands) == len(rep.cands) || e < 0 || slices.ContainsFunc(options[first:], func(o assign.Option) bool { return m.envs[o.Bin] == e }) {
				continue
			}
			if c, ok := in.find(r, e); ok {
				options = append(options, assign.Option{Bin: m.bin(in, e, bin), Cost: s.priceBeside(r, c), Need: rep.need})
			}
		}
		m.Items[i].Options = options[first:len(options):len(options)]
		if in.apart[rep.task] {
			m.Items[i].Apart = rep.task + 1
		}
		m.start[i] = -1
		if s.at[r] >= 0 && (only == nil || only[s.at[r]]) {
			m.start[i] = bin[s.at[r]]
		}
	}
	for _, e := range m.envs {
		bin[e] = -1
	}
	return m
}

// bin is the bin of environment e, made on first use.
func (m *model) bin(in *instance, e int, bin []int) int {
	if bin[e] < 0 {
		bin[e] = len(m.envs)
		m.envs = append(m.envs, e)
		m.Capacity = append(m.Capacity, in.envs[e].cap)
		price := 0.0
		if in.envs[e].whole {
			price = in.envs[e].price
		}
		m.Open = append(m.Open, price)
	}
	return bin[e]
}

// budget is how much of a budget m needs beside others.
func (m *model) budget() int {
	options := 0
	for i := range m.Items {
		options += len(m.Items[i].Options)
	}
	return stepsPerReplica*len(m.Items) + stepsPerOption*options
}

// search looks for a better plan for the replicas listed, who may all be placed, part
// by part. It returns a state of its own, which holds nobody else. s learns the prices.
// To promote is to look only where somebody waits, and not for long. Nobody is put
// anywhere but on the environments named by only, if it is given.
func (s *state) search(who []int, o Options, promote bool, only []bool) *state {
	parts, loose := s.in.parts(who, only)
	t := newState(s.in, s.steps)
	shadow := make([][resources]float64, len(s.in.envs))
	bin := make([]int, len(s.in.envs))
	for e := range bin {
		bin[e] = -1
	}
	models := make([]*model, len(parts))
	all := 0
	for i, part := range parts {
		models[i] = s.model(part, bin, only)
		all += models[i].budget()
	}
	budget := o.Budget
	if budget == 0 {
		budget = all + stepsMore*min(len(who), replicasMore)
	}
	if promote {
		budget /= promotions
	}
	share := float64(budget) / float64(max(1, all))
	for _, m := range models {
		steps := max(1, int(share*float64(m.budget())))
		if o.Budget == 0 {
			steps = min(steps, mostSteps)
		}
		if m.settled() || promote && !slices.Contains(m.start, -1) {
			m.keep(s, t, shadow)
		} else {
			m.solve(s, t, shadow, loose, steps, o.Stop)
		}
	}
	s.shadow, t.shadow = shadow, shadow
	if only == nil {
		t.canonical()
	}
	return t
}

// solve puts the items of m into t, as s has them where the search finds nothing
// better: amounts beyond what it takes are no error, s is a plan.
func (m *model) solve(s, t *state, shadow [][resources]float64, loose []bool, budget int, stop func() bool) {
	opt := assign.Options{Budget: budget, Stop: stop, Start: m.start}
	if s.shadow != nil {
		opt.Prices = make([][assign.Resources]float64, len(m.envs))
		for i, e := range m.envs {
			opt.Prices[i] = s.shadow[e]
		}
	}
	res, err := assign.Solve(&m.Instance, opt)
	if err != nil {
		m.keep(s, t, shadow)
		return
	}
	for i, e := range m.envs {
		if !loose[e] { // nobody competes for the others
			shadow[e] = res.Prices[i]
		}
	}
	mark := len(t.log)
	for i, b := range res.Assign {
		if b < 0 {
			continue
		}
		// Checked again by this package's own sums: they are what a plan is held to.
		r, e := m.who[i], m.envs[b]
		if !t.room(r, e) {
			t.undo(mark)
			m.keep(s, t, shadow)
			return
		}
		t.put(r, e)
	}
}

// keep puts the items of m into t as s has them.
func (m *model) keep(s, t *state, shadow [][resources]float64) {
	for i, r := range m.who {
		if b := m.start[i]; b >= 0 {
			t.put(r, m.envs[b])
		}
	}
	if s.shadow != nil {
		for _, e := range m.envs {
			shadow[e] = s.shadow[e]
		}
	}
}

// settled says that nobody has a choice.
func (m *model) settled() bool {
	for i := range m.Items {
		if len(m.Items[i].Options) > 1 || m.start[i] < 0 {
			return false
		}
	}
	return true
}

// canonical lets, among equal replicas, the last by id wait.
func (s *state) canonical() {
	waiting := make(map[*candidate][]int)
	some := false
	for r, e := range s.at {
		if cands := s.in.reps[r].cands; e < 0 && len(cands) > 0 {
			waiting[&cands[0]] = append(waiting[&cands[0]], r)
			some = true
		}
	}
	if !some {
		return
	}
	for x := len(s.at) - 1; x >= 0; x-- {
		rep := &s.in.reps[x]
		e := s.at[x]
		if e < 0 || len(rep.cands) == 0 || rep.cur == e {
			continue
		}
		list := waiting[&rep.cands[0]]
		if len(list) == 0 || list[0] > x {
			continue
		}
		if r := list[0]; s.in.ahead(r, x) == 0 && s.in.reps[r].cur == rep.cur && s.in.reps[r].move == rep.move {
			s.take(x)
			s.put(r, e)
			waiting[&rep.cands[0]] = list[1:]
		}
	}
}

// refine improves the plan of s by a search among the placed, and returns the better
// of the two.
func (s *state) refine(o Options) *state {
	if obj := s.objective(); obj <= s.bound()+tolerance*max(1, obj) {
		return s // proven already
	}
	var who []int
	for r, e := range s.at {
		if e >= 0 {
			who = append(who, r)
		}
	}
	if s.cells == nil {
		s = s.repack(who, o.Stop)
	}
	if o.Budget == 0 && s.objective() <= s.proof*(1+worthwhile(len(who))) {
		return s
	}
	shadow := s.shadow
	s.shadow = s.in.pricesFrom(o.Prices) // not those of the hubs alone: the search wants all, or none
	t := s.search(who, o, false, nil)
	s.shadow = shadow
	s.proof = max(s.proof, t.lagrange())
	if s.cells != nil && s.objective() > s.proof*(1+enough) {
		s.proveAt(t.shadow)
	}
	t.proof, t.cells = s.proof, s.cells
	if len(t.waiting()) > len(s.waiting()) || !gains(t.objective()-s.objective(), s.objective()) {
		return s
	}
	return t
}

// worthwhile is the gap from which on a search is made without being asked for, of so many
// replicas: in a large fleet it takes seconds, and what it gains beyond is small.
func worthwhile(replicas int) float64 {
	const small, large, many = 0.001, 0.015, 10_000
	return small + (large-small)*min(1, float64(replicas)/many)
}

// repack returns the better plan of s and what pack makes of the replicas listed, those who
// are placed: with the bound in any case, which does not ask for a plan.
func (s *state) repack(who []int, stop func() bool) *state {
	t := s.pack(who, stop)
	if t == nil {
		return s
	}
	s.proof, s.cells = t.proof, t.cells
	if s.shadow == nil {
		s.shadow = t.shadow
	}
	if t.homeless(who) == 0 && gains(t.objective()-s.objective(), s.objective()) {
		return t
	}
	return s
}

// promotions bounds how often one solve tries to place more than the first plan has.
const promotions = 4

// promote tries to place, of those who wait though they could run somewhere, the band
// that stands highest, beside everybody who is placed.
func (s *state) promote(bands [][]int, o Options) *state {
	var who []int
	for r := range s.at {
		if len(s.in.reps[r].cands) > 0 {
			who = append(who, r)
		}
	}
	if t := s.pack(who, o.Stop); t != nil && s.in.compare(bands, t, s) < 0 {
		if t.homeless(who) > 0 {
			t.proof, t.cells = 0, nil // of more than are placed
		}
		t.canonical()
		s = t
	}
	tries := promotions
	for _, band := range bands {
		waits := slices.ContainsFunc(band, func(r int) bool { return s.at[r] < 0 && len(s.in.reps[r].cands) > 0 })
		if !waits {
			continue
		}
		if tries--; tries < 0 {
			break
		}
		var who []int
		for r, e := range s.at {
			if e >= 0 || len(s.in.reps[r].cands) > 0 && s.in.ahead(r, band[0]) == 0 {
				who = append(who, r)
			}
		}
		// Not by the caller's budget: who is placed must not depend on it in a way that
		// could make a larger one worse.
		t := s.search(who, Options{Stop: o.Stop}, true, nil)
		if s.in.compare(bands, t, s) < 0 {
			s = t
		}
	}
	return s
}
