package agent

import (
	"math"
	"sync"
	"time"
)

// crowd knows how many calls of handlers run at once on this agent: of all its replicas,
// for they share the machine. The zero value is ready; the methods may be called from many
// goroutines.
type crowd struct {
	mu  sync.Mutex
	n   int
	at  time.Time
	ran time.Duration // what one call that was there all the time would have had for itself
}

// mark is the begin of a call in a crowd.
type mark time.Duration

// enter counts a call.
func (c *crowd) enter(now time.Time) mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(now)
	c.n++
	return mark(c.ran)
}

// leave ends a call, and returns how long it would have taken alone, if the machine gives all
// that run on it equal parts.
func (c *crowd) leave(now time.Time, from mark) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(now)
	c.n--
	return max(1, c.ran-time.Duration(from))
}

func (c *crowd) advance(now time.Time) {
	if since := now.Sub(c.at); since > 0 { // callers read the clock before they wait for each other
		if c.n > 0 {
			c.ran += since / time.Duration(c.n)
		}
		c.at = now
	}
}

// The weights of what is known of a replica's requests, had they run alone.
//
// Two calls that run at once take twice as long where they share a core, and no longer where
// each has one of its own. Which of it is so is learned: sharingWeight makes of about fifty
// requests how a time follows the crowd, from none (0) to in proportion (1). sharingPrior is
// how much the crowd must have varied (a variance of its logarithm) to be believed rather than
// that a machine is shared. Beyond outlier times the usual one, a single time counts as that: a
// page that was swapped out is no property of a machine.
const (
	aloneWeight   = 0.1
	sharingWeight = 0.02
	sharingPrior  = 0.05
	outlier       = 4.0
)

// sharing is what one replica's requests would have taken alone, and what they carry. It is
// pure and not safe for concurrent use.
type sharing struct {
	alone float64 // ms, smoothed
	kbit  float64 // smoothed

	n                  int // requests that were taken in
	crowd, took        float64
	variance, together float64 // of the logarithms of crowd and time
}

// ended takes in a request that took so long where alone would have taken it so long if
// machines were shared in equal parts.
func (s *sharing) ended(took, alone time.Duration, bytes int) {
	crowd := math.Log(max(1, float64(took)/float64(max(1, alone))))
	ms := float64(max(1, took)) / float64(time.Millisecond)
	s.n++
	w := max(1/float64(s.n), sharingWeight)
	dx, dy := crowd-s.crowd, math.Log(ms)-s.took
	s.crowd += w * dx
	s.took += w * dy
	s.variance = (1 - w) * (s.variance + w*dx*dx)
	s.together = (1 - w) * (s.together + w*dx*dy)
	single := ms * math.Exp(-s.follows()*crowd)
	kbit := float64(bytes) * 8 / 1000
	if s.n == 1 {
		s.alone, s.kbit = single, kbit
		return
	}
	w = max(1/float64(s.n), aloneWeight)
	s.alone += w * (min(single, outlier*s.alone) - s.alone)
	s.kbit += w * (kbit - s.kbit)
}

// follows is how the time of a request follows the crowd: as its power.
func (s *sharing) follows() float64 {
	return min(1, max(0, (s.together+sharingPrior)/(s.variance+sharingPrior)))
}
