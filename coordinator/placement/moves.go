package placement

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
)

// movers are the replicas that are up for choice beside the free ones. A pinned one
// cannot move, but may have to give way to what has a higher priority.
type movers struct {
	all    []*replica // sorted by id
	set    map[*replica]bool
	pinned map[*replica]bool
}

func (v *movers) list() []*replica {
	if v == nil {
		return nil
	}
	return v.all
}

func (v *movers) has(r *replica) bool { return v != nil && v.set[r] }

// move is one that the solver proposes.
type move struct {
	r      *replica
	to     *agent
	gain   float64 // in score, by itself
	relief bool    // its environment is over its planned capacity
	why    string
}

// improve moves what may move: to relieve an environment, to make room for what waits,
// or for gain. Each of them under the same dwell and budget; gain must also pass the
// margin.
//
// Relief and room are needed, so they are looked for at once, by the fewest moves that
// do (alloc.Repair). Gain is not: a full solve is made when the last one is long enough
// ago, and of it only those moves are taken that are worth more than they cost.
func (m *Machine) improve(waiting []*replica) {
	m.reserved = make(map[*agent][]*replica)
	relieve := m.relieve()
	v := m.movers(waiting, relieve)
	if len(v.all) == 0 && (len(waiting) == 0 || !m.inTransit()) {
		return
	}
	if !m.now.Before(m.cycleEnd) {
		m.cycleEnd, m.moved = m.now.Add(m.calm.Cycle), 0
	}
	full := !m.now.Before(m.solveAt)
	if !full {
		m.review(m.solveAt)
	}
	if len(waiting) > 0 || len(relieve) > 0 {
		plan, ok := m.checked(m.mover.Repair(m.problem(waiting, v), alloc.Options{}))
		if !ok {
			return
		}
		if m.perform(plan, waiting, v, relieve) {
			m.review(m.solveAt)
			return
		}
		waiting = slices.DeleteFunc(waiting, func(r *replica) bool { return r.home != nil && !r.waiting })
	}
	if !full {
		return
	}
	m.solveAt = m.now.Add(max(m.calm.Cycle, time.Duration(len(v.all))*solveEvery))
	m.reserved = make(map[*agent][]*replica)
	plan, ok := m.checked(m.mover.Solve(m.problem(waiting, v), alloc.Options{}))
	if ok {
		m.perform(plan, waiting, v, relieve)
	}
}

// perform begins what the plan says as far as it may begin now, and reports whether that
// is anything.
func (m *Machine) perform(plan alloc.Plan, waiting []*replica, v *movers, relieve map[*agent]bool) bool {
	at := make(map[string]*agent, len(plan.Assignments))
	for _, a := range plan.Assignments {
		at[a.Replica] = m.agents[a.Environment]
	}
	var moves []move
	for _, r := range v.all {
		if r.home == nil || r.next != nil {
			continue // it gave way a moment ago
		}
		if to := at[r.id]; to != nil && to != r.home.agent {
			moves = append(moves, move{r: r, to: to, relief: relieve[r.home.agent],
				gain: m.score(r, r.home.agent, m.besides(r.home.agent, r)) - m.score(r, to, m.besides(to, r))})
		}
	}
	slices.SortStableFunc(moves, func(a, b move) int { return cmp.Compare(b.gain, a.gain) })
	before := m.begun
	rest := m.makeRoom(waiting, v, at, moves)
	m.carryOut(m.choose(rest))
	return m.begun > before
}

// inTransit reports whether something moves or drains, so that room will come free.
func (m *Machine) inTransit() bool {
	for _, r := range m.replicas {
		if r.next != nil || len(r.old) > 0 {
			return true
		}
	}
	return false
}

// relieve returns the agents that are to have less: hot and over what the plan allows,
// or over it by declaration alone.
func (m *Machine) relieve() map[*agent]bool {
	out := make(map[*agent]bool)
	for _, a := range m.agents {
		if m.closed(a) == "" && (a.hot && m.overfull(a, m.calm.Slack) || m.overdeclared(a)) {
			out[a] = true
		}
	}
	for _, r := range m.replicas {
		if outgrown(r) {
			out[r.home.agent] = true
		}
	}
	return out
}

// outgrown: the new version of its task has no room where r is.
func outgrown(r *replica) bool {
	return r.wanted && r.waiting && r.home != nil && !reflect.DeepEqual(r.home.task, r.spec.Task)
}

// together: replicas that were placed within it of each other may move in one plan, when the
// dwell of the first is over. Tasks that are applied at once come out of their bucket one by
// one, milliseconds apart; a plan that may move one of them alone moves the wrong one. Well
// under Dwell, so that it stays what it says.
const together = 100 * time.Millisecond

// movers collects what may move now, and asks for a review when the dwell of the rest
// is over.
func (m *Machine) movers(waiting []*replica, relieve map[*agent]bool) *movers {
	v := &movers{set: make(map[*replica]bool), pinned: make(map[*replica]bool)}
	top := 0 // the highest priority that waits
	for i, r := range waiting {
		if i == 0 || r.spec.Task.Priority > top {
			top = r.spec.Task.Priority
		}
	}
	frozen := make(map[*agent]bool)
	for _, a := range m.allAgents() {
		// What measured load alone makes too full moves when it is hot, not before.
		frozen[a] = !relieve[a] && m.overfull(a, 0)
	}
	for _, r := range m.allReplicas() {
		if !r.wanted || r.home == nil || r.next != nil || m.closed(r.home.agent) != "" || slices.Contains(waiting, r) {
			continue
		}
		free := r.spec.Pin == "" && r.home.serves() && !frozen[r.home.agent]
		if end := r.since.Add(m.calm.Dwell); free && m.now.Before(end.Add(-together)) {
			m.review(end)
			free = false
		}
		if free || len(waiting) > 0 && r.spec.Task.Priority < top {
			v.all = append(v.all, r)
			v.set[r], v.pinned[r] = true, !free
		}
	}
	return v
}

// choose returns the moves to make now, within the budget: those that relieve, and
// those for gain if together they pass the margin. A move whose target has no room yet
// waits: when room comes free a plan is made again.
func (m *Machine) choose(moves []move) []move {
	var take, gain []move
	for _, v := range moves {
		switch {
		case !m.admits(v.r, v.to) || len(m.reserved[v.to]) > 0:
		case v.relief:
			v.why = v.r.home.agent.id + " is over its planned capacity"
			take = append(take, v)
		default:
			gain = append(gain, v)
		}
	}
	left := m.budget()
	if len(take) > left {
		m.review(m.cycleEnd)
		return take[:left]
	}
	left -= len(take)
	more := len(gain) > left
	if more {
		gain = gain[:left]
	}
	gain, worth := m.worth(gain)
	if worth {
		take = append(take, gain...)
	}
	if more && (worth || left == 0) { // else the next cycle would find the same
		m.review(m.cycleEnd)
	}
	return take
}

// budget is how many moves may begin in what is left of this cycle.
func (m *Machine) budget() int { return max(0, m.allowance()-m.moved) }

// allowance is how many moves may begin in one cycle.
func (m *Machine) allowance() int { return max(m.calm.Moves, len(m.replicas)/50) }

// carryOut begins the moves whose target has room beside everything that is there.
func (m *Machine) carryOut(moves []move) {
	for _, v := range moves {
		if v.r.next == nil && m.admits(v.r, v.to) {
			t := v.r.spec.Task
			m.place(v.r, v.to, fmt.Sprintf("%s; delay %.4g ms instead of %.4g", v.why, m.delay(t, v.to.env), m.delay(t, v.r.home.agent.env)))
			m.moved++
		}
	}
}
