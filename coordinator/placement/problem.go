package placement

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// problem states an allocation: the free replicas, and those of movers that may move,
// find places beside everything else. Everything else is not up for choice: what it
// takes is counted with the foreign use of its environment, so that it can be neither
// moved nor squeezed out.
//
// Without movers the problem is of this moment: what drains and both sides of a move
// count. With movers it is of the time after all that: else room that is about to come
// free would look taken, and others would be moved for it.
func (m *Machine) problem(free []*replica, movers *movers) alloc.Problem {
	return m.stated(free, movers, true)
}

// stated is problem; apart says that the free ones are to find other places than they have.
func (m *Machine) stated(free []*replica, movers *movers, apart bool) alloc.Problem {
	p := alloc.Problem{Settings: m.settings, Current: make(map[string]string), MovePrice: m.movePrice()}
	p.Settings.V = 0
	if m.settings.Mode == messages.Adaptive {
		p.Measured = m.measuredDelays()
	}
	tasks := make(map[string]bool) // that need to know where their siblings are
	exclude := make(map[string][]string)
	own := make(map[*replica]bool) // where it is itself keeps nobody apart
	stated := make(map[string]bool)
	for _, r := range free {
		stated[r.id], own[r] = true, true
		tasks[r.spec.Task.Name] = true
		out := m.excluded(r)
		if movers == nil {
			out = append(out, m.keptFrom(r)...)
		}
		if h := r.home; apart && h != nil && m.closed(h.agent) == "" && m.forbidden(r, h.agent) == "" {
			out = append(out, h.agent.id) // else there is a reason of its own
		}
		exclude[r.id] = out
		p.Replicas = append(p.Replicas, m.variable(r, r.spec.Pin, 2*r.spec.Task.Priority))
	}
	for _, r := range movers.list() {
		stated[r.id] = true
		tasks[r.spec.Task.Name] = true
		exclude[r.id] = m.excluded(r)
		pin := r.spec.Pin
		if movers.pinned[r] {
			pin = r.home.agent.id
		}
		// One above the others of its priority: of two equals the one that serves stays.
		p.Replicas = append(p.Replicas, m.variable(r, pin, 2*r.spec.Task.Priority+1))
		p.Current[r.id] = r.home.agent.id
	}
	for _, a := range m.allAgents() {
		e := alloc.Environment{Environment: a.env, Foreign: a.others(), Closed: m.closed(a)}
		if movers == nil && (a.straying || a.unclear()) {
			e.Closed = cmp.Or(e.Closed, "busy: it has yet to stop what is placed there no more")
		}
		for _, h := range a.all() {
			if movers != nil && (h.drain || h.replica.home == h && h.replica.next != nil || movers.has(h.replica)) {
				continue
			}
			e.Foreign = e.Foreign.Add(h.need())
			if e.Billing == messages.Whole {
				e.Billing, e.Price = messages.Share, 0 // it is paid for already
			}
			if !h.drain && !h.task.Colocate && tasks[h.task.Name] && !own[h.replica] {
				s := sibling(h)
				for stated[s.ID] { // both sides of a move
					s.ID += "@" + a.id
				}
				stated[s.ID] = true
				p.Replicas = append(p.Replicas, s)
			}
		}
		p.Environments = append(p.Environments, e)
	}
	m.exclusions(&p, exclude)
	return p
}

// variable is r as the solver is to place it, with the demand that was measured.
func (m *Machine) variable(r *replica, pin string, priority int) alloc.Replica {
	v := r.spec
	v.Pin = pin
	work, transfer := v.Task.WorkGFLOP(), v.Task.TransferKbit()
	v.Task.Demand = r.claimed(v.Task.Demand)
	v.Task.Work, v.Task.Transfer = &work, &transfer // the defaults come from the demand
	v.Task.Priority = priority
	return v
}

// sibling stands for a placed replica that only keeps others of its task apart.
func sibling(h *hosting) alloc.Replica {
	zero := 0.0
	return alloc.Replica{ID: h.replica.id, Pin: h.agent.id, Task: messages.Task{
		Name: h.task.Name, Class: h.task.Class, Handler: h.task.Handler, Run: h.task.Run, Replicas: 1,
		Work: &zero, Transfer: &zero, Priority: math.MaxInt,
	}}
}

// excluded lists the environments that r must not go to: where it failed, and where it
// has yet to stop.
func (m *Machine) excluded(r *replica) []string {
	out := sorted(r.avoid)
	for _, h := range r.old {
		out = append(out, h.agent.id)
	}
	return out
}

// exclusions keeps single replicas off single environments. The solver has no word for
// that, but it has labels: the replica asks for one that all environments but those
// have. Replicas that are kept off the same environments share one.
func (m *Machine) exclusions(p *alloc.Problem, exclude map[string][]string) {
	m.keptOff = make(map[string]string)
	closed := make(map[string]map[string]bool) // by label: the environments that have it not
	for i := range p.Replicas {
		r := &p.Replicas[i]
		out := exclude[r.ID]
		if r.Pin != "" { // the others are closed to it anyway
			out = slices.DeleteFunc(out, func(id string) bool { return id != r.Pin })
		}
		if len(out) == 0 {
			continue
		}
		slices.Sort(out)
		label := "not kept off " + strings.Join(slices.Compact(out), ", ")
		m.keptOff[r.ID] = label
		if closed[label] == nil {
			closed[label] = make(map[string]bool)
			for _, id := range out {
				closed[label][id] = true
			}
		}
		labels := maps.Clone(r.Task.Labels)
		if labels == nil {
			labels = make(map[string]string)
		}
		labels[label] = "yes"
		r.Task.Labels = labels
	}
	if len(closed) == 0 {
		return
	}
	for i := range p.Environments {
		e := &p.Environments[i]
		labels := maps.Clone(e.Labels)
		if labels == nil {
			labels = make(map[string]string)
		}
		for label, out := range closed {
			labels[label] = "yes"
			if out[e.ID] {
				labels[label] = "no"
			}
		}
		e.Labels = labels
	}
}

func (m *Machine) movePrice() float64 {
	return alloc.Score(m.settings, m.calm.MoveDelay, m.calm.MoveCost)
}
