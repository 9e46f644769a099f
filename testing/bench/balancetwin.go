package main

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// balanceLoad is what happens to a fleet, drawn from a seed before anything runs, so that
// the real fleet and its twin meet the same: arrivals, how heavy each request is, and when
// each replica is slow.
type balanceLoad struct {
	base     []time.Duration // service time of each replica, of a request of weight 1
	arrivals []time.Duration // ascending
	weights  []float64       // of each request
	slow     [][]span        // of each replica, ascending
	deadline time.Duration
	factor   float64 // by which a slow replica is slower
}

// span is a stretch of time.
type span struct{ from, to time.Duration }

// The shape of the load. A replica is slow for about two seconds out of ten: long enough
// to be noticed, as when something else runs on the machine.
const (
	slowFactor = 2.5
	slowMean   = 2 * time.Second
	fastMean   = 8 * time.Second
)

// drawBalance draws a load that lasts for a while, at a share of what the
// replicas can do while none of them is slow. Requests differ by up to uneven in how heavy
// they are, as a part of the mean; which is known to a twin, and to nobody else.
func drawBalance(seed uint64, base []time.Duration, last, deadline time.Duration, share, uneven float64) *balanceLoad {
	rng := rand.New(rand.NewPCG(seed, 0xba1a4ce))
	l := &balanceLoad{base: base, deadline: deadline, factor: slowFactor}
	exp := func(mean time.Duration) time.Duration { return time.Duration(rng.ExpFloat64() * float64(mean)) }
	rate := 0.0 // requests per ns
	for _, b := range base {
		var spans []span
		for at := exp(fastMean); at < last+deadline; {
			s := span{at, at + exp(slowMean)}
			spans = append(spans, s)
			at = s.to + exp(fastMean)
		}
		l.slow = append(l.slow, spans)
		rate += 1 / float64(b)
	}
	mean := time.Duration(1 / (rate * share))
	for at := exp(mean); at < last; at += exp(mean) {
		l.arrivals = append(l.arrivals, at)
		l.weights = append(l.weights, 1+uneven*(2*rng.Float64()-1))
	}
	return l
}

// takes is how long a replica needs for a request that it begins at a time. Whether it is
// slow counts at the beginning.
func (l *balanceLoad) takes(replica, request int, at time.Duration) time.Duration {
	d := float64(l.base[replica]) * l.weights[request]
	i, _ := slices.BinarySearchFunc(l.slow[replica], at, func(s span, at time.Duration) int { return cmp.Compare(s.to, at) })
	if i < len(l.slow[replica]) && l.slow[replica][i].from <= at && at < l.slow[replica][i].to {
		d *= l.factor
	}
	return time.Duration(d)
}

// twin plays the load with late binding and full knowledge: one queue, no messages, and the
// oldest request that somebody free can finish in time goes to whoever finishes it first.
// It returns how long each request took; missed is a miss.
func (l *balanceLoad) twin() []time.Duration {
	took := make([]time.Duration, len(l.arrivals))
	free := make([]time.Duration, len(l.base)) // from when on each is idle
	var queue []int
	next := 0
	for now := time.Duration(0); ; {
		for ; next < len(l.arrivals) && l.arrivals[next] <= now; next++ {
			queue = append(queue, next)
		}
		left := queue[:0]
		for _, q := range queue {
			best, end := -1, l.arrivals[q]+l.deadline
			for r := range free {
				if t := now + l.takes(r, q, now); free[r] <= now && t <= end {
					best, end = r, t
				}
			}
			switch {
			case best >= 0:
				free[best] = end
				took[q] = end - l.arrivals[q]
			case now < l.arrivals[q]+l.deadline:
				left = append(left, q)
			default:
				took[q] = missed
			}
		}
		queue = left
		// What changes next: an arrival, or somebody gets idle while a request waits.
		soon := time.Duration(math.MaxInt64)
		if next < len(l.arrivals) {
			soon = l.arrivals[next]
		}
		for _, q := range queue {
			soon = min(soon, l.arrivals[q]+l.deadline)
		}
		for _, f := range free {
			if len(queue) > 0 && f > now {
				soon = min(soon, f)
			}
		}
		if soon == math.MaxInt64 {
			return took
		}
		now = soon
	}
}

