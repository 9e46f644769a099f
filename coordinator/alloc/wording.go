package alloc

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// wording collects what a fix changes, as text and as changes to a problem.
type wording struct {
	s     *state
	r, e  int
	short []int // resources that are short
	size  float64
	texts []string
	why   []string
	does  []func(*Problem)
}

func (w *wording) String() string {
	out := strings.Join(w.texts, " and ")
	if len(w.why) > 0 {
		out += ": " + w.s.in.reps[w.r].Task.Name + " " + strings.Join(w.why, "; ")
	}
	return out
}

func (w *wording) change(p *Problem) {
	for _, f := range w.does {
		f(p)
	}
}

func (w *wording) add(size float64, text string, f func(*Problem)) {
	w.size += size
	w.texts = append(w.texts, text)
	w.does = append(w.does, f)
}

// rule words a change of the environment or of the task.
func (w *wording) rule(size float64, text string, env func(*Environment), task func(*messages.Task)) {
	w.add(size, text, func(p *Problem) {
		if env != nil {
			w.editEnvironment(p, env)
		}
		if task != nil {
			w.editTask(p, task)
		}
	})
}

func (w *wording) editEnvironment(p *Problem, f func(*Environment)) {
	for i := range p.Environments {
		if p.Environments[i].ID == w.s.in.envs[w.e].ID {
			f(&p.Environments[i])
		}
	}
}

func (w *wording) editTask(p *Problem, f func(*messages.Task)) {
	for i := range p.Replicas {
		if p.Replicas[i].Task.Name == w.s.in.reps[w.r].Task.Name {
			f(&p.Replicas[i].Task)
		}
	}
}

// reserve words a lower reserve.
func (w *wording) reserve(to float64) {
	now := w.s.in.settings.Reserve
	w.because()
	w.add(now-to, fmt.Sprintf("set resource_reserve_ratio to %s (now %s)", num(to), num(now)), func(p *Problem) {
		p.Settings.Reserve = to
	})
}

// capacity words more of what is short; the size is counted by the caller.
func (w *wording) capacity(to messages.Resources) {
	env := &w.s.in.envs[w.e]
	var parts []string
	for _, k := range w.short {
		parts = append(parts, num(vector(to)[k]-vector(env.Capacity)[k])+" "+kinds[k].unit)
	}
	w.because()
	w.add(0, "add "+joinAnd(parts)+" to "+env.ID, func(p *Problem) {
		w.editEnvironment(p, func(x *Environment) { x.Capacity = to })
	})
}

// limit words a looser limit.
func (w *wording) limit(delay float64) {
	now := w.s.in.reps[w.r].Task.Limit
	to := ceilDigits(delay, 6)
	where := w.s.in.envs[w.e].ID
	if _, measured := w.s.in.delay(&w.s.in.reps[w.r].Task, w.e); measured {
		where += ", as measured"
	}
	w.add((to-now)/now, fmt.Sprintf("raise limit from %s ms to %s ms (%s)", num(now), num(to), where), func(p *Problem) {
		w.editTask(p, func(t *messages.Task) { t.Limit = to })
	})
}

// because says what is short and where it went.
func (w *wording) because() {
	for _, k := range w.short {
		w.why = append(w.why, w.s.capacityText(w.r, w.e, k))
	}
}

// amount is the field of resource k in r.
func amount(r *messages.Resources, k int) *float64 {
	return [resources]*float64{&r.Compute, &r.Storage, &r.Network}[k]
}

func joinAnd(parts []string) string {
	if n := len(parts); n > 2 {
		parts = append(slices.Clone(parts[:n-2]), parts[n-2]+" and "+parts[n-1])
		return strings.Join(parts, ", ")
	}
	return strings.Join(parts, " and ")
}
