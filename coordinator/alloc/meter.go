package alloc

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// A Meter turns what agents report of their replicas into what a plan may believe of a task
// on an environment, in place of the model. It remembers a place that was left: else the
// plan would go back to it on the word of the model that sent it away. The zero value is
// ready. It has no clock, the caller says what time it is; it is for one goroutine at a
// time.
//
// What it believes is a property of the machine: how long a request is served with nothing
// else of ours beside it. What our own requests do to each other is no such thing: it leaves
// a machine with them, and a plan that took it for one would chase its own load.
type Meter struct {
	readings map[Pair]*reading
}

// Sample is what one replica of a task has reported of itself.
type Sample struct {
	Served  uint64  // requests begun since its agent started
	Service float64 // ms of service of one request, smoothed
	Alone   float64 // ms that it would have been with nothing else of ours beside it; 0: its agent does not say
	Kbit    float64 // that one request carries, there and back; 0: its agent does not say
}

const (
	// meterServed requests make a sample: agents smooth over about ten, so the first one,
	// which may have loaded a model, counts for little by then.
	meterServed = 20
	// meterStep is the part by which a figure must differ from the one believed to be
	// believed in its place: less is noise, and would make a new problem of every beat.
	meterStep = 0.1
	// meterTime smooths what replicas say, over the time in which a plan follows: well over
	// the second or so that some twenty requests take, whose mean differs by a fifth where
	// they are not alike, and under the dwell of a few replicas that are moved one by one.
	meterTime = 15 * time.Second
	// meterHalf is after how long of what nobody measures any more half is believed, and the
	// model for the rest; meterKeep is when it is forgotten. What was slow for once is tried
	// again then; both are long beside the dwell of a replica (seconds), so that a place
	// that is slow for good costs two moves in a third of an hour.
	meterHalf = 20 * time.Minute
	meterKeep = 40 * time.Minute
)

// Belief is what is believed of a task on an environment, ms of one request.
type Belief struct {
	Service  float64       // with nothing else of ours beside it
	Transfer float64       // of its bodies
	Age      time.Duration // since it was measured last
}

// reading is what is believed of a pair.
type reading struct {
	service, transfer value
	at                time.Time // measured last
	of                subject   // what it was measured of
}

// value is a figure that is smoothed, and the one that is believed meanwhile.
type value struct{ smooth, believed float64 }

// follow takes in a figure of after the last one, and says whether that changes what is
// believed.
func (v *value) follow(x float64, after time.Duration) bool {
	v.smooth += (1 - math.Exp(-after.Seconds()/meterTime.Seconds())) * (x - v.smooth)
	if math.Abs(v.smooth-v.believed) <= meterStep*v.believed {
		return false
	}
	v.believed = v.smooth
	return true
}

// subject is all that a reading depends on: of another it says nothing.
type subject struct {
	work, transfer float64
	handler        string
	capacity       messages.Resources
}

func subjectOf(t *messages.Task, e *messages.Environment) subject {
	return subject{t.WorkGFLOP(), t.TransferKbit(), t.HandlerName(), e.Capacity}
}

// Observe takes in what the replicas of t on e report, and says whether something that is
// believed has changed. Samples of too few requests, and such as are no numbers, do not
// count.
func (m *Meter) Observe(now time.Time, t messages.Task, e messages.Environment, samples ...Sample) (changed bool) {
	key, of := Pair{Task: t.Name, Environment: e.ID}, subjectOf(&t, &e)
	r := m.readings[key]
	if r != nil && r.of != of {
		delete(m.readings, key)
		r, changed = nil, true
	}
	service, kbit, ok := mean(samples, ratio(of.work, of.capacity.Compute))
	if kbit == 0 {
		kbit = of.transfer
	}
	transfer := ratio(kbit, of.capacity.Network)
	if !ok || !usable(service+transfer) {
		return changed
	}
	if r == nil {
		if m.readings == nil {
			m.readings = make(map[Pair]*reading)
		}
		m.readings[key] = &reading{value{service, service}, value{transfer, transfer}, now, of}
		return true
	}
	after := now.Sub(r.at)
	r.at = now
	slower, larger := r.service.follow(service, after), r.transfer.follow(transfer, after)
	return slower || larger || changed
}

// mean is the mean service alone and the mean size of what the samples say. Our own load
// makes a machine look slow, and nothing makes it look faster than it is: so as much as is
// known of that load is taken off, down to what the model says, but no further. Where
// requests do not share what they run on, too much would be taken off.
func mean(samples []Sample, modelled float64) (service, kbit float64, ok bool) {
	n, sized := 0, 0
	for _, s := range samples {
		if s.Served < meterServed || !(s.Service > 0) || !usable(s.Service) {
			continue
		}
		alone := s.Service
		if s.Alone > 0 && s.Alone < s.Service {
			alone = max(s.Alone, min(s.Service, modelled))
		}
		service += alone
		n++
		if s.Kbit > 0 && usable(s.Kbit) {
			kbit += s.Kbit
			sized++
		}
	}
	return service / float64(max(1, n)), kbit / float64(max(1, sized)), n > 0
}

// Believed returns what is believed of t on e; ok is false where that is nothing, and the
// model has the word.
func (m *Meter) Believed(now time.Time, t messages.Task, e messages.Environment) (b Belief, ok bool) {
	r := m.readings[Pair{Task: t.Name, Environment: e.ID}]
	if r == nil || now.Sub(r.at) > meterKeep || r.of != subjectOf(&t, &e) {
		return Belief{}, false
	}
	b = Belief{r.service.believed, r.transfer.believed, now.Sub(r.at)}
	// In steps: what changes with every look is a new problem every time.
	part := math.Exp2(-float64(b.Age / meterHalf))
	b.Service = fade(b.Service, ratio(r.of.work, r.of.capacity.Compute), part)
	b.Transfer = fade(b.Transfer, ratio(r.of.transfer, r.of.capacity.Network), part)
	return b, true
}

// fade is so much of what is believed, and the model for the rest.
func fade(believed, modelled, part float64) float64 {
	if part == 1 || !usable(modelled) {
		return believed
	}
	return modelled + part*(believed-modelled)
}

// Pairs returns of what something is believed, in order, and forgets what is too old.
func (m *Meter) Pairs(now time.Time) []Pair {
	maps.DeleteFunc(m.readings, func(_ Pair, r *reading) bool { return now.Sub(r.at) > meterKeep })
	return slices.SortedFunc(maps.Keys(m.readings), func(a, b Pair) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Environment, b.Environment))
	})
}

// Service is how long one request of t is served on e with nothing else of ours beside it,
// ms: what is believed, or else the model's.
func (m *Meter) Service(now time.Time, t messages.Task, e messages.Environment) float64 {
	if b, ok := m.Believed(now, t, e); ok {
		return b.Service
	}
	return ratio(t.WorkGFLOP(), e.Capacity.Compute)
}

// Delay is the delay of t on e with nothing else of ours beside it, ms: what is believed, or
// else the model's.
func (m *Meter) Delay(now time.Time, t messages.Task, e messages.Environment) float64 {
	if b, ok := m.Believed(now, t, e); ok {
		return b.Service + b.Transfer + e.Latency
	}
	return Delay(t, e)
}
