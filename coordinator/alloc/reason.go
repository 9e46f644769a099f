package alloc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// obstacle is one thing that keeps a replica off an environment, in numbers only:
// large fleets have far more of them than anybody reads.
type obstacle struct {
	what       Constraint
	need, have float64
}

// obstacles returns everything that keeps r, which is not on e, off e as things
// stand in s; none means that it has room there.
func (s *state) obstacles(r, e int) []obstacle {
	rep, env := &s.in.reps[r], &s.in.envs[e]
	var out []obstacle
	add := func(broken bool, what Constraint, need, have float64) {
		if broken {
			out = append(out, obstacle{what, need, have})
		}
	}
	add(env.Closed != "", ConstraintClosed, 0, 0)
	add(rep.Pin != "" && rep.Pin != env.ID || rep.Task.Robot != "" && rep.Task.Robot != env.ID, ConstraintPinned, 0, 0)
	add(rep.Site != "" && rep.Site != env.Site || !admitsSite(rep.Task, env.Site), ConstraintSite, 0, 0)
	add(!admitsTier(rep.Task, env.Tier), ConstraintTier, 0, 0)
	add(!hasLabels(rep.Task, env.Labels), ConstraintLabels, 0, 0)
	add(!env.Takes(rep.Task), ConstraintHandler, 0, 0)
	for k, need := range rep.need {
		add(!fits(s.used[e][k]+need, env.cap[k]), kinds[k].constraint, need, max(0, env.cap[k]-s.used[e][k]))
	}
	work, transfer := rep.Task.WorkGFLOP(), rep.Task.TransferKbit()
	delay, measured := s.in.delay(&rep.Task, e) // what was measured there can run there
	noCompute, noNetwork := !measured && work > 0 && env.Capacity.Compute == 0, !measured && transfer > 0 && env.Capacity.Network == 0
	add(noCompute && rep.need[0] == 0, ConstraintCompute, work, 0)
	add(noNetwork && rep.need[2] == 0, ConstraintNetwork, transfer, 0)
	if !noCompute && !noNetwork {
		add(!usable(delay) || !withinLimit(delay, rep.Task.Limit), ConstraintLimit, delay, rep.Task.Limit)
		cost := s.in.shareCost(rep, e) + env.price
		score := Score(s.in.settings, delay, cost) + Penalty(rep.Task, env.Environment.Environment)
		add(usable(delay) && (!usable(cost) || !usable(score)), ConstraintCost, cost, unusable)
	}
	add(s.in.apart[rep.task] && s.held[[2]int{rep.task, e}] > 0, ConstraintApart, 0, 0)
	return out
}

// text says an obstacle to people, in one line that stands for itself.
func (s *state) text(r, e int, o obstacle) string {
	rep, env := &s.in.reps[r], &s.in.envs[e]
	switch o.what {
	case ConstraintClosed:
		return fmt.Sprintf("%s is closed: %s", env.ID, env.Closed)
	case ConstraintPinned:
		return "pinned to " + cmp.Or(rep.Pin, rep.Task.Robot)
	case ConstraintSite:
		return fmt.Sprintf("%s is in site %s; allowed is %s", env.ID, env.Site, cmp.Or(rep.Site, strings.Join(rep.Task.Sites, ", ")))
	case ConstraintTier:
		return fmt.Sprintf("%s is of tier %s; allowed is %s", env.ID, env.Tier, joinTiers(rep.Task.Tiers))
	case ConstraintLabels:
		return fmt.Sprintf("%s lacks %s", env.ID, strings.Join(missingLabels(rep.Task, env.Environment.Environment), ", "))
	case ConstraintHandler:
		if rep.Task.Run != nil {
			return env.ID + " does not run what tasks bring (its agent was started without --allow-run)"
		}
		return fmt.Sprintf("%s has no handler %s; it has %s", env.ID, rep.Task.HandlerName(), cmp.Or(strings.Join(env.Handlers, ", "), "none"))
	case ConstraintLimit:
		if !usable(o.need) {
			return fmt.Sprintf("its delay on %s, %s ms, is more than a plan can weigh", env.ID, num(o.need))
		}
		if _, measured := s.in.delay(&rep.Task, e); measured {
			return fmt.Sprintf("delay on %s %s ms as measured (%s by the model), limit %s ms", env.ID, num(o.need),
				num(Delay(rep.Task, env.Environment.Environment)), num(o.have))
		}
		return fmt.Sprintf("delay on %s %s ms, limit %s ms", env.ID, num(o.need), num(o.have))
	case ConstraintCost:
		return fmt.Sprintf("its cost on %s, %s per hour, is more than a plan can weigh", env.ID, num(o.need))
	case ConstraintApart:
		return fmt.Sprintf("%s has %s, and replicas of a task keep apart", env.ID, s.sibling(r, e))
	}
	k := slices.IndexFunc(kinds[:], func(k resourceKind) bool { return k.constraint == o.what })
	if rep.need[k] == 0 {
		return fmt.Sprintf("%s has no %s at all, and a request needs some", env.ID, o.what)
	}
	return s.capacityText(r, e, k)
}

