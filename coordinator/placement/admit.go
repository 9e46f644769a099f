package placement

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// forbidden says why the task itself does not admit a, whatever the room; "" if it does.
func (m *Machine) forbidden(r *replica, a *agent) string {
	return cmp.Or(unsuited(r, a), overLimit(r.spec.Task, m.delay(r.spec.Task, a.env)))
}

func overLimit(t messages.Task, delay float64) string {
	if t.Limit > 0 && !within(delay, t.Limit) {
		return fmt.Sprintf("a delay of %.4g ms is over its limit of %.4g ms", delay, t.Limit)
	}
	return ""
}

// ends says why r must not go on on a, even if it finds no other place. A delay that was
// only measured is a reason to look for a better one, and none to take down what serves:
// it may pass, and late is better than never.
func (m *Machine) ends(r *replica, a *agent) string {
	if why := unsuited(r, a); why != "" {
		return why
	}
	if overLimit(r.spec.Task, alloc.Delay(r.spec.Task, a.env)) == "" {
		return ""
	}
	return overLimit(r.spec.Task, m.delay(r.spec.Task, a.env))
}

// unsuited says what a has not that r asks for, whatever the delay.
func unsuited(r *replica, a *agent) string {
	t, e := r.spec.Task, a.env
	switch {
	case r.spec.Pin != "" && r.spec.Pin != a.id:
		return "it is pinned to " + r.spec.Pin
	case r.spec.Site != "" && r.spec.Site != e.Site, len(t.Sites) > 0 && !slices.Contains(t.Sites, e.Site):
		return "site " + e.Site + " is not for it"
	case len(t.Tiers) > 0 && !slices.Contains(t.Tiers, e.Tier):
		return "tier " + string(e.Tier) + " is not for it"
	case !e.Takes(t) && t.Run != nil:
		return "the agent does not run what tasks bring; start it with --allow-run"
	case !e.Takes(t):
		return "the agent has no handler " + t.HandlerName()
	}
	for _, k := range sorted(t.Labels) {
		if v, ok := e.Labels[k]; !ok || v != t.Labels[k] {
			return "the environment has no label " + k + "=" + t.Labels[k]
		}
	}
	return ""
}

// admits reports whether r may be put on a now. The plan knows most of it; this is what
// keeps the promise.
func (m *Machine) admits(r *replica, a *agent) bool {
	if a == nil || m.closed(a) != "" || a.hosted[r.id] != nil {
		return false
	}
	if !r.spec.Task.Colocate {
		for _, h := range a.hosted {
			if h.task.Name == r.spec.Task.Name && !h.drain {
				return false
			}
		}
	}
	return m.fits(a, m.used(a), r.claimed(r.spec.Task.Demand))
}
