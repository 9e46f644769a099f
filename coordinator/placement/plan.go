package placement

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

func (m *Machine) tasksChanged(ev TasksChanged) {
	tasks := make([]messages.Task, len(ev.Tasks))
	for i, t := range ev.Tasks {
		tasks[i] = t.Normal()
	}
	slices.SortFunc(tasks, func(a, b messages.Task) int { return cmp.Compare(a.Name, b.Name) })
	drains := make(map[string]string, len(ev.Drains))
	for _, d := range ev.Drains {
		drains[d.Agent] = cmp.Or(d.Reason, "an operator asked for it")
	}
	ev.Settings.V = 0
	if m.haveTasks && reflect.DeepEqual(tasks, m.tasks) && reflect.DeepEqual(drains, m.drains) && ev.Settings == m.settings {
		return
	}
	if m.leading {
		m.newVersions(tasks)
	}
	m.gen++
	for _, t := range slices.Concat(tasks, m.tasks) {
		m.dirtyRanks[t.Name], m.dirtyRoutes[t.Name] = true, true
	}
	m.haveTasks, m.tasks, m.settings, m.drains = true, tasks, ev.Settings, drains
	m.record("desired_changed", "", "", "%d tasks, %d agents to drain", len(tasks), len(drains))
	m.need("the desired state changed")
}

func (m *Machine) task(name string) (messages.Task, bool) {
	i, ok := slices.BinarySearchFunc(m.tasks, name, func(t messages.Task, n string) int { return cmp.Compare(t.Name, n) })
	if !ok {
		return messages.Task{}, false
	}
	return m.tasks[i], true
}

// replan brings the documents to what is wanted. What must find a place comes first,
// beside everything that stays; then, if the mode allows it, what may move.
func (m *Machine) replan() {
	why := m.planWhy
	defer func() { m.planWhy = "" }() // what this plan itself frees is not there yet
	m.prove()
	m.want()
	m.adoptReported()
	if m.listens() {
		return
	}
	free := m.settle()
	waiting := m.placeFree(free, why)
	blocked := m.advance()
	waiting = slices.DeleteFunc(waiting, func(r *replica) bool { return !r.waiting }) // an update found them a place
	defer func() {
		for _, r := range blocked {
			if r.home != nil && r.next == nil {
				r.spec.Task = r.home.task
			} else if ro := m.rollouts[r.spec.Task.Name]; r.home == nil && ro != nil {
				r.spec.Task = carried(ro.from, r.spec.Task)
			}
		}
	}()
	if m.settings.Mode == messages.Static {
		m.reserved = nil
		return
	}
	kept := len(m.reserved)
	m.improve(waiting)
	if kept > len(m.reserved) && len(waiting) > 0 {
		m.review(m.now.Add(sweepEvery)) // what was kept free is not any more
	}
}

// want compares what the tasks ask for with what there is.
func (m *Machine) want() {
	envs := make([]messages.Environment, 0, len(m.agents))
	for _, a := range m.allAgents() {
		envs = append(envs, a.env)
	}
	specs := alloc.Expand(m.tasks, envs)
	wanted := make(map[string]bool, len(specs))
	for _, s := range specs {
		wanted[s.ID] = true
		r := m.replicas[s.ID]
		if r == nil {
			r = &replica{id: s.ID, why: "it is new"}
			m.addReplica(r)
		}
		s.Task = m.version(r, s.Task)
		r.spec, r.wanted = s, true
	}
	for _, r := range m.allReplicas() {
		if wanted[r.id] {
			continue
		}
		r.wanted, r.waiting, r.why = false, false, "it is not wanted any more"
		if r.next != nil {
			m.retire(r.next, r.why)
		}
		if r.home != nil {
			m.retire(r.home, r.why)
		}
		if r.empty() {
			m.dropReplica(r)
		}
	}
}

// settle goes through what has a home: it gives up moves whose target closed, hands new
// task versions out where they fit, and returns, sorted, the replicas that need a place.
func (m *Machine) settle() (free []*replica) {
	for _, r := range m.allReplicas() {
		if !r.wanted {
			continue
		}
		if r.next != nil && !sameService(r.next.task, r.spec.Task) {
			m.rollback(r, "another version of its task came meanwhile")
		}
		if r.next != nil && (m.mustLeave(r.next.agent) || m.forbidden(r, r.next.agent) != "") {
			m.rollback(r, "its agent is not open any more")
		}
		if r.next != nil && !m.renew(r.next) {
			m.rollback(r, "the new version of its task has no room there")
		}
		if r.next != nil {
			continue
		}
		h := r.home
		if h == nil || m.mustLeave(h.agent) || m.forbidden(r, h.agent) != "" || m.failing(r) ||
			h.state == messages.ReplicaStopped || m.crowded(r) {
			free = append(free, r)
			continue
		}
		if !m.renew(h) {
			m.waits(r, "it serves an older version of its task: the new one has no room on "+h.agent.id)
		} else if r.waiting && !r.blocked {
			r.waiting, r.why = false, "it goes on where it is"
			m.dirtyRoutes[r.spec.Task.Name] = true
		}
	}
	return free
}

// renew gives h the new version of its task, if there is one, and reports false where
// that does not fit.
func (m *Machine) renew(h *hosting) bool {
	r := h.replica
	if h.gen == m.gen || reflect.DeepEqual(h.task, r.spec.Task) {
		return true
	}
	others := m.used(h.agent).Sub(h.need())
	if !r.spec.Task.Demand.Within(h.task.Demand) && !m.fits(h.agent, others, r.claimed(r.spec.Task.Demand)) {
		return false
	}
	if !sameService(h.task, r.spec.Task) { // and nothing to lose
		m.reopen(h, r.spec.Task)
	}
	h.task, h.work = r.spec.Task, r.spec.Task.WorkGFLOP()
	r.why = "new version of the task, on the same environment"
	m.record("replica_updated", h.agent.id, r.id, "%s", r.why)
	m.touch(h)
	return true
}