// capacityText says what is needed of resource k, what there is and where it went.
func (s *state) capacityText(r, e, k int) string {
	env := &s.in.envs[e]
	total, foreign, used := vector(env.Capacity)[k], vector(env.Foreign)[k], s.used[e][k]
	var b strings.Builder
	fmt.Fprintf(&b, "needs %s %s; %s has %s", num(s.in.reps[r].need[k]), kinds[k].unit, env.ID, num(total))
	if fits(s.in.reps[r].need[k], total) {
		if may := (1 - s.in.settings.Reserve) * total; may != total {
			fmt.Fprintf(&b, ", of which %s may be planned", num(may))
		}
		if foreign > 0 {
			fmt.Fprintf(&b, ", %s are used by others", num(foreign))
		}
		if used > 0 {
			fmt.Fprintf(&b, ", %s are taken by %s", num(used), s.residents(e))
		}
	}
	return b.String()
}

// residents names who is on e, the first three.
func (s *state) residents(e int) string {
	var names []string
	for _, x := range s.on[e] {
		if len(names) == 3 {
			names = append(names, fmt.Sprintf("%d more", len(s.on[e])-3))
			break
		}
		names = append(names, s.in.reps[x].ID)
	}
	return strings.Join(names, ", ")
}

func (s *state) sibling(r, e int) string {
	for _, x := range s.on[e] {
		if s.in.reps[x].task == s.in.reps[r].task {
			return s.in.reps[x].ID
		}
	}
	return "a replica of the task"
}

// reason joins the obstacles on e to one reason: the first names the constraint.
func (s *state) reason(r, e int, obs []obstacle) Reason {
	out := Reason{Environment: s.in.envs[e].ID, Constraint: obs[0].what, Need: obs[0].need, Have: obs[0].have}
	texts := make([]string, 0, len(obs))
	for _, o := range obs {
		t := s.text(r, e, o)
		texts = append(texts, t)
		if o.what == ConstraintClosed || o.what == ConstraintPinned {
			break // that it does not fit there either is of no interest
		}
	}
	out.Text = strings.Join(texts, "; ")
	return out
}

func joinTiers(tiers []messages.Tier) string {
	out := make([]string, len(tiers))
	for i, t := range tiers {
		out[i] = string(t)
	}
	return strings.Join(out, ", ")
}

// MaxReasons bounds Waiting.Reasons: of more environments only those that come
// nearest to having room are named. Explain names all.
const MaxReasons = 64

// A fleet of thousands in which much waits must not take longer to explain than to
// solve: the first fixGroups kinds of waiting replicas are looked at on fixNear
// environments each, the others on fixFew.
const (
	fixGroups = 64
	fixNear   = 256
	fixFew    = 16
)

// explainWaiting fills in why the waiting wait and what would help.
func (s *state) explainWaiting(p Problem, plan *Plan) {
	type known struct {
		replica int
		reasons []Reason
		fix     string
	}
	groups := make(map[groupKey][]known) // equal replicas wait for equal reasons
	checks, distinct := fixChecks, 0
	for i := range plan.Waiting {
		w := &plan.Waiting[i]
		r, _ := s.in.replica(w.Replica)
		rep := &s.in.reps[r]
		key := groupKey{rep.task, rep.Pin, rep.Site}
		j := slices.IndexFunc(groups[key], func(k known) bool { return sameTask(s.in.reps[k.replica].Task, rep.Task) })
		if j < 0 {
			j = len(groups[key])
			n := fixNear
			if distinct++; distinct > fixGroups {
				n = fixFew
			}
			remedies := s.fixable(r, n)
			groups[key] = append(groups[key], known{r, s.reasons(r, remedies), s.fix(p, r, remedies, &checks)})
		}
		w.Reasons, w.Fix = groups[key][j].reasons, groups[key][j].fix
	}
}

// reasons are those of the environments that come nearest, sorted by environment.
// What is pinned has one only, if its environment exists.
func (s *state) reasons(r int, near []remedy) []Reason {
	var envs []int
	seen := make(map[int]bool)
	add := func(e int) {
		if len(envs) < MaxReasons && !seen[e] {
			seen[e] = true
			envs = append(envs, e)
		}
	}
	if e, ok := s.in.byID[s.in.reps[r].Pin]; ok {
		add(e)
	} else {
		for _, n := range near {
			add(n.env)
		}
		for e := range s.in.envs {
			add(e)
		}
	}
	slices.Sort(envs)
	var out []Reason
	for _, e := range envs {
		if obs := s.obstacles(r, e); len(obs) > 0 {
			out = append(out, s.reason(r, e, obs))
		}
	}
	return out
}
