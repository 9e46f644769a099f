package packing

import (
	"container/heap"
	"math"
	"slices"
)

// node is a part of all plans: those that keep the limits.
type node struct {
	limits []limit
	low    float64   // no plan of it costs less, without md.base
	u      []float64 // values that it is entered with
	order  int       // of two equal ones, the older first
}

// limit is a decision. Plans have a whole number of items outside, of bins in use, and of
// each kind in each bin; what the programme does by halves is decided one way in one node
// and the other way in another.
type limit struct {
	what   int // see below
	bin    int32
	place  int32 // index into byBin[bin]
	least  bool  // else at most
	number float64
}

// What a limit is about.
const (
	outsiders = iota
	use       // of a bin
	count     // of a kind in a bin
)

type nodes []*node

func (n nodes) Len() int { return len(n) }
func (n nodes) Less(a, b int) bool {
	if n[a].low != n[b].low {
		return n[a].low < n[b].low
	}
	return n[a].order < n[b].order
}
func (n nodes) Swap(a, b int) { n[a], n[b] = n[b], n[a] }
func (n *nodes) Push(x any)   { *n = append(*n, x.(*node)) }
func (n *nodes) Pop() any {
	old := *n
	x := old[len(old)-1]
	*n = old[:len(old)-1]
	return x
}

// search is a branch and bound with as many nodes as the effort allows: always the one
// with the lowest bound, and from there down to a plan. It returns a bound for all plans,
// without md.base.
func (s *solver) search(effort int) float64 {
	root := &node{low: math.Inf(-1), u: s.bestU}
	open := nodes{root}
	closed := math.Inf(1) // the lowest bound of those that were given up
	made := 0
	used := 0
	spent := func() bool {
		return s.work > mostWork || used >= effort && (used >= effort*stubborn || !s.lost)
	}
	for open.Len() > 0 && !spent() {
		n := heap.Pop(&open).(*node)
		if s.hopeless(n.low) {
			closed = min(closed, n.low)
			break // and so are all others
		}
		for n != nil {
			used++
			s.enter(n)
			s.generate()
			if n == root {
				s.values = slices.Clone(s.bestU)
			}
			n.low = max(n.low, s.bound)
			lp := s.ms.objective(s.many)
			if lp < s.ms.banned/2 {
				s.leaf()
			}
			l, ok := s.fraction()
			if !ok || s.hopeless(n.low) || lp > s.ms.banned/2 || s.hopeless(lp) || spent() {
				closed = min(closed, n.low)
				break
			}
			made += 2
			u := slices.Clone(s.bestU)
			first := &node{limits: append(slices.Clone(n.limits), l), low: n.low, u: u, order: made}
			other := &node{limits: append(slices.Clone(n.limits), l.opposite()), low: n.low, u: u, order: made + 1}
			heap.Push(&open, other)
			n = first
		}
	}
	for _, n := range open {
		closed = min(closed, n.low)
	}
	return closed
}

// stubborn is how many times the effort it is worth to find a place for somebody who has
// none though he must.
const stubborn = 10

// hopeless says that a part with that bound holds nothing that is worth looking for.
func (s *solver) hopeless(low float64) bool {
	return s.assigned != nil && low+s.md.base >= s.best-s.gap/4*math.Abs(s.best)
}

func (l limit) opposite() limit {
	if l.least {
		l.number--
	} else {
		l.number++
	}
	l.least = !l.least
	return l
}

// enter makes the limits of n those of the programme, and no others.
func (s *solver) enter(n *node) {
	for b := range s.md.byBin {
		s.closed[b], s.ms.unused[b] = false, 0
		for i := range s.md.byBin[b] {
			p := &s.md.byBin[b][i]
			p.least, p.most = 0, p.limit
		}
	}
	out, least, most := 0.0, false, false
	for _, l := range n.limits {
		switch {
		case l.what == outsiders:
			// The last one says most on its side.
			out, least, most = l.number, l.least, !l.least
		case l.what == use && l.least:
			s.ms.unused[l.bin] = s.ms.banned
		case l.what == use:
			s.closed[l.bin] = true
		case l.least:
			p := &s.md.byBin[l.bin][l.place]
			p.least = max(p.least, int32(l.number))
			s.ms.unused[l.bin] = s.ms.banned
		default:
			p := &s.md.byBin[l.bin][l.place]
			p.most = min(p.most, int32(l.number))
		}
	}
	for c := range s.ms.columns {
		s.ms.columns[c].banned = !s.admits(&s.ms.columns[c])
	}
	s.ms.limit(out, least, most)
	copy(s.bestU, n.u)
	s.pivot()
}

// admits says that the limits allow the column.
func (s *solver) admits(c *column) bool {
	if s.closed[c.bin] {
		return false
	}
	x := 0
	for i := range s.md.byBin[c.bin] {
		p := &s.md.byBin[c.bin][i]
		n := int32(0)
		for ; x < len(c.kinds) && c.kinds[x] == p.kind; x++ {
			n++
		}
		if n < p.least || n > p.most {
			return false
		}
	}
	return true
}

// fraction is what the programme does by halves, as a limit to try first.
func (s *solver) fraction() (limit, bool) {
	if s.ms.extra == 0 && s.ms.short == 0 {
		out := s.ms.outsiders()
		if part := out - math.Floor(out); part > 0.01 && part < 0.99 {
			if part > 0.5 {
				return limit{what: outsiders, least: true, number: math.Ceil(out)}, true
			}
			return limit{what: outsiders, number: math.Floor(out)}, true
		}
	}
	used := make([]float64, s.ms.bins)
	held := make([][]float64, s.ms.bins)
	for i, v := range s.ms.basis {
		if v < 0 || s.ms.x[i] < 1e-6 {
			continue
		}
		c := &s.ms.columns[v]
		used[c.bin] += s.ms.x[i]
		if held[c.bin] == nil {
			held[c.bin] = make([]float64, len(s.md.byBin[c.bin]))
		}
		y := 0
		for _, k := range c.kinds {
			for s.md.byBin[c.bin][y].kind != k {
				y++
			}
			held[c.bin][y] += s.ms.x[i]
		}
	}
	best, at := 0.02, limit{}
	for b, open := range s.md.open {
		if part := min(used[b], 1-used[b]); open > 0 && part > best {
			best, at = part, limit{what: use, bin: int32(b), least: used[b] > 0.5, number: 1}
			if !at.least {
				at.number = 0
			}
		}
	}
	if best > 0.02 {
		return at, true
	}
	best = 0
	for b, list := range held {
		for i, n := range list {
			part := n - math.Floor(n)
			if part < 0.01 || part > 0.99 {
				continue
			}
			if part > best {
				best, at = part, limit{what: count, bin: int32(b), place: int32(i), least: true, number: math.Ceil(n)}
			}
		}
	}
	return at, best > 0
}

// leaf makes a plan of the programme as it is.
func (s *solver) leaf() {
	plan := make([]int, s.ms.bins)
	most := make([]float64, s.ms.bins)
	for b := range plan {
		plan[b] = -1
	}
	for i, v := range s.ms.basis {
		if v < 0 {
			continue
		}
		if b := s.ms.columns[v].bin; s.ms.x[i] > max(1e-4, most[b]) {
			plan[b], most[b] = v, s.ms.x[i]
		}
	}
	if objective, assigned, lost := s.finish(plan); objective < s.best {
		s.best, s.assigned, s.lost = objective, assigned, lost
	}
}
