package placement

import (
	"math"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// latch holds a measured amount as the plan counts it. It rises at once, so that
// nothing is placed onto room that is gone; it falls only when what is measured has
// been far below it for long, so that what was moved away for it does not come back at
// the first quiet moment.
type latch struct {
	v   float64
	low time.Time // measured far below v since; zero when it is not
}

// fold returns by how much the latch fell.
func (l *latch) fold(now time.Time, measured float64, c *Calm) (fell float64) {
	switch {
	case measured >= l.v:
		l.v, l.low = measured, time.Time{}
	case measured > c.CoolUnder*l.v:
		l.low = time.Time{}
	case l.low.IsZero():
		l.low = now
	case now.Sub(l.low) >= c.CoolFor:
		fell = l.v - measured
		l.v, l.low = measured, time.Time{}
	}
	return fell
}

// fellEnough is the part of an environment's capacity that must come free before it is
// worth a plan: one change of load of 5 % moves nothing.
const fellEnough = 0.05

// A way to an agent is another one when it takes longer or shorter by this part, and by more
// than so many ms: what is less moves nothing that is worth a move.
const (
	wayStep  = 0.2
	wayLeast = 1.0
)

// way takes the measured round trip of an agent for its latency, where the agent asks for that
// and the mode allows a plan to follow what changes.
func (m *Machine) way(a *agent) {
	if a.beat.Readings == nil || a.beat.Readings.Latency <= 0 || m.settings.Mode == messages.Static {
		return
	}
	now, was := a.beat.Readings.Latency, a.env.Latency
	if d := math.Abs(now - was); d <= wayLeast || d <= wayStep*was {
		return
	}
	a.env.Latency = now
	for _, h := range a.all() {
		m.touch(h)
	}
	m.record("latency_changed", a.id, "", "its server is %.3g ms away, it was %.3g", now, was)
	m.need("the way to " + a.id + " takes another time")
}

// load judges the measured load of an agent.
//
// Effective demand of a replica = max(declared, rate · work): 1/s · GFLOP / 1000 =
// TFLOPS, at most what its environment has. Planned capacity = (1 − reserve) · capacity.
func (m *Machine) load(a *agent) {
	if !a.heard || a.state == messages.AgentLost {
		return
	}
	m.way(a)
	m.measure(a)
	usable := m.usable(a)
	measured := a.beat.Foreign
	fell := 0.0
	for _, h := range a.all() {
		// No replica takes more than its machine has: the rate of a few requests of
		// enormous work, perhaps given up on at once, would say so.
		tflops := min(h.status.Rate*h.work/1000, a.env.Capacity.Compute)
		measured.Compute += tflops
		if r := h.replica; h == r.home && h.state == messages.ReplicaReady {
			before := r.claimed(h.task.Demand).Compute
			r.claim.fold(m.now, tflops, &m.calm)
			fell += max(0, before-r.claimed(h.task.Demand).Compute)
		}
	}
	if fell > fellEnough*usable.Compute {
		m.need("the load of " + a.id + " fell")
	}
	have, others, all := amounts(usable), amounts(a.beat.Foreign), amounts(measured)
	ratio := 0.0
	for k := range have {
		if a.foreign[k].fold(m.now, others[k], &m.calm) > fellEnough*have[k] {
			m.need("others use less of " + a.id)
		}
		if have[k] > 0 {
			ratio = max(ratio, all[k]/have[k])
		}
	}
	m.thermometer(a, ratio)
}

// thermometer turns a ratio of measured load to planned capacity into hot and cool.
func (m *Machine) thermometer(a *agent, ratio float64) {
	if ratio <= m.calm.HotOver {
		a.hotSince = time.Time{}
	} else if a.hotSince.IsZero() {
		a.hotSince = m.now
	}
	if ratio >= m.calm.CoolUnder {
		a.coolSince = time.Time{}
	} else if a.coolSince.IsZero() {
		a.coolSince = m.now
	}
	switch {
	case !a.hotSince.IsZero() && m.now.Sub(a.hotSince) >= m.calm.HotFor:
		if !a.hot {
			m.record("load_high", a.id, "", "%.0f %% of its planned capacity for %v", 100*ratio, m.calm.HotFor)
		}
		if !a.hot || m.overfull(a, m.calm.Slack) {
			m.need("the load of " + a.id + " is high")
		}
		a.hot, a.hotSince = true, m.now // and again if that did not help
	case a.hot && !a.coolSince.IsZero() && m.now.Sub(a.coolSince) >= m.calm.CoolFor:
		a.hot = false
		m.record("load_low", a.id, "", "%.0f %% of its planned capacity for %v", 100*ratio, m.calm.CoolFor)
		m.need("the load of " + a.id + " is low")
	}
}

// usable is what may be planned on an agent with nobody else there.
func (m *Machine) usable(a *agent) messages.Resources {
	return a.env.Capacity.Scale(1 - m.settings.Reserve)
}

// others is what is not ours on an agent, as the plan counts it.
func (a *agent) others() messages.Resources {
	return messages.Resources{Compute: a.foreign[0].v, Storage: a.foreign[1].v, Network: a.foreign[2].v}
}

// used is what the documents put on an agent, moves and leftovers included.
func (m *Machine) used(a *agent) messages.Resources {
	var sum messages.Resources
	for _, h := range a.all() { // in order: float64 sums depend on it
		sum = sum.Add(h.need())
	}
	return sum
}

// countStrays notes whether an agent runs what no document of it lists: what one that
// was away has yet to stop. How much that takes nobody knows, for it may be of another
// version of its task, or of a task that is no more: so nothing comes to that agent, and
// nothing grows there, until it has stopped.
func (m *Machine) countStrays(a *agent) {
	was := a.straying
	a.straying = false
	for i := range a.beat.Replicas {
		if st := &a.beat.Replicas[i]; a.hosted[st.ID] == nil && st.State != messages.ReplicaStopped && st.State != messages.ReplicaFailed {
			a.straying = true
			if !was && m.docs[a.id] == nil {
				m.need("agent " + a.id + " runs what no document lists")
			}
			return
		}
	}
	if was {
		m.need("room on " + a.id)
	}
}

// unclear reports whether a may still run another version of something than its
// document lists, which a leader before this one replaced: what that takes is not known.
func (a *agent) unclear() bool {
	return slices.ContainsFunc(a.all(), func(h *hosting) bool { return h.adopted })
}

// fits reports whether need more has room on a. A resource that need does not ask for
// is in nobody's way, however full.
func (m *Machine) fits(a *agent, used, need messages.Resources) bool {
	if a.straying || a.unclear() {
		return false
	}
	have, want, more := amounts(m.usable(a)), amounts(used.Add(a.others()).Add(need)), amounts(need)
	for k := range have {
		if more[k] > 0 && !within(want[k], have[k]) {
			return false
		}
	}
	return true
}

// overfull reports whether what is on a is more than what the plan allows, by more than
// a part of it: the load grew, others took room, or the settings changed. Nothing is ever
// placed so.
func (m *Machine) overfull(a *agent, slack float64) bool {
	ours := m.used(a)
	have, mine, all := amounts(m.usable(a)), amounts(ours), amounts(ours.Add(a.others()))
	for k := range have {
		if mine[k] > 0 && !within(all[k], (1+slack)*have[k]) {
			return true
		}
	}
	return false
}

// overdeclared is overfull by declared demands alone: nothing measured is to blame, so
// there is nothing to wait for.
func (m *Machine) overdeclared(a *agent) bool {
	var sum messages.Resources
	for _, h := range a.all() {
		sum = sum.Add(h.task.Demand)
	}
	return !sum.Within(m.usable(a))
}

func amounts(r messages.Resources) [3]float64 { return [3]float64{r.Compute, r.Storage, r.Network} }

func within(need, have float64) bool {
	return messages.Resources{Compute: need}.Within(messages.Resources{Compute: have})
}