// crowded reports whether r shares its environment with a sibling that its task does
// not allow there any more, and is the one of the two that goes.
func (m *Machine) crowded(r *replica) bool {
	if r.spec.Task.Colocate {
		return false
	}
	for id, h := range r.home.agent.hosted {
		if id < r.id && h.task.Name == r.spec.Task.Name && !h.drain && h.replica.wanted {
			return true
		}
	}
	return false
}

// leaveWhy says why r is to find a place.
func (m *Machine) leaveWhy(r *replica, cause string) string {
	h := r.home
	if h == nil {
		return cause
	}
	if why := m.forbidden(r, h.agent); why != "" {
		return why
	}
	if why := m.closed(h.agent); why != "" {
		return "agent " + h.agent.id + " is " + why
	}
	if h.late {
		return m.lateWhy(h)
	}
	if h.state == messages.ReplicaFailed || h.state == messages.ReplicaStopped {
		return r.why
	}
	return cause
}

// placeFree finds places for the replicas that need one, beside everything that is
// placed, and returns those that found none.
func (m *Machine) placeFree(free []*replica, cause string) (waiting []*replica) {
	if len(free) == 0 {
		return nil
	}
	p := m.problem(free, nil)
	plan, ok := m.findPlaces(len(free), p)
	if ok && m.lowerClaims(plan) {
		p = m.problem(free, nil)
		plan, ok = m.findPlaces(len(free), p)
	}
	if !ok {
		return nil
	}
	at := make(map[string]alloc.Assignment, len(plan.Assignments))
	for _, a := range plan.Assignments {
		at[a.Replica] = a
	}
	text := make(map[string]string, len(plan.Waiting))
	for _, w := range plan.Waiting {
		text[w.Replica] = m.waitText(w)
	}
	for _, r := range free {
		why := m.leaveWhy(r, cause)
		if a, ok := at[r.id]; ok && m.admits(r, m.agents[a.Environment]) {
			m.place(r, m.agents[a.Environment], fmt.Sprintf("%s; best of what is open: delay %.4g ms, cost %.4g/h", why, a.Delay, a.Cost))
			continue
		}
		m.wait(r, why, cmp.Or(text[r.id], "its place is taken"))
		waiting = append(waiting, r)
	}
	return waiting
}

// wait follows that r must go and nothing can take it. A home that lives goes on: a
// drain or a failure of the machine beside is no reason to take a service down, nor is
// what was measured. But what the task forbids ends, and so does what no other environment may ever serve on
// an agent that leaves: it would never be empty.
func (m *Machine) wait(r *replica, leave, text string) {
	why := text
	if h := r.home; h != nil {
		why = leave + "; " + text
		if m.failing(r) { // its agent goes on trying
			r.retryAt = m.now.Add(m.calm.FailBackoffMax)
		}
		if m.ends(r, h.agent) != "" || r.spec.Pin == h.agent.id && m.leaves(h.agent) {
			m.retire(h, leave)
		}
	}
	m.waits(r, why)
}

func (m *Machine) waits(r *replica, why string) {
	if !r.waiting || r.why != why {
		agent := ""
		if r.home != nil {
			agent = r.home.agent.id
		}
		m.record("waiting", agent, r.id, "%s", why)
		m.dirtyRoutes[r.spec.Task.Name] = true
	}
	r.waiting, r.why = true, why
}

// lowerClaims lets replicas that wait for room for their measured load ask for what
// they declared: a place that may become hot is better than none.
func (m *Machine) lowerClaims(plan alloc.Plan) (lowered bool) {
	for _, w := range plan.Waiting {
		if r := m.replicas[w.Replica]; r != nil && r.claim.v > r.spec.Task.Demand.Compute {
			r.claim = latch{}
			lowered = true
		}
	}
	return lowered
}

// solveEvery is how long there is between two full solves, for each replica that may
// move: ten times what a solve takes. In a small fleet it is Calm.Cycle.
const solveEvery = time.Millisecond

// fewFree: so many replicas at most, or a quarter of all, are placed by regret alone,
// beside what is there; more (a fleet that begins) are worth a search.
const fewFree = 8

// findPlaces solves the problem of those that need a place, beside everything else.
func (m *Machine) findPlaces(free int, p alloc.Problem) (alloc.Plan, bool) {
	if free <= max(fewFree, len(m.replicas)/4) {
		return m.checked(m.placer.Repair(p, alloc.Options{}))
	}
	return m.checked(m.placer.Solve(p, alloc.Options{}))
}

func (m *Machine) checked(plan alloc.Plan, err error) (alloc.Plan, bool) {
	if err != nil {
		// All parts were checked when they were read. If one is wrong all the same, what
		// is placed stays placed.
		m.record("plan_failed", "", "", "%v", err)
		m.placer, m.mover = alloc.Solver{}, alloc.Solver{}
		return plan, false
	}
	return plan, true
}

// waitText is one line of why a replica waits: what would place it, and what stands in
// the way of the first few environments.
func (m *Machine) waitText(w alloc.Waiting) string {
	const most = 3
	var parts []string
	for i, r := range w.Reasons {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(w.Reasons)-most))
			break
		}
		parts = append(parts, r.Environment+": "+r.Text)
	}
	text := "it fits nowhere"
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, "; ") + ")"
	}
	label := m.keptOff[w.Replica]
	if w.Fix != "" && (label == "" || !strings.Contains(w.Fix, label)) {
		text += "; fix: " + w.Fix
	}
	return m.plain(w.Replica, text)
}
