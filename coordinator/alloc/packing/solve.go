package packing

import (
	"math"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// Options say how to solve. The zero value is right.
type Options struct {
	// Start is a plan, a bin or -1 per item. Nil: none.
	Start []int
	// Values are what the items are worth, from an earlier result or by prices of the
	// capacities: a guess. Nil: none.
	Values []float64
	// Gap is the part of the objective that is not worth more effort. 0: DefaultGap.
	Gap float64
	// Nodes is how many parts of all plans are looked at. 0: DefaultNodes.
	Nodes int
}

// DefaultNodes is where, measured on sites of thirty replicas and twenty machines, ten times
// as many make plans a tenth of a percent better.
const DefaultNodes = 40

// DefaultGap is far below what a model of delays can tell from another.
const DefaultGap = 0.002

// Result is a plan.
type Result struct {
	Assign    []int     // the bin of each item, -1 for outside
	Objective float64   // costs of the placed, of the bins that are open, and of those outside at their price; +Inf where one is outside that must not be
	Bound     float64   // at most the objective of any plan
	Values    []float64 // of the items: they give a bound that is nearly as good, see [Bound]
}

// Effort: passes of pricing all bins in a node, and looks at sets in one knapsack, past which
// the bound is a little weaker; and all work together, in looks, some 20 ns each, past which
// no node is begun. Cells of a fleet need a twentieth of it: it bounds what is odd.
const (
	mostPasses = 40
	mostNodes  = 3000
	mostPivots = 2000 // between two passes
	mostWork   = 2_000_000
)

// solver is one run.
type solver struct {
	md      *model
	ms      *master
	many    []float64 // of each kind
	sack    knapsack
	u       []float64 // values priced at, and what an item outside is worth as such
	bestU   []float64 // those with the best bound
	bound   float64   // without md.base, in the present node
	values  []float64 // those of the root
	work    int
	gap     float64
	outside []float64

	start    []int
	items    int
	best     float64 // objective of the best plan
	assigned []int
	lost     bool   // in it somebody is outside who must not be
	closed   []bool // by bin: it is decided that it stays empty
}

// Solve returns a plan for p, whose amounts have to be such as assign.Solve takes, costs 0 or
// more. It is not ok where there is no room even for those that have no choice, and where
// costs are too far apart for the simplex method.
func Solve(p *assign.Instance, o Options) (res Result, ok bool) {
	s, ok := newSolver(p, true)
	if !ok {
		return Result{}, false
	}
	if s.gap = o.Gap; s.gap == 0 {
		s.gap = DefaultGap
	}
	s.start, s.items, s.best = o.Start, len(p.Items), math.Inf(1)
	if o.Start != nil {
		s.seed(o.Start)
	}
	s.guess(o.Values)
	effort := o.Nodes
	if effort == 0 {
		effort = DefaultNodes
	}
	res.Bound = s.search(effort) + s.md.base
	if s.assigned == nil {
		s.leaf()
	}
	res.Bound = max(0, min(res.Bound, s.best)) / s.md.scale
	res.Objective, res.Assign = s.best/s.md.scale, s.assigned
	if res.Assign == nil || math.IsNaN(res.Bound) || math.IsNaN(res.Objective) {
		return Result{}, false
	}
	if s.lost || s.md.lost {
		res.Objective = math.Inf(1)
	}
	res.Values = make([]float64, len(p.Items))
	for i := range s.md.kinds {
		for _, j := range s.md.kinds[i].items {
			res.Values[j] = s.values[i] / s.md.scale
		}
	}
	return res, true
}

func newSolver(p *assign.Instance, whole bool) (s *solver, ok bool) {
	md := newModel(p)
	if md.full || md.odd {
		return nil, false
	}
	s = &solver{md: md, bound: math.Inf(-1), closed: make([]bool, len(md.room)),
		u: make([]float64, len(md.kinds)+1), bestU: make([]float64, len(md.kinds)+1)}
	for i := range md.kinds {
		s.many = append(s.many, float64(len(md.kinds[i].items)))
		s.outside = append(s.outside, md.kinds[i].outside)
	}
	if s.ms = (&master{unused: make([]float64, len(md.room))}); whole {
		s.ms = newMaster(s.many, s.outside, len(md.room), md.banned)
	}
	return s, true
}

// guess takes over values of the items; without any, none is worth more than to stay
// outside.
func (s *solver) guess(values []float64) {
	copy(s.bestU, s.outside)
	if values == nil {
		return
	}
	for i := range s.md.kinds {
		worth := 0.0 // of equal items the mean
		for _, j := range s.md.kinds[i].items {
			worth += values[j] * s.md.scale
		}
		s.bestU[i] = min(max(0, worth/s.many[i]), s.outside[i])
	}
}

// seed gives the programme the packings of a plan, and takes it as the best so far, if it
// is one.
func (s *solver) seed(start []int) {
	sets := make([][]int32, len(s.md.room))
	objective, assigned, lost := s.md.base, slices.Clone(s.md.settled), false
	for x := range s.md.kinds {
		for _, j := range s.md.kinds[x].items {
			if assigned[j] = start[j]; start[j] >= 0 {
				sets[start[j]] = append(sets[start[j]], int32(x))
			} else {
				objective += s.outside[x]
				lost = lost || s.md.kinds[x].must
			}
		}
	}
	valid := true
	for b, set := range sets {
		if len(set) == 0 {
			continue
		}
		c, ok := s.packing(b, set)
		if valid = valid && ok; ok {
			s.ms.columns = append(s.ms.columns, c)
			objective += c.cost
		}
	}
	if valid {
		s.best, s.assigned, s.lost = objective, assigned, lost
	}
	s.pivot()
}

// packing is a set of kinds in a bin, ascending; not ok where they do not fit.
func (s *solver) packing(b int, set []int32) (column, bool) {
	c := column{bin: int32(b), kinds: set, cost: s.md.open[b]}
	room := s.md.room[b]
	for x, k := range set {
		i, ok := slices.BinarySearchFunc(s.md.byBin[b], k, func(p place, k int32) int { return int(p.kind - k) })
		if !ok {
			return c, false
		}
		pl := &s.md.byBin[b][i]
		c.cost += pl.cost
		for r, v := range pl.need {
			if room[r] -= v; room[r] < 0 {
				return c, false
			}
		}
		if g := s.md.kinds[k].group; g > 0 {
			for _, other := range set[:x] {
				if s.md.kinds[other].group == g {
					return c, false
				}
			}
		}
	}
	return c, true
}

// generate adds packings until no other would help, or not much.
func (s *solver) generate() {
	s.bound = math.Inf(-1)
	smooth := 0.5
	for range mostPasses {
		s.value(smooth)
		bound, added := s.price()
		if bound > s.bound {
			s.bound = bound
			copy(s.bestU, s.u)
		}
		s.pivot()
		lp := s.ms.objective(s.many)
		if s.work > mostWork || lp-s.bound <= s.gap/4*(math.Abs(lp)+s.md.base) || s.bound+s.md.base >= s.best*(1-s.gap/4) {
			return
		}
		switch {
		case added > 0:
			smooth = 0.5
		case smooth == 0:
			return
		default:
			smooth = 0
		}
	}
}

// pivot solves the programme with the columns that are known, or as far as the work goes.
func (s *solver) pivot() {
	each := 1 + s.ms.rows*s.ms.rows/32 + len(s.ms.columns)/8
	s.work += each * s.ms.solve(min(mostPivots, max(1, (mostWork-s.work)/each)))
}

// value sets the values to those of the programme, drawn to the best ones so far: that
// damps their swinging from pass to pass.
func (s *solver) value(smooth float64) {
	n := len(s.u) - 1
	s.u[n] = max(-s.ms.extra, min((1-smooth)*s.ms.y[s.ms.rows-1]+smooth*s.bestU[n], s.ms.short))
	for i := range n {
		s.u[i] = min(max(0, (1-smooth)*s.ms.y[i]+smooth*s.bestU[i]), s.outside[i]-s.u[n])
	}
}

// price finds the best packing of every bin at the values u, adds those that help, and
// returns the bound.
func (s *solver) price() (bound float64, added int) {
	bound = s.u[len(s.many)] * s.ms.out
	for i, n := range s.many {
		bound += s.u[i] * n
	}
	for b := range s.md.room {
		if s.closed[b] {
			continue
		}
		s.sack.things = s.sack.things[:0]
		room, forced, empty, clash := s.md.room[b], 0.0, true, false
		for i := range s.md.byBin[b] {
			p := &s.md.byBin[b][i]
			if p.least > 0 {
				empty = false
				clash = clash || s.taken(b, p)
				forced += float64(p.least) * (s.u[p.kind] - p.cost)
				for r, v := range p.need {
					room[r] -= float64(p.least) * v
				}
			}
		}
		for i := range s.md.byBin[b] {
			p := &s.md.byBin[b][i]
			if v := s.u[p.kind] - p.cost; v > 0 && p.most > p.least && !(!empty && s.taken(b, p)) {
				k := &s.md.kinds[p.kind]
				s.sack.things = append(s.sack.things, thing{kind: p.kind, group: int32(k.group) - 1, many: p.most - p.least, value: v, need: p.need})
			}
		}
		if len(s.sack.things) == 0 && empty {
			if s.ms.unused[b] > 0 {
				bound += s.md.open[b]
			}
			continue
		}
		if clash || room[0] < 0 || room[1] < 0 || room[2] < 0 {
			bound += s.ms.banned // nothing keeps these limits
			continue
		}
		s.sack.solve(room, mostNodes)
		s.work += mostNodes - s.sack.nodes
		if gain := forced + s.sack.bound + negligible - s.md.open[b]; gain > 0 || s.ms.unused[b] > 0 {
			bound -= gain
		}
		if s.ms.rows == 0 {
			continue // only the bound is wanted
		}
		c := column{bin: int32(b), cost: s.md.open[b]}
		for _, x := range s.sack.best {
			t := &s.sack.things[x]
			c.kinds = append(c.kinds, t.kind)
			c.cost += s.u[t.kind] - t.value
		}
		for i := range s.md.byBin[b] {
			p := &s.md.byBin[b][i]
			for range p.least {
				c.kinds = append(c.kinds, p.kind)
				c.cost += p.cost
			}
		}
		if s.ms.reduced(&c) < -1e-6 {
			slices.Sort(c.kinds)
			s.ms.columns = append(s.ms.columns, c)
			added++
		}
	}
	return bound, added
}

// taken says that another of p's group has to be in bin b.
func (s *solver) taken(b int, p *place) bool {
	g := s.md.kinds[p.kind].group
	return g > 0 && slices.ContainsFunc(s.md.byBin[b], func(x place) bool {
		return x.least > 0 && x.kind != p.kind && s.md.kinds[x.kind].group == g
	})
}
