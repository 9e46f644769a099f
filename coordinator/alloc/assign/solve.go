package assign

import "math"

// Solve returns a plan for p. The error is a [*messages.Error] with the code
// bad_request, which names the field of p or o that is wrong. That items wait is no
// error.
func Solve(p *Instance, o Options) (Result, error) {
	if err := check(p, &o); err != nil {
		return Result{}, err
	}
	c := compile(p, &o)
	r := &search{c: c, s: newState(c), rng: newRandom(), best: make([]int32, c.n), bestCost: math.Inf(1),
		budget: o.Budget, stop: o.Stop, improved: o.Improved}
	if r.budget == 0 {
		r.budget = DefaultBudget
	}
	copy(r.best, r.s.at)
	d := newDual(c)
	r.d = d
	d.warm(o.Prices)
	r.solve(d, o.Prices != nil)
	return r.result(), nil
}

// Iterations of the subgradient before the first plan, and after it.
const (
	before  = 120
	refresh = 10 // where there are earlier prices
	after   = 400
)

func (r *search) solve(d *dual, warm bool) {
	c, s := r.c, r.s
	if warm {
		d.climb(refresh, r.guess())
	} else {
		d.climb(before, r.guess())
	}
	r.short = d.shortlist(d.prices)
	r.weigh(d)
	for j, o := range c.start {
		if o >= 0 && s.open(int32(j), o) {
			s.move(int32(j), o)
		}
	}
	s.construct(d, d.prices, r.short)
	r.repair()
	target := r.bestCost
	d.resume(0.5)
	const batch = 10
	for i := 0; i < after && !r.done(); i += batch {
		d.climb(batch, target)
		r.steps += batch * len(c.bin) / 8 // a look at an option is about an eighth of a move
	}
	r.short = d.shortlist(d.prices)
	r.weigh(d)
	r.rounds()
}

// guess is an objective above the bound: what items cost in the cheapest place that
// has room, one after the other.
func (r *search) guess() float64 {
	c := r.c
	s := newState(c)
	var sum float64
	for j := range int32(c.n) {
		best, at, worst := math.Inf(1), int32(-1), 0.0
		for o := c.first[j]; o < c.wait(j); o++ {
			worst = max(worst, c.cost[o])
			if c.cost[o] < best && s.fits(o) {
				best, at = c.cost[o], o
			}
		}
		if at >= 0 {
			s.move(j, at)
		} else {
			sum += worst
		}
	}
	for j, o := range s.at {
		if !c.waits(o) {
			sum += c.cost[s.at[j]]
		}
	}
	for b := range c.m {
		if len(s.in[b]) > 0 {
			sum += c.open[b]
		}
	}
	return sum
}

// weigh sets the penalties from the prices.
func (r *search) weigh(d *dual) {
	c := r.c
	spread := d.spread()
	for k := range c.k {
		var needs float64
		for o := range c.bin {
			needs += c.need[o*c.k+k]
		}
		mean := needs / float64(max(1, len(c.bin)-c.n))
		extra := 1.0 // anything over 0, where nothing says what
		if spread > 0 && mean > 0 {
			extra = min(max(spread/mean, 1/limit), limit)
		}
		for b := range c.m {
			r.s.pen[b*c.k+k] = d.prices[b*c.k+k] + extra
		}
	}
	r.s.scale = 1
	copy(r.s.price, d.prices)
	if r.rc == nil {
		r.rc = make([]float64, len(c.bin))
	}
	for o := range r.rc {
		r.rc[o] = d.reduced(int32(o), d.prices)
	}
}

// repair places who waits over capacity, and moves others until the excess is gone; if
// it does not go, some wait.
func (r *search) repair() {
	s := r.s
	r.note() // with who waits: it may remain the only one
	r.keep()
	if s.wait > 0 {
		r.push()
		spread := r.d.spread()
		if s.over > 0 {
			budget := r.budget // the first plan is made in any case
			r.budget = math.MaxInt
			r.settle(spread)
			r.budget, r.steps = budget, 0
		}
	}
	if s.over > 0 {
		r.evict()
		s.construct(r.d, r.d.prices, r.short)
	}
	s.refresh()
	r.note()
	r.keep()
}

