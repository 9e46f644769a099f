package placement

import (
	"math"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// measure takes in how long the replicas on a say that a request takes, and a plan is due
// where that changes what is believed. In other modes than adaptive nothing is learned: a
// beat costs a large fleet too much for what nobody reads.
func (m *Machine) measure(a *agent) {
	if m.settings.Mode != messages.Adaptive {
		return
	}
	samples := make(map[string][]alloc.Sample)
	tasks := make(map[string]messages.Task)
	for _, id := range sorted(a.hosted) {
		if h := a.hosted[id]; h.state == messages.ReplicaReady {
			tasks[h.task.Name] = h.task
			samples[h.task.Name] = append(samples[h.task.Name], alloc.Sample{
				Served: h.status.Served, Service: h.status.Latency, Alone: h.status.Alone, Kbit: h.status.Kbit})
			h.replica.asked(m.now, h.status.Rate)
		}
	}
	for _, name := range sorted(samples) {
		if m.meter.Observe(m.now, tasks[name], a.env, samples[name]...) {
			m.need("a request of " + name + " takes another time on " + a.id)
		}
	}
}

// askedTime smooths how often a replica is asked, over far more than the bursts in which
// requests come: a plan for gain is to hold for minutes.
const askedTime = 30 * time.Second

// asked takes in how often r was asked lately, 1/s.
func (r *replica) asked(now time.Time, rate float64) {
	since := now.Sub(r.rateAt)
	if r.rateAt.IsZero() {
		r.rate = rate
	} else {
		r.rate += (1 - math.Exp(-since.Seconds()/askedTime.Seconds())) * (rate - r.rate)
	}
	r.rateAt = now
}

// delay of t on e with nothing else of ours beside it, ms, as plans count it.
func (m *Machine) delay(t messages.Task, e messages.Environment) float64 {
	if m.settings.Mode == messages.Adaptive {
		return m.meter.Delay(m.now, t, e)
	}
	return alloc.Delay(t, e)
}

// occupancy is the part of the time in which requests of r would be served on a. In other
// modes than adaptive nobody knows.
func (m *Machine) occupancy(r *replica, a *agent) float64 {
	if m.settings.Mode != messages.Adaptive || r.rate == 0 {
		return 0
	}
	return min(1, r.rate*m.meter.Service(m.now, r.spec.Task, a.env)/1000)
}

// mostBeside bounds for how much of the time others are counted to be there: beyond it a
// request waits for as long as requests keep coming, and no sum says how long that is.
const mostBeside = 0.9

// crowding is how much longer a request of t takes on a, ms, where others of ours are served
// there for so much of the time: a machine gives its compute to all that it serves.
func (m *Machine) crowding(t messages.Task, a *agent, beside float64) float64 {
	if beside <= 0 {
		return 0
	}
	beside = min(beside, mostBeside)
	return m.meter.Service(m.now, t, a.env) * beside / (1 - beside)
}

// besides is the part of the time in which replicas at home on a other than r are served
// there; without r: all of them.
func (m *Machine) besides(a *agent, r *replica) (sum float64) {
	if m.settings.Mode != messages.Adaptive {
		return 0
	}
	for _, h := range a.all() {
		if h == h.replica.home && h.replica != r {
			sum += m.occupancy(h.replica, a)
		}
	}
	return sum
}

// measuredDelays are the delays of a problem: what is believed, and what our own load adds
// where it is now. That load may make a place a bad one, but none over its task's limit: the
// limit is of what a machine can do, and a load is what a plan can change.
func (m *Machine) measuredDelays() map[alloc.Pair]float64 {
	pairs := m.meter.Pairs(m.now)
	out := make(map[alloc.Pair]float64, len(pairs))
	for _, p := range pairs {
		a, t, ok := m.believedOf(p)
		if !ok {
			continue
		}
		d := m.meter.Delay(m.now, t, a.env)
		full := d + m.crowding(t, a, m.besides(a, a.oneOf(p.Task)))
		if t.Limit > 0 {
			full = min(full, max(d, t.Limit))
		}
		out[p] = coarse(full)
	}
	return out
}

// coarse rounds to steps of a twentieth: what changes with every look is a new problem.
func coarse(ms float64) float64 {
	if ms <= 0 {
		return ms
	}
	return math.Exp(math.Round(math.Log(ms)*20) / 20)
}

// believedOf returns what a pair speaks of.
func (m *Machine) believedOf(p alloc.Pair) (a *agent, t messages.Task, ok bool) {
	if a = m.agents[p.Environment]; a == nil {
		return nil, t, false
	}
	if r := a.oneOf(p.Task); r != nil {
		return a, r.home.task, true
	}
	t, ok = m.task(p.Task)
	return a, t, ok
}

// oneOf returns a replica of a task that is at home on a, or nil.
func (a *agent) oneOf(task string) *replica {
	for _, h := range a.all() {
		if h == h.replica.home && h.task.Name == task {
			return h.replica
		}
	}
	return nil
}

// beliefs tells people what is believed of the delays.
func (m *Machine) beliefs() (list []messages.MeasuredDelay) {
	if m.settings.Mode != messages.Adaptive {
		return nil
	}
	for _, p := range m.meter.Pairs(m.now) {
		a, t, ok := m.believedOf(p)
		if !ok {
			continue
		}
		b, ok := m.meter.Believed(m.now, t, a.env)
		if !ok {
			continue
		}
		crowding := m.crowding(t, a, m.besides(a, a.oneOf(p.Task)))
		list = append(list, messages.MeasuredDelay{Task: p.Task, Agent: p.Environment, Delay: b.Service + b.Transfer + a.env.Latency + crowding,
			Modelled: finite(alloc.Delay(t, a.env)), Service: b.Service, Transfer: b.Transfer, Crowding: crowding, Age: float64(b.Age) / float64(time.Millisecond)})
	}
	return list
}

// finite leaves out what JSON has no word for.
func finite(v float64) float64 {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	return v
}

// priceOf is the score that moving r must gain.
func (m *Machine) priceOf(r *replica) float64 {
	if p := r.spec.Task.MovePrice; p != nil {
		return *p
	}
	return m.movePrice()
}
