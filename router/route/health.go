package route

import "time"

// What a client keeps in mind of a replica that answered it:
//
//   - Latency follows a change within about five answers, and counts for latencyFresh:
//     a replica that was slow for a while is asked less, so it could not show otherwise
//     that it is quick again.
//   - ejectAfter failures in a row and no success between them put it behind all others
//     for ejectFirst, and twice as long each time up to ejectMost. It is not forgotten:
//     where nobody else is, it is asked. One success ends it.
const (
	latencyWeight = 0.3
	latencyFresh  = 5 * time.Second
	ejectAfter    = 3
	ejectFirst    = time.Second
	ejectMost     = 30 * time.Second
)

// Health is what a client itself has seen of a replica. The zero value knows nothing.
type Health struct {
	latency  float64   // ns, smoothed
	seen     time.Time // the last latency
	failures int       // in a row
	until    time.Time // ejected
}

// Answered notes an answer that took its handler so long.
func (h *Health) Answered(now time.Time, took time.Duration) {
	if h.seen.IsZero() || now.Sub(h.seen) > latencyFresh {
		h.latency = float64(took)
	}
	h.latency += latencyWeight * (float64(took) - h.latency)
	h.seen, h.failures, h.until = now, 0, time.Time{}
}

// Failed notes that its backend failed.
func (h *Health) Failed(now time.Time) {
	if h.failures++; h.failures >= ejectAfter {
		h.until = now.Add(min(ejectFirst<<min(h.failures-ejectAfter, 10), ejectMost))
	}
}

// Latency is about how long its handler takes; 0 where that is not known any more.
func (h *Health) Latency(now time.Time) time.Duration {
	if h.seen.IsZero() || now.Sub(h.seen) > latencyFresh {
		return 0
	}
	return time.Duration(h.latency)
}

// Ejected reports whether it failed so often that others should be asked first.
func (h *Health) Ejected(now time.Time) bool { return now.Before(h.until) }
