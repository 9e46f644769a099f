package assign

import "math"

// search is one run of the solver: the present state, the best plan so far, and the
// budget.
type search struct {
	c     *core
	s     *state
	d     *dual
	short *shortlist
	rc    []float64 // reduced cost of every option
	focus []int32   // bins in which every second move begins
	rng   random

	best     []int32
	bestCost float64
	found    bool
	pending  bool // s is better than best, and not yet copied
	steps    int
	budget   int
	stop     func() bool
	stopped  bool
	improved func(float64, int)
}

// block is how many moves are tried between looks at the clock, the temperature and
// the penalties.
const block = 512

// note remembers that the present state is a plan, and better than the best so far.
func (r *search) note() {
	s := r.s
	if s.over > 0 {
		return
	}
	if !r.found || s.cost < r.bestCost-tolerance*max(1, math.Abs(r.bestCost)) {
		r.pending = true
		r.bestCost = s.cost
		r.found = true
	}
}

// keep copies the best plan before it is lost.
func (r *search) keep() {
	if !r.pending {
		return
	}
	r.pending = false
	copy(r.best, r.s.at)
	if r.improved != nil {
		r.improved(r.bestCost, r.s.wait)
	}
}

// done says that the budget is used up or that we were told to stop.
func (r *search) done() bool {
	if !r.stopped && (r.steps >= r.budget || r.stop != nil && r.stop()) {
		r.stopped = true
	}
	return r.stopped
}

// The schedule of a round. Temperatures are in spreads (see dual.spread), penalties in
// what they are at the end of the dual: found on the public instances, where twice or
// half of each makes little difference.
const (
	hot, cold       = 0.25, 0.1
	tight           = 10.0
	underpriced     = 0.5  // of the penalties is what room left over costs, while that is less than its price
	settling        = 1.03 // how penalties rise from step to step
	settlingTooFar  = 1e9
	settlingSteps   = 400
	patience        = 80 // steps without less excess, after which settling gives up
	polishing       = 20
	roundLength     = 1000
	firstLength     = 200
	secondLength    = 600
	roundsToDoubled = 8
)

// cool makes one round of n moves: from a relaxed problem, in which capacities count for
// little in both directions and every item sits at its best reduced cost, to the one
// that is asked for, slowly enough that the items give way where it costs least.
func (r *search) cool(n int, spread, heat, loose float64) {
	s := r.s
	blocks := max(1, n/block)
	for i := range blocks {
		if r.done() {
			break
		}
		done := float64(i) / float64(blocks)
		s.scale = loose * math.Pow(tight/loose, done)
		s.under = min(1, underpriced*s.scale)
		r.try(block, spread*heat*hot*math.Pow(cold/hot, done))
	}
	r.keep()
	s.refresh()
	if s.over > 0 {
		r.settle(spread)
	}
	if s.over > 0 {
		r.evict()
	}
	if s.wait > 0 {
		s.construct(r.d, r.d.prices, r.short)
	}
	r.note()
	r.keep()
}

// polish improves the first plan by moves that cost next to nothing, which is soon done
// and all that small budgets allow.
func (r *search) polish(spread float64) {
	r.s.set(r.best)
	r.s.scale, r.s.under = tight, 1
	for n := r.c.n * polishing; n > 0 && !r.done(); n -= block {
		r.try(block, spread*cold/polishing)
	}
	r.keep()
	r.s.refresh()
}

// settle moves items until nothing is over capacity, with penalties that rise until it
// is so, or until that seems out of reach.
func (r *search) settle(spread float64) {
	s := r.s
	s.under = 1
	least, since := math.Inf(1), 0
	step := max(block, s.c.n/2)
	for n := settlingSteps; n > 0 && s.over > 0 && !r.done(); n-- {
		s.scale = min(s.scale*settling, settlingTooFar)
		for left := step; left > 0 && s.over > 0 && !r.done(); left -= block {
			r.aim()
			r.try(block, spread*cold)
		}
		if e := s.excess(); e < least {
			least, since = e, 0
		} else if since++; since > patience {
			break
		}
	}
	r.focus = r.focus[:0]
	r.keep()
	s.refresh()
}

// aim makes every second move begin in a bin that is over capacity: in a large instance
// they are few, and chance would seldom find them.
func (r *search) aim() {
	s := r.s
	r.focus = r.focus[:0]
	for b := range s.c.m {
		for k := range s.c.k {
			if x := b*s.c.k + k; s.load[x] > s.c.room[x] {
				r.focus = append(r.focus, int32(b))
				break
			}
		}
	}
}

