package assign

import (
	"container/heap"
	"math"
)

// width is how many options of an item the search looks at: its best by reduced cost.
const width = 12

// shortlist holds the best options of every item by reduced cost, best first.
type shortlist struct {
	opts []int32 // width for each item
	many []int32 // how many of them there are
}

func (d *dual) shortlist(prices []float64) *shortlist {
	c := d.c
	l := &shortlist{opts: make([]int32, c.n*width), many: make([]int32, c.n)}
	var value [width]float64
	for j := range c.n {
		list := l.opts[j*width : (j+1)*width]
		n := 0
		end := c.first[j+1] - 1
		if c.mayWait[j] {
			end++
		}
		for o := c.first[j]; o < end; o++ {
			v := d.reduced(o, prices)
			if n == width && v >= value[n-1] {
				continue
			}
			i := n
			if n < width {
				n++
			} else {
				i--
			}
			for ; i > 0 && value[i-1] > v; i-- {
				value[i], list[i] = value[i-1], list[i-1]
			}
			value[i], list[i] = v, o
		}
		l.many[j] = int32(n)
	}
	return l
}

func (l *shortlist) of(j int32) []int32 { return l.opts[int(j)*width : int(j)*width+int(l.many[j])] }

// turn is an item with what it loses if it does not get its best place.
type turn struct {
	item   int32
	best   int32 // option, -1 for none with room
	regret float64
}

type turns []turn

func (t turns) Len() int { return len(t) }
func (t turns) Less(a, b int) bool {
	if t[a].regret != t[b].regret {
		return t[a].regret > t[b].regret
	}
	return t[a].item < t[b].item
}
func (t turns) Swap(a, b int) { t[a], t[b] = t[b], t[a] }
func (t *turns) Push(x any)   { *t = append(*t, x.(turn)) }
func (t *turns) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

// construct places the waiting items by regret on reduced costs: who would lose most
// without its best place chooses first. Who finds no room waits.
func (s *state) construct(d *dual, prices []float64, short *shortlist) {
	var queue turns
	for j := range int32(s.c.n) {
		if s.c.waits(s.at[j]) {
			if t := s.turn(j, d, prices, short); t.best >= 0 {
				queue = append(queue, t)
			}
		}
	}
	heap.Init(&queue)
	for len(queue) > 0 {
		t := queue[0]
		if s.open(t.item, t.best) {
			s.move(t.item, t.best)
			heap.Pop(&queue)
			continue
		}
		if t = s.turn(t.item, d, prices, short); t.best < 0 {
			heap.Pop(&queue)
			continue
		}
		queue[0] = t
		heap.Fix(&queue, 0)
	}
}

// open says that item j can take option o as things are.
func (s *state) open(j, o int32) bool { return s.fits(o) && s.apart(j, s.c.bin[o], -1) }

// turn finds the best and the second best place with room for item j.
func (s *state) turn(j int32, d *dual, prices []float64, short *shortlist) turn {
	t := turn{item: j, best: -1}
	lo, hi := math.Inf(1), math.Inf(1)
	look := func(o int32) {
		if !s.open(j, o) {
			return
		}
		v := d.reduced(o, prices)
		if len(s.in[s.c.bin[o]]) == 0 {
			v += s.c.open[s.c.bin[o]]
		}
		switch {
		case v < lo:
			lo, hi, t.best = v, lo, o
		case v < hi:
			hi = v
		}
	}
	for _, o := range short.of(j) {
		look(o)
	}
	if t.best < 0 || math.IsInf(hi, 1) {
		t.best, lo, hi = -1, math.Inf(1), math.Inf(1)
		for o := s.c.first[j]; o < s.c.wait(j); o++ {
			look(o)
		}
	}
	if wait := s.c.cost[s.c.wait(j)]; hi > wait {
		hi = max(wait, lo)
	}
	t.regret = hi - lo
	return t
}
