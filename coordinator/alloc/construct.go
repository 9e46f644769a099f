package alloc

import (
	"cmp"
	"container/heap"
	"math"
)

// construct places the unplaced replicas of the list by regret: who would lose most
// by not getting its best environment chooses first. Who finds no room stays
// unplaced.
func (s *state) construct(list []int) {
	q := &regrets{s: s, pos: make(map[int]int, len(list)), watch: make([][]int, len(s.in.envs))}
	var after [][]int // replicas by whole-billed candidate: its opening makes it cheaper for them
	for _, r := range list {
		if s.at[r] >= 0 {
			continue
		}
		o := s.offer(r)
		if !o.ok {
			continue
		}
		q.pos[r] = len(q.heap)
		q.heap = append(q.heap, o)
		q.follow(o)
		for _, c := range s.in.reps[r].cands {
			if s.in.envs[c.env].whole {
				if after == nil {
					after = make([][]int, len(s.in.envs))
				}
				after[c.env] = append(after[c.env], r)
			}
		}
	}
	heap.Init(q)
	for q.Len() > 0 {
		o := heap.Pop(q).(offer)
		e := o.best
		opened := s.in.envs[e].whole && len(s.on[e]) == 0
		s.put(o.replica, e)
		// Only who looked at e can be touched by what happened there.
		look := q.watch[e]
		q.watch[e] = nil
		for _, r := range look {
			i, ok := q.pos[r]
			if !ok || (q.heap[i].best != e && q.heap[i].second != e) {
				continue
			}
			if s.room(r, e) {
				q.watch[e] = append(q.watch[e], r)
				continue
			}
			q.renew(r)
		}
		if opened {
			for _, r := range after[e] {
				q.renew(r)
			}
		}
	}
}

// offer is what a replica can choose now.
type offer struct {
	replica      int
	best, second int // environments; second is -1 where there is none
	regret       float64
	ok           bool
}

func (s *state) offer(r int) offer {
	o := offer{replica: r, best: -1, second: -1}
	b1, b2 := math.Inf(1), math.Inf(1)
	for _, c := range s.in.reps[r].cands {
		if !s.room(r, c.env) {
			continue
		}
		switch p := s.price(r, c) + s.worth(r, c.env); {
		case o.best < 0 || p < b1:
			o.second, b2 = o.best, b1
			o.best, b1 = c.env, p
		case o.second < 0 || p < b2:
			o.second, b2 = c.env, p
		}
	}
	o.ok = o.best >= 0
	o.regret = math.Inf(1)
	if o.second >= 0 {
		o.regret = b2 - b1
	}
	return o
}

// worth is what r would take on e, at the prices of the capacities.
func (s *state) worth(r, e int) float64 {
	if s.shadow == nil {
		return 0
	}
	var v float64
	for k, n := range s.in.reps[r].need {
		v += s.shadow[e][k] * n
	}
	return v
}

// regrets is a heap of offers, the largest regret first.
type regrets struct {
	s     *state
	heap  []offer
	pos   map[int]int // replica → index in heap
	watch [][]int     // per environment, replicas that have it as best or second
}

func (q *regrets) follow(o offer) {
	q.watch[o.best] = append(q.watch[o.best], o.replica)
	if o.second >= 0 {
		q.watch[o.second] = append(q.watch[o.second], o.replica)
	}
}

// renew looks again at what r can choose.
func (q *regrets) renew(r int) {
	i, ok := q.pos[r]
	if !ok {
		return
	}
	o := q.s.offer(r)
	if !o.ok {
		heap.Remove(q, i)
		return
	}
	q.heap[i] = o
	q.follow(o)
	heap.Fix(q, i)
}

func (q *regrets) Len() int { return len(q.heap) }

func (q *regrets) Less(i, j int) bool {
	a, b := q.heap[i], q.heap[j]
	return cmp.Or(cmp.Compare(b.regret, a.regret), q.s.in.ahead(a.replica, b.replica),
		cmp.Compare(q.s.size(b.replica), q.s.size(a.replica)), cmp.Compare(a.replica, b.replica)) < 0
}

func (q *regrets) Swap(i, j int) {
	q.heap[i], q.heap[j] = q.heap[j], q.heap[i]
	q.pos[q.heap[i].replica], q.pos[q.heap[j].replica] = i, j
}

func (q *regrets) Push(any) { panic("alloc: offers are added before heap.Init") }

func (q *regrets) Pop() any {
	o := q.heap[len(q.heap)-1]
	q.heap = q.heap[:len(q.heap)-1]
	delete(q.pos, o.replica)
	return o
}

// size is the largest part that r needs of anything it could run on: of two with
// one regret, the bulky one is harder to place later.
func (s *state) size(r int) float64 {
	rep := &s.in.reps[r]
	if len(rep.cands) == 0 {
		return 0
	}
	var out float64
	cap := s.in.envs[rep.cands[0].env].cap
	for k := range rep.need {
		if cap[k] > 0 {
			out = max(out, rep.need[k]/cap[k])
		}
	}
	return out
}