// try tries n random moves at temperature t.
func (r *search) try(n int, t float64) {
	c, s := r.c, r.s
	for n > 0 {
		n--
		r.steps++
		bits := r.rng.next()
		j := int32((bits >> 32) * uint64(c.n) >> 32)
		if len(r.focus) > 0 && bits>>28&1 == 0 {
			if in := s.in[r.focus[int(bits>>32)*len(r.focus)>>32]]; len(in) > 0 {
				j = in[r.rng.below(len(in))]
			}
		}
		list := r.short.of(j)
		if len(list) == 0 {
			continue
		}
		o := list[int(bits&0xffff)*len(list)>>16]
		cur := s.at[j]
		if o == cur {
			continue
		}
		a, b := c.bin[cur], c.bin[o]
		may := t * logs[bits>>16&4095]
		base := r.rc[o] - r.rc[cur]
		out := s.shed(cur)
		// Who waits may not push: that would never end where there is not enough for all.
		if (int(a) != c.m || c.mayWait[j] || s.fits(o)) && s.apart(j, b, -1) {
			if d := base + out + s.gain(o) + s.opening(a, b); d <= may {
				r.apply(j, o, -1, -1, -1, -1)
				continue
			}
		}
		if int(b) == c.m {
			continue
		}
		work := r.chain(j, o, a, b, base+out, may)
		n -= work
		r.steps += work
	}
}

// chain moves j to o and others out of its way, and the last of them to where j was,
// if that costs no more than may. It returns how much work it was.
func (r *search) chain(j, o, a, b int32, base, may float64) int {
	c, s := r.c, r.s
	in := s.in[b]
	if len(in) == 0 {
		return 0
	}
	const most = 32
	many := min(len(in), most)
	at := 0
	if len(in) > most {
		at = r.rng.below(len(in))
	}
	cur := s.at[j]
	work := many / 4
	best, bestK, bestP := math.Inf(1), int32(-1), int32(-1)
	open, openK, openP := math.Inf(1), int32(-1), int32(-1)
	for range many {
		k := in[at]
		if at++; at == len(in) {
			at = 0
		}
		if c.group[j] >= 0 && !s.apart(j, b, k) {
			continue
		}
		from := s.at[k]
		if int(a) == c.m && !c.mayWait[j] && !s.fitsFor(from, o) {
			continue
		}
		freed := s.swapped(from, o) - r.rc[from]
		if p := c.find(k, a); p >= 0 {
			d := base - s.shed(cur) + freed + r.rc[p] + s.swapped(cur, p)
			if d < best && s.apart(k, a, j) {
				best, bestK, bestP = d, k, p
			}
		}
		if base+freed > may+open {
			continue
		}
		for _, p := range r.short.of(k) {
			v := freed + r.rc[p]
			if v >= open {
				break // the rest is dearer
			}
			if e := c.bin[p]; e != a && e != b {
				open, openK, openP = v, k, p
				break
			}
		}
	}
	if best <= may {
		r.apply(j, o, bestK, bestP, -1, -1)
		return work
	}
	if openK < 0 {
		return work
	}
	// The way for k: as it is, or with somebody of its new bin going to the first.
	e := c.bin[openP]
	if !s.apart(openK, e, -1) || int(a) == c.m && !c.mayWait[j] && !s.fits(openP) {
		return work
	}
	if d := base + open + s.gain(openP) + s.opening(a, e); d <= may {
		r.apply(j, o, openK, openP, -1, -1)
		return work
	}
	third := s.in[e]
	many, at = min(len(third), most), 0
	if len(third) > most {
		at = r.rng.below(len(third))
	}
	work += many / 4
	best, bestK, bestP = math.Inf(1), -1, -1
	shed := s.shed(cur)
	for range many {
		l := third[at]
		if at++; at == len(third) {
			at = 0
		}
		p := c.find(l, a)
		if p < 0 {
			continue
		}
		from := s.at[l]
		d := base + open - shed + r.rc[p] - r.rc[from] + s.swapped(cur, p) + s.swapped(from, openP)
		if d < best && s.apart(l, a, j) {
			best, bestK, bestP = d, l, p
		}
	}
	if best <= may {
		r.apply(j, o, openK, openP, bestK, bestP)
	}
	return work
}

// apply makes one to three moves.
func (r *search) apply(j, o, k, p, l, q int32) {
	s := r.s
	first := s.at[j]
	var second, third int32
	s.move(j, o)
	if k >= 0 {
		second = s.at[k]
		s.move(k, p)
	}
	if l >= 0 {
		third = s.at[l]
		s.move(l, q)
	}
	worse := s.over > 0 || s.cost > r.bestCost
	if r.pending && worse { // step back once to copy what is lost
		if l >= 0 {
			s.move(l, third)
		}
		if k >= 0 {
			s.move(k, second)
		}
		s.move(j, first)
		r.keep()
		s.move(j, o)
		if k >= 0 {
			s.move(k, p)
		}
		if l >= 0 {
			s.move(l, q)
		}
	}
	if worse {
		return
	}
	if s.cost < r.bestCost-tolerance*max(1, math.Abs(r.bestCost)) || !r.found {
		r.pending, r.found, r.bestCost = true, true, s.cost
	}
}
