package placement

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// rooms is a sketch of the fleet in which moves are tried before they begin: of the
// time after everything that is under way has ended.
type rooms struct {
	m     *Machine
	used  map[*agent]messages.Resources
	tasks map[*agent]map[string]int // how many replicas of a task
}

func (m *Machine) sketch() *rooms {
	return &rooms{m: m, used: make(map[*agent]messages.Resources), tasks: make(map[*agent]map[string]int)}
}

func (s *rooms) look(a *agent) {
	if s.tasks[a] != nil {
		return
	}
	s.tasks[a] = make(map[string]int)
	for _, id := range sorted(a.hosted) {
		if h := a.hosted[id]; !h.drain && (h.replica.home != h || h.replica.next == nil) {
			s.add(a, h.replica, 1)
		}
	}
}

func (s *rooms) add(a *agent, r *replica, n int) {
	s.look(a)
	need := r.claimed(r.spec.Task.Demand)
	if n > 0 {
		s.used[a] = s.used[a].Add(need)
	} else {
		s.used[a] = s.used[a].Sub(need)
	}
	s.tasks[a][r.spec.Task.Name] += n
}

func (s *rooms) admits(a *agent, r *replica) bool {
	s.look(a)
	t := r.spec.Task
	return s.m.closed(a) == "" && (t.Colocate || s.tasks[a][t.Name] == 0) && s.m.fits(a, s.used[a], r.claimed(t.Demand))
}

// makeRoom brings what waits to its place, where that takes moves: it begins them, and
// keeps the room for whom they were made, so that nobody of the same or a lower
// priority slips in. It returns the moves that it had no use for.
//
// Only moves that are tried to the end in a sketch are begun: half of a chain would
// make things worse for nothing.
func (m *Machine) makeRoom(waiting []*replica, v *movers, at map[string]*agent, moves []move) (rest []move) {
	order := slices.Clone(waiting)
	slices.SortStableFunc(order, func(a, b *replica) int {
		return cmp.Compare(b.spec.Task.Priority, a.spec.Task.Priority)
	})
	s := m.sketch()
	used := make(map[*replica]bool)
	for _, w := range order {
		to := at[w.id]
		if to == nil {
			continue
		}
		if m.admits(w, to) {
			s.add(to, w, 1)
			m.place(w, to, m.leaveWhy(w, "there is room now"))
			continue
		}
		evict := evictions(w, to, v, at)
		take, ok := s.open(w, to, evict, moves, used)
		if !ok && m.interrupt(w, to, v, at, used) {
			continue
		}
		if !ok || len(take) > m.allowance() {
			continue
		}
		m.reserved[to] = append(m.reserved[to], w)
		if len(take) > m.budget() {
			m.review(m.cycleEnd)
			continue
		}
		for i := range take {
			used[take[i].r] = true
			take[i].why = "it makes room for " + w.id
		}
		m.carryOut(take)
		for _, r := range evict {
			m.giveWay(r, w)
		}
	}
	for _, v := range moves {
		if !used[v.r] {
			rest = append(rest, v)
		}
	}
	return rest
}

// evictions are the replicas on a that the plan leaves without a place for w, which has
// a higher priority.
func evictions(w *replica, a *agent, v *movers, at map[string]*agent) (out []*replica) {
	for _, r := range v.all {
		if r.home != nil && r.home.agent == a && r.next == nil && at[r.id] == nil && r.spec.Task.Priority < w.spec.Task.Priority {
			out = append(out, r)
		}
	}
	return out
}

// open tries, in the sketch, the moves that give w room on a: those out of a, and those
// that make room for these. It stops as soon as w fits, and returns them in an order
// in which each has room when it is its turn.
func (s *rooms) open(w *replica, a *agent, evict []*replica, moves []move, used map[*replica]bool) (take []move, ok bool) {
	for _, r := range evict {
		s.add(a, r, -1)
	}
	undo := func() {
		for _, v := range take {
			s.add(v.to, v.r, -1)
			s.add(v.r.home.agent, v.r, 1)
		}
		for _, r := range evict {
			s.add(a, r, 1)
		}
	}
	sources := []*agent{a}
	for {
		if s.admits(a, w) {
			s.add(a, w, 1)
			return take, true
		}
		next := -1
		for _, from := range sources {
			for i, v := range moves {
				if used[v.r] || v.r.home.agent != from || slices.ContainsFunc(take, func(t move) bool { return t.r == v.r }) {
					continue
				}
				if s.admits(v.to, v.r) {
					next = i
				} else if !slices.Contains(sources, v.to) {
					sources = append(sources, v.to)
				}
				if next >= 0 {
					break
				}
			}
			if next >= 0 {
				break
			}
		}
		if next < 0 {
			undo()
			return nil, false
		}
		s.add(moves[next].r.home.agent, moves[next].r, -1)
		s.add(moves[next].to, moves[next].r, 1)
		take = append(take, moves[next])
	}
}

// interrupt breaks before it makes: what is on a and is to be elsewhere by the plan, but
// has room there only when others have gone (two that change places), stops first, if its
// task allows it. It reports whether w has room on a for that.
func (m *Machine) interrupt(w *replica, a *agent, v *movers, at map[string]*agent, used map[*replica]bool) bool {
	var stop []*replica
	room := m.used(a)
	for _, r := range v.all {
		if to := at[r.id]; r.home == nil || r.home.agent != a || r.next != nil || to == nil || to == a || v.pinned[r] || r.spec.Task.Interrupt != messages.InterruptAllow {
			continue
		}
		stop = append(stop, r)
		room = room.Sub(r.home.need())
		if m.closed(a) == "" && m.fits(a, room, w.claimed(w.spec.Task.Demand)) {
			break
		}
	}
	if len(stop) == 0 || len(stop) > m.budget() || m.closed(a) != "" || !m.fits(a, room, w.claimed(w.spec.Task.Demand)) {
		return false
	}
	m.reserved[a] = append(m.reserved[a], w)
	for _, r := range stop {
		to := at[r.id]
		m.reserved[to] = append(m.reserved[to], r)
		used[r] = true
		m.moved++
		m.begun++
		why := "it stops before it goes on on " + to.id + ", to make room for " + w.id + ": its task may pause"
		m.waits(r, why)
		m.retire(r.home, why)
		r.since = m.now
	}
	return true
}

// giveWay takes r out of service for w, which has a higher priority and fits nowhere
// else.
func (m *Machine) giveWay(r, w *replica) {
	why := fmt.Sprintf("it gives way to %s: priority %d against %d", w.id, w.spec.Task.Priority, r.spec.Task.Priority)
	m.begun++
	m.waits(r, why)
	m.retire(r.home, why)
	r.since = time.Time{}
}

// keptFrom lists the environments whose room is kept for others than r.
func (m *Machine) keptFrom(r *replica) (out []string) {
	for a, list := range m.reserved {
		for _, w := range list {
			if w != r && w.wanted && w.waiting && r.spec.Task.Priority <= w.spec.Task.Priority {
				out = append(out, a.id)
				break
			}
		}
	}
	slices.Sort(out)
	return out
}