// push places everybody who waits where it costs least, penalties included; those whose
// waiting has a price of its own are where they are because it is cheaper.
func (r *search) push() {
	c, s := r.c, r.s
	for j := range int32(c.n) {
		if !c.waits(s.at[j]) || c.mayWait[j] {
			continue
		}
		best, at := math.Inf(1), int32(-1)
		for o := c.first[j]; o < c.wait(j); o++ {
			if !s.apart(j, c.bin[o], -1) {
				continue
			}
			if v := r.rc[o] + s.gain(o) + s.opening(int32(c.m), c.bin[o]); v < best {
				best, at = v, o
			}
		}
		if at >= 0 {
			s.move(j, at)
		}
	}
}

// evict lets items wait until nothing is over capacity.
func (r *search) evict() {
	c, s := r.c, r.s
	for b := range int32(c.m) {
		for {
			worst, who := 0.0, int32(-1)
			for _, j := range s.in[b] {
				relief := s.relief(s.at[j])
				if relief <= 0 {
					continue
				}
				if v := relief / max(c.cost[c.wait(j)], 1e-9); v > worst || v == worst && who >= 0 && j < who {
					worst, who = v, j
				}
			}
			if who < 0 {
				break
			}
			s.move(who, c.wait(who))
		}
	}
}

// kinds are the rounds by turns: how hot, and how loose the capacities are at first. The
// first is the best for large instances; small ones see many rounds, and profit from
// variety.
var kinds = [...]struct{ heat, loose float64 }{{1, 0.02}, {4, 0.02}, {2, 0.2}, {1, 0.02}, {2, 0.02}, {0.5, 0.2}}

// rounds searches until the budget is used up, each round longer than the last.
func (r *search) rounds() {
	c := r.c
	spread := r.d.spread()
	if spread == 0 {
		return
	}
	r.polish(spread)
	for round := 0; !r.done() && !r.proven(); round++ {
		r.s.set(r.best)
		if round%2 == 0 && r.s.wait > 0 {
			r.push() // and see whether everybody finds a place after all
		}
		length := roundLength + roundLength*min(round, 1000)/roundsToDoubled
		switch round { // for large instances, which may not see the end of a long one
		case 0:
			length = firstLength
		case 1:
			length = secondLength
		}
		kind := kinds[0]
		if round >= len(kinds) {
			kind = kinds[round%len(kinds)]
		}
		r.cool(c.n*length, spread, kind.heat, kind.loose)
	}
}

// proven says that no plan can be better than the best.
func (r *search) proven() bool {
	return r.found && r.bestCost <= r.d.bound()+tolerance*max(1, math.Abs(r.bestCost))
}

// result turns the best plan into what the caller understands, and computes everything
// afresh.
func (r *search) result() Result {
	c, s := r.c, r.s
	s.set(r.best)
	res := Result{Assign: make([]int, c.n), Waiting: s.wait, Feasible: s.wait == 0,
		Steps: r.steps, Prices: make([][Resources]float64, c.m)}
	var beside float64 // what counts in the objective and is no cost
	for i, o := range s.at {
		j := c.order[i]
		if c.waits(o) {
			res.Assign[j] = -1
			beside += c.cost[o]
			continue
		}
		res.Assign[j] = int(c.bin[o])
		res.Cost += c.cost[o]
		if c.moved != nil {
			res.Cost -= c.moved[o]
			beside += c.moved[o]
		}
	}
	for b := range c.m {
		if len(s.in[b]) > 0 {
			res.Cost += c.open[b]
		}
	}
	res.Objective = res.Cost + beside
	res.Bound = min(r.d.bound(), res.Objective)
	for b := range res.Prices {
		for x, k := range c.which {
			res.Prices[b][k] = r.d.prices[b*c.k+x]
		}
	}
	return res
}