// learner plays the load with late binding and no messages as twin does, but knows of a
// replica only what it could have learned from the requests that it has served, as agents do:
// neither that it has just become slow, nor how heavy a request is; and nothing is handed
// over. What lies between twin and learner is the price of not knowing; a fleet pays for
// messages as well, and hands over.
func (l *balanceLoad) learner() []time.Duration {
	took := make([]time.Duration, len(l.arrivals))
	replicas := make([]learned, len(l.base))
	var queue []int
	next := 0
	for now := time.Duration(0); ; {
		for r := range replicas {
			replicas[r].settle(now)
		}
		for ; next < len(l.arrivals) && l.arrivals[next] <= now; next++ {
			queue = append(queue, next)
		}
		left := queue[:0]
		for _, q := range queue {
			end := l.arrivals[q] + l.deadline
			r := slices.IndexFunc(replicas, func(r learned) bool { return r.free <= now && !r.hopeless(end-now, now) })
			switch {
			case now >= end:
				took[q] = missed
			case r < 0:
				left = append(left, q)
			default:
				takes := l.takes(r, q, now)
				took[q] = now + takes - l.arrivals[q]
				if now+takes > end {
					took[q] = missed
				}
				replicas[r].begin(now, min(takes, end-now), now+takes > end)
			}
		}
		queue = left
		soon := time.Duration(math.MaxInt64)
		if next < len(l.arrivals) {
			soon = l.arrivals[next]
		}
		for _, q := range queue {
			soon = min(soon, l.arrivals[q]+l.deadline)
		}
		for _, r := range replicas {
			if r.free > now {
				soon = min(soon, r.free) // what it learns then, and that it is idle
			}
			if until := r.last + learnedGood; len(queue) > 0 && r.free <= now && until > now {
				soon = min(soon, until)
			}
		}
		if soon == math.MaxInt64 {
			return took
		}
		now = soon
	}
}

// learned is what is known of a replica. The rules are those of an agent (agent/load.go).
type learned struct {
	free, last     time.Duration // idle from then on; when it was heard of last
	busy, cut      bool
	took           time.Duration // what it is at takes so long
	expect, spread float64       // ns
}

// The weights of an agent.
const (
	learnedWeight  = 0.3
	learnedLeap    = 1.65
	learnedCut     = 1.3
	learnedSpreads = 2
	learnedGood    = time.Second
)

func (r *learned) begin(now, takes time.Duration, cut bool) {
	r.busy, r.cut, r.took, r.free = true, cut, takes, now+takes
}

// settle takes in what has ended by now.
func (r *learned) settle(now time.Duration) {
	if !r.busy || r.free > now {
		return
	}
	r.busy, r.last = false, r.free
	d := float64(r.took)
	leap := r.expect == 0 || d > learnedLeap*r.expect || !r.cut && d < r.expect/learnedLeap
	if r.cut && !leap {
		return
	}
	if r.cut {
		d *= learnedCut
	}
	if leap {
		if r.expect > 0 {
			r.spread *= d / r.expect
		}
		r.expect = d
		return
	}
	r.spread += learnedWeight * (math.Abs(d-r.expect) - r.spread)
	r.expect += learnedWeight * (d - r.expect)
}

func (r *learned) hopeless(left, now time.Duration) bool {
	return r.expect > 0 && now-r.last < learnedGood && float64(left) < r.expect+learnedSpreads*r.spread
}

// missed is what a request took that was not answered within its deadline.
const missed = time.Duration(-1)

// misses is the share of requests that missed, in percent.
func misses(took []time.Duration) float64 {
	n := 0
	for _, d := range took {
		if d == missed {
			n++
		}
	}
	return 100 * float64(n) / float64(max(1, len(took)))
}
