package placement

import (
	"fmt"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// trial is where replicas would be if some of them moved: of the agents that those moves
// touch alone, because nothing else changes.
type trial struct {
	m  *Machine
	on map[*agent][]*replica
}

// try makes a trial in which nothing has moved yet, of all agents that the moves touch.
func (m *Machine) try(moves []move) *trial {
	t := &trial{m: m, on: make(map[*agent][]*replica)}
	for _, v := range moves {
		for _, a := range []*agent{v.r.home.agent, v.to} {
			if _, ok := t.on[a]; ok {
				continue
			}
			t.on[a] = []*replica{}
			for _, h := range a.all() {
				if r := h.replica; h == r.home && r.wanted {
					t.on[a] = append(t.on[a], r)
				}
			}
		}
	}
	return t
}

// put moves r from one agent to another.
func (t *trial) put(r *replica, from, to *agent) {
	t.on[from] = slices.DeleteFunc(t.on[from], func(o *replica) bool { return o == r })
	t.on[to] = append(t.on[to], r)
}

// costs is what the plan costs on some agents: the score of each replica, beside what else
// runs there, and once the price of an environment that is billed whole.
func (t *trial) costs(agents ...*agent) (sum float64) {
	for _, a := range agents {
		all := 0.0
		for _, r := range t.on[a] {
			all += t.m.occupancy(r, a)
		}
		for _, r := range t.on[a] {
			sum += t.m.score(r, a, all-t.m.occupancy(r, a))
		}
		if a.env.Billing == messages.Whole && len(t.on[a]) > 0 {
			sum += alloc.Score(t.m.settings, 0, a.env.Price)
		}
	}
	return sum
}

// all is what the plan costs on all agents of the trial.
func (t *trial) all() float64 {
	agents := make([]*agent, 0, len(t.on))
	for _, a := range t.m.allAgents() { // in order: float64 sums depend on it
		if _, ok := t.on[a]; ok {
			agents = append(agents, a)
		}
	}
	return t.costs(agents...)
}

// score of r on a, where others are served for so much of the time, without the price of an
// environment that is billed whole.
func (m *Machine) score(r *replica, a *agent, beside float64) float64 {
	e := a.env
	if e.Billing == messages.Whole {
		e.Billing, e.Price = messages.Share, 0
	}
	delay := m.delay(r.spec.Task, e) + m.crowding(r.spec.Task, a, beside)
	return alloc.Score(m.settings, delay, alloc.Cost(r.spec.Task, e)) + alloc.Penalty(r.spec.Task, e)
}

// worth returns those of the moves that are worth their price, given the others, and reports
// whether together they are better than today by the price of each and by the margin. A
// move that gains nothing by itself may be worth it: the last one from an environment that
// is billed whole saves all of its price. One that only changes places with its equal is not.
func (m *Machine) worth(moves []move) ([]move, bool) {
	if len(moves) == 0 {
		return nil, false
	}
	t := m.try(moves)
	before := t.all()
	for _, v := range moves {
		t.put(v.r, v.r.home.agent, v.to)
	}
	// Those that gain least by themselves first: they are the ones that came along.
	var kept []move
	for _, v := range slices.Backward(moves) {
		home := v.r.home.agent
		with := t.costs(home, v.to)
		t.put(v.r, v.to, home)
		if t.costs(home, v.to)-with < m.priceOf(v.r) {
			continue // it stays
		}
		t.put(v.r, home, v.to)
		kept = append(kept, v)
	}
	slices.Reverse(kept)
	price, today := 0.0, 0.0
	for _, v := range kept {
		price += m.priceOf(v.r)
		today += m.score(v.r, v.r.home.agent, m.besides(v.r.home.agent, v.r))
	}
	gain := before - t.all()
	for i, v := range kept {
		kept[i].why = fmt.Sprintf("the score is better by %.4g", v.gain)
		if v.gain < m.priceOf(v.r) {
			kept[i].why = fmt.Sprintf("with the %d that move now the plan is better by %.4g", len(kept), gain)
		}
	}
	return kept, len(kept) > 0 && gain >= max(price, m.calm.Margin*today)
}
