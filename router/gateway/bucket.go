package gateway

import (
	"sync"
	"time"
)

// Bucket bounds a rate: so many a second, and as many at once as come in a second, at
// least one. It may be used by many goroutines; the zero value bounds nothing.
type Bucket struct {
	Rate float64 // a second; 0: unbounded

	mu   sync.Mutex
	left float64
	at   time.Time
}

// Take takes one at now, or returns how long to wait for it.
func (b *Bucket) Take(now time.Time) time.Duration {
	if b.Rate <= 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	most := max(1, b.Rate)
	if b.at.IsZero() {
		b.left = most
	} else {
		b.left = min(most, b.left+b.Rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.left < 1 {
		return time.Duration((1-b.left)/b.Rate*float64(time.Second)) + 1
	}
	b.left--
	return 0
}
