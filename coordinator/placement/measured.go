package placement

import (
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
			samples[h.task.Name] = append(samples[h.task.Name], alloc.Sample{Served: h.status.Served, Service: h.status.Latency})
		}
	}
	for _, name := range sorted(samples) {
		if m.meter.Observe(m.now, tasks[name], a.env, samples[name]...) {
			m.need("a request of " + name + " takes another time on " + a.id)
		}
	}
}

// delay of t on e, ms, as plans count it.
func (m *Machine) delay(t messages.Task, e messages.Environment) float64 {
	if m.settings.Mode == messages.Adaptive {
		return m.meter.Delay(m.now, t, e)
	}
	return alloc.Delay(t, e)
}

// priceOf is the score that moving r must gain.
func (m *Machine) priceOf(r *replica) float64 {
	if p := r.spec.Task.MovePrice; p != nil {
		return *p
	}
	return m.movePrice()
}
