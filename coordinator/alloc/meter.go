package alloc

import (
	"maps"
	"math"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// A Meter turns what agents report of their replicas into the delays of
// [Problem.Measured]. It remembers a place that was left: else the plan would go back to
// it on the word of the model that sent it away. The zero value is ready. It has no
// clock, the caller says what time it is; it is for one goroutine at a time.
type Meter struct {
	readings map[Pair]*reading
}

// Sample is what one replica of a task has reported of itself.
type Sample struct {
	Served  uint64  // requests begun since its agent started
	Service float64 // ms of service of one request, smoothed
}

const (
	// meterServed requests make a sample: agents smooth over about ten, so the first one,
	// which may have loaded a model, counts for little by then.
	meterServed = 20
	// meterStep is the part by which a delay must differ from the one believed to be
	// believed in its place: less is noise, and would make a new problem of every beat.
	meterStep = 0.1
	// meterKeep is how long what nobody measures any more is believed. What was slow for
	// once is tried again after it; it is long beside the dwell of a replica (seconds), so
	// that a place that is slow for good costs two moves in half an hour.
	meterKeep = 30 * time.Minute
)

// reading is what is believed of a pair.
type reading struct {
	delay float64   // ms
	at    time.Time // measured last
	of    subject   // what it was measured of
}

// subject is all that a delay depends on: of another it says nothing.
type subject struct {
	work, transfer float64
	handler        string
	capacity       messages.Resources
	latency        float64
}

// Observe takes in what the replicas of t on e report, and says whether a delay that is
// believed has changed. An agent measures service, not the way to it: transfer and
// latency are added by the model. Samples of too few requests, and such as are no
// numbers, do not count.
func (m *Meter) Observe(now time.Time, t messages.Task, e messages.Environment, samples ...Sample) (changed bool) {
	var sum float64
	n := 0
	for _, s := range samples {
		if s.Served >= meterServed && s.Service > 0 && usable(s.Service) {
			sum += s.Service
			n++
		}
	}
	key := Pair{Task: t.Name, Environment: e.ID}
	of := subject{t.WorkGFLOP(), t.TransferKbit(), t.HandlerName(), e.Capacity, e.Latency}
	r := m.readings[key]
	if r != nil && r.of != of {
		delete(m.readings, key)
		r, changed = nil, true
	}
	delay := sum/float64(max(1, n)) + ratio(t.TransferKbit(), e.Capacity.Network) + e.Latency
	if n == 0 || !usable(delay) {
		return changed
	}
	if r == nil {
		if m.readings == nil {
			m.readings = make(map[Pair]*reading)
		}
		m.readings[key] = &reading{delay, now, of}
		return true
	}
	r.at = now
	if math.Abs(delay-r.delay) <= meterStep*r.delay {
		return changed
	}
	r.delay = delay
	return true
}

// Delays returns what is believed now, and forgets what is too old. The map is the
// caller's.
func (m *Meter) Delays(now time.Time) map[Pair]float64 {
	maps.DeleteFunc(m.readings, func(_ Pair, r *reading) bool { return now.Sub(r.at) > meterKeep })
	out := make(map[Pair]float64, len(m.readings))
	for k, r := range m.readings {
		out[k] = r.delay
	}
	return out
}

// Delay is the delay of t on e as a plan counts it: what is believed, or else the
// model's.
func (m *Meter) Delay(now time.Time, t messages.Task, e messages.Environment) float64 {
	if r := m.readings[Pair{Task: t.Name, Environment: e.ID}]; r != nil && now.Sub(r.at) <= meterKeep {
		return r.delay
	}
	return Delay(t, e)
}
