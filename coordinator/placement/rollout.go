package placement

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// rollout is the way of a task to a new version: one whose service differs, so that
// replicas must be opened anew. What only the planner reads is handed out at once.
//
//   - Make before break: a replica that serves gets the new version on another environment
//     and takes over when it is ready there. Where no other has room, or it is pinned, the
//     old version stops first, if the task allows that (messages.Interrupt); else the
//     replica waits with that reason and goes on serving the old version.
//   - At most one replica in ten, one at least, is on its way at a time: until its new
//     version has been ready for Calm.Soak. What fails by then failed the update.
//   - What must be placed anew meanwhile gets the old version, if that ever served, until
//     one replica has served the new one for Calm.Soak: no death of a machine is to give an
//     unproven version to what served well. If the old one has no place any more, the new
//     one may look for one.
//   - A replica whose new version fails goes back to the old one at once. The rollout goes on
//     after a back-off; after Calm.FailLimit failures it stops for good, and what must be
//     placed anew gets the old version. Whoever serves the new version well keeps it: to go
//     back altogether, apply the old version, which is a rollout like any other.
//
// After an election nothing is known of failures, and the new leader tries again.
type rollout struct {
	from   messages.Task // what served before, to go back to
	good   bool          // it has served
	proven bool          // the new one has, for Calm.Soak
	fails  int
	until  time.Time // it rests until then
	paused string    // why it goes on no more; "" while it does
}

// rolloutShare is how many replicas there are for each one that is on its way.
const rolloutShare = 10

func (ro *rollout) held(now time.Time) bool { return ro.paused != "" || now.Before(ro.until) }

// prefersOld reports whether what needs a place gets the version before.
func (ro *rollout) prefersOld(now time.Time) bool { return ro.held(now) || ro.good && !ro.proven }

func sameService(a, b messages.Task) bool { return reflect.DeepEqual(a.Service(), b.Service()) }

// newVersions begins a rollout of every task whose service changes.
func (m *Machine) newVersions(tasks []messages.Task) {
	for _, t := range tasks {
		old, ok := m.task(t.Name)
		if !ok || sameService(old, t) {
			continue
		}
		next := &rollout{from: old}
		if ro := m.rollouts[t.Name]; ro != nil { // the version before is not proven
			next.from, next.good = ro.from, ro.good
			if sameService(ro.from, t) {
				next.from = t // it goes back, and from there no further
			}
		}
		m.rollouts[t.Name] = next
		m.forgive(t.Name)
		m.recordTask("update_begun", t.Name, "task %s: revision %d follows %d", t.Name, t.Revision, old.Revision)
	}
}

// prove looks which versions have served: those before, and the new ones for long enough.
func (m *Machine) prove() {
	for _, name := range sorted(m.rollouts) {
		ro := m.rollouts[name]
		newest, ok := m.task(name)
		if !ok {
			continue
		}
		for _, r := range m.ofTask(name) {
			h := r.home
			if h == nil {
				continue
			}
			ro.good = ro.good || h.proved && sameService(h.task, ro.from)
			ro.proven = ro.proven || h.serves() && m.serves(h, newest) && !m.soaks(r)
		}
	}
}

// soaks reports whether r has been ready for too short a time to count.
func (m *Machine) soaks(r *replica) bool {
	return !r.readySince.IsZero() && m.now.Sub(r.readySince) < m.calm.Soak
}

// onItsWay notes whether the home of r is to prove a version that its task did not have
// before.
func (m *Machine) onItsWay(r *replica) {
	ro := m.rollouts[r.home.task.Name]
	r.updating = ro != nil && !sameService(r.home.task, ro.from)
}

// carried is the version old as it is wanted while newest is on its way: what only the
// planner reads is of the newest. The demand is not: what serves takes what it takes.
func carried(old, newest messages.Task) messages.Task {
	old.Replicas, old.Per, old.Priority, old.Robot, old.Colocate = newest.Replicas, newest.Per, newest.Priority, newest.Robot, newest.Colocate
	old.Tiers, old.Sites, old.Labels = newest.Tiers, newest.Sites, newest.Labels
	old.Limit, old.Cost, old.Deadline, old.Interrupt = newest.Limit, newest.Cost, newest.Deadline, newest.Interrupt
	return old
}

// version is what r is to serve for now: the newest version, or, while that is on its
// way to others or failed, the one that it has.
func (m *Machine) version(r *replica, newest messages.Task) messages.Task {
	ro, h := m.rollouts[newest.Name], r.home
	if ro == nil && h != nil && !m.serves(h, newest) {
		ro = m.resumeUpdate(h, newest)
	}
	if ro != nil && ro.prefersOld(m.now) && adrift(r) {
		return carried(ro.from, newest)
	}
	if h == nil || ro == nil {
		return newest
	}
	if m.serves(h, newest) {
		r.blocked = false
		return newest
	}
	if r.next != nil && m.serves(r.next, newest) {
		return newest
	}
	nothingToLose := h.state == messages.ReplicaFailed || h.state == messages.ReplicaStopped || h.agent.state == messages.AgentLost
	if nothingToLose && !ro.held(m.now) {
		return newest
	}
	return carried(h.task, newest)
}

