package main

import "math"

// The agent's own figures; see agent/sharing.go.
const (
	aloneWeight   = 0.1
	sharingWeight = 0.02
	sharingPrior  = 0.05
	outlier       = 4.0
)

// sharing is what a replica's requests would have taken alone, as the agent reckons it: how
// a time follows the number that ran at once is learned, and taken out.
type sharing struct {
	alone, kbit        float64
	n                  int
	crowd, took        float64
	variance, together float64
}

// ended takes in a request of took ms, of which alone is what it had for itself.
func (s *sharing) ended(took, alone, kbit float64) {
	took, alone = max(took, 1e-6), max(alone, 1e-6)
	crowd := math.Log(max(1, took/alone))
	s.n++
	w := max(1/float64(s.n), sharingWeight)
	dx, dy := crowd-s.crowd, math.Log(took)-s.took
	s.crowd += float64(w * dx)
	s.took += float64(w * dy)
	s.variance = float64((1 - w) * (s.variance + float64(float64(w*dx)*dx)))
	s.together = float64((1 - w) * (s.together + float64(float64(w*dx)*dy)))
	follows := min(1, max(0, (s.together+sharingPrior)/(s.variance+sharingPrior)))
	single := float64(took * math.Exp(-float64(follows*crowd)))
	if s.n == 1 {
		s.alone, s.kbit = single, kbit
		return
	}
	w = max(1/float64(s.n), aloneWeight)
	s.alone += float64(w * (min(single, float64(outlier*s.alone)) - s.alone))
	s.kbit += float64(w * (kbit - s.kbit))
}
