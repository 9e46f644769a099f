package assign

import "math"

// random is a small generator of its own (xorshift with a multiplication): the search
// needs numbers that look random and are the same every time.
type random uint64

func newRandom() random { return 0x9e3779b97f4a7c15 }

func (r *random) next() uint64 {
	x := uint64(*r)
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	*r = random(x)
	return x * 0x2545f4914f6cdd1d
}

// below returns a number from 0 to n-1.
func (r *random) below(n int) int { return int((r.next() >> 32) * uint64(n) >> 32) }

// logs holds -ln of evenly spaced numbers between 0 and 1: a random one of them, times
// the temperature, is what a move may cost at most in the search. A table, because a
// logarithm is dearer than all the rest of a move.
var logs = func() (t [4096]float64) {
	for i := range t {
		t[i] = -math.Log((float64(i) + 0.5) / float64(len(t)))
	}
	return t
}()