// resumeUpdate goes on with an update that began before the election: h has the version
// before. Of those that have the newest nobody knows for how long.
func (m *Machine) resumeUpdate(h *hosting, newest messages.Task) *rollout {
	ro := &rollout{from: h.task, good: h.proved}
	m.rollouts[newest.Name] = ro
	for _, r := range m.ofTask(newest.Name) {
		if r.home != nil {
			m.onItsWay(r)
		}
	}
	return ro
}

// serves reports whether h was told the service of the newest version, and nothing else:
// what it finds is kept for as long as that version is the newest. Two versions otherwise
// are compared by sameService.
func (m *Machine) serves(h *hosting, newest messages.Task) bool {
	if h.gen == m.gen {
		return true
	}
	if reflect.DeepEqual(h.task, newest) {
		h.gen = m.gen
		return true
	}
	return sameService(h.task, newest)
}

// advance takes every rollout a step further. It returns the replicas that would go on,
// but cannot: until the end of the plan they ask for the new version.
func (m *Machine) advance() (blocked []*replica) {
	for _, name := range sorted(m.rollouts) {
		newest, ok := m.task(name)
		if !ok {
			delete(m.rollouts, name)
			continue
		}
		blocked = append(blocked, m.roll(m.rollouts[name], newest)...)
	}
	return blocked
}

func (m *Machine) roll(ro *rollout, newest messages.Task) (blocked []*replica) {
	var todo []*replica
	wanted, busy, others, done := 0, 0, 0, 0
	for _, r := range m.ofTask(newest.Name) {
		if !r.wanted {
			continue
		}
		wanted++
		h := r.home
		switch {
		case r.next != nil && m.serves(r.next, newest):
			busy++
		case r.next != nil:
			others++ // it moves; its turn comes after that
		case adrift(r) && !ro.proven && r.waiting && !sameService(r.spec.Task, newest):
			todo = append(todo, r) // the old version has no place any more
		case h == nil, adrift(r) && !ro.proven:
			others++ // nor has the new one; or what is lost is told when it loses nothing by it
		case m.serves(h, newest) && h.agent.state == messages.AgentLost:
		case !m.serves(h, newest) && ro.good && !ro.proven && (h.state == messages.ReplicaPending || h.state == messages.ReplicaLoading):
			others++ // it was just placed with what is known to serve
		case !m.serves(h, newest):
			todo = append(todo, r)
		case r.updating && !h.serves():
			busy++
		case r.updating && m.soaks(r):
			busy++
			m.review(r.readySince.Add(m.calm.Soak))
		default:
			r.updating = false
			done++
		}
	}
	if len(todo)+busy+others == 0 && ro.paused == "" {
		delete(m.rollouts, newest.Name)
		if done > 0 {
			m.recordTask("update_done", newest.Name, "task %s: every replica serves revision %d", newest.Name, newest.Revision)
		}
		return nil
	}
	if ro.held(m.now) {
		if ro.paused == "" {
			m.review(ro.until)
		}
		return nil
	}
	// Those that could not go on the last time do not keep the others waiting.
	slices.SortStableFunc(todo, func(a, b *replica) int { return cmp.Compare(rankOf(a), rankOf(b)) })
	todo = todo[:min(len(todo), max(0, max(1, wanted/rolloutShare)-busy))]
	for _, r := range todo {
		r.spec.Task = newest
	}
	m.moveUpdates(todo)
	for _, r := range todo {
		switch {
		case r.next != nil, r.home != nil && m.serves(r.home, newest):
		case (!adrift(r) || r.home != nil && ro.proven) && m.restart(r, newest):
		default:
			blocked = append(blocked, r)
		}
	}
	if len(blocked) > 0 && len(blocked) < wanted {
		m.reviewOnce(blocked)
	}
	return blocked
}

// adrift reports whether r has no home that lives.
func adrift(r *replica) bool { return r.home == nil || r.home.agent.state == messages.AgentLost }

func rankOf(r *replica) int {
	if r.blocked {
		return 1
	}
	return 0
}

// reviewOnce lets others try where some just found that they cannot go on.
func (m *Machine) reviewOnce(blocked []*replica) {
	for _, r := range blocked {
		if !r.blocked {
			r.blocked = true
			m.review(m.now.Add(sweepEvery))
		}
	}
}

// moveUpdates brings the new version to another environment, where one has room.
func (m *Machine) moveUpdates(todo []*replica) {
	movable := slices.DeleteFunc(slices.Clone(todo), func(r *replica) bool { return !adrift(r) && (r.spec.Pin != "" || !r.home.serves()) })
	if len(movable) == 0 {
		return
	}
	plan, ok := m.findPlaces(len(movable), m.problem(movable, nil))
	if !ok {
		return
	}
	for _, a := range plan.Assignments {
		r, to := m.replicas[a.Replica], m.agents[a.Environment]
		if r == nil || !slices.Contains(movable, r) || !m.admits(r, to) {
			continue
		}
		r.updating, r.blocked = true, false
		m.place(r, to, fmt.Sprintf("new version of the task, revision %d; delay %.4g ms", r.spec.Task.Revision, a.Delay))
	}
}

// restart gives r the new version where it is: the old one stops first. It reports
// false where that is not allowed, or has no room.
func (m *Machine) restart(r *replica, newest messages.Task) bool {
	h := r.home
	others := m.used(h.agent).Sub(h.need())
	why := ""
	switch {
	case !newest.Demand.Within(h.task.Demand) && !m.fits(h.agent, others, r.claimed(newest.Demand)):
		why = "the new one has no room on " + h.agent.id + " even alone, and none elsewhere"
	case m.ends(r, h.agent) != "":
		why = "the new one cannot run on " + h.agent.id + " (" + m.ends(r, h.agent) + "), and has no room elsewhere"
	case h.serves() && !interruptible(r):
		why = "old and new do not both fit, and the task may not pause; `interrupt: allow` lets it"
	}
	if why != "" {
		m.waits(r, "it serves an older version of its task: "+why)
		return false
	}
	r.blocked, r.waiting = false, false
	r.why = fmt.Sprintf("new version of the task, revision %d, on the same environment: the old one stops first", newest.Revision)
	m.reopen(h, newest)
	m.record("replica_updated", h.agent.id, r.id, "%s", r.why)
	r.updating = true
	return true
}

// interruptible reports whether the task of r allows that it pauses.
func interruptible(r *replica) bool {
	switch r.spec.Task.Interrupt {
	case messages.InterruptAllow:
		return true
	case messages.InterruptPinned:
		return r.spec.Pin != ""
	}
	return false
}

// reopen tells an agent to serve another version instead: it stops the one and opens
// the other. The routes go out before that.
func (m *Machine) reopen(h *hosting, t messages.Task) {
	if !h.task.Demand.Within(t.Demand) {
		h.before = h.before.Max(h.task.Demand)
	}
	h.task, h.work, h.gen, h.since = t, t.WorkGFLOP(), 0, m.now
	h.changed, h.adopted, h.proved, h.late, h.reopens = true, false, false, false, h.state == messages.ReplicaReady
	h.state, h.status.State = messages.ReplicaPending, messages.ReplicaPending
	h.replica.readySince, h.replica.failedSince = time.Time{}, time.Time{}
	m.onItsWay(h.replica)
	m.touch(h)
}

// updateFailed follows the failure of a new version: the replica goes back to the old
// one, where it has left it already, and the rollout rests or stops.
func (m *Machine) updateFailed(r *replica, why string) {
	ro := m.rollouts[r.spec.Task.Name]
	r.updating = false
	if ro == nil {
		return
	}
	ro.fails++
	agent := ""
	if h := r.home; h != nil && !sameService(h.task, ro.from) {
		agent = h.agent.id
		back := ro.from
		if newest, ok := m.task(back.Name); ok {
			back = carried(back, newest)
		}
		if back.Demand.Within(h.task.Demand) || m.fits(h.agent, m.used(h.agent).Sub(h.need()), r.claimed(back.Demand)) {
			r.spec.Task = back
			r.why = "back to the version before: the new one failed: " + why
			r.fails = 0
			m.reopen(h, back)
		}
	}
	m.record("update_failed", agent, r.id, "%s", why)
	if ro.fails >= m.calm.FailLimit {
		ro.paused = fmt.Sprintf("the new version failed %d times, the last time %s: %s", ro.fails, r.id, why)
		m.record("update_paused", "", r.id, "%s; apply another version, or the old one", ro.paused)
		m.dirtyRoutes[r.spec.Task.Name] = true
		m.forgive(r.spec.Task.Name)
		return
	}
	ro.until = m.now.Add(backoff(m.calm.FailBackoff, m.calm.FailBackoffMax, ro.fails))
	m.review(ro.until)
}

// forgive ends what a version that is given up, or replaced, did to its replicas: it was
// the version and not the environment that failed, and nobody waits for it any more.
func (m *Machine) forgive(task string) {
	for _, r := range m.ofTask(task) {
		for _, env := range r.tried {
			delete(r.avoid, env)
		}
		r.tried = nil
		if r.blocked && r.home != nil {
			r.blocked, r.waiting, r.why = false, false, "it goes on with the version that it has"
			m.dirtyRoutes[task] = true
		}
	}
}
