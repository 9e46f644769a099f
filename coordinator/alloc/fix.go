package alloc

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// fixChecks bounds how many fixes one Solve confirms by solving again, and
// fixCheckSize up to how many pairs of replica and environment it does so. Beyond
// that a fix is what the constraints say: with it the replica has room beside
// everything that is placed.
const (
	fixChecks    = 16
	fixCheckSize = 4_000
)

// remedy is a change under which a replica would have room on an environment.
type remedy struct {
	env  int
	how  remedyKind
	size float64 // relative size of the change, for choosing the smallest
}

type remedyKind uint8

const (
	addCapacity remedyKind = iota
	lowerReserve
	oneMore // another environment like this one
)

// The sizes of changes that have no amount, beside those that have (0.1 is ten per
// cent more of something): an agent's handler is configuration, opening the task to
// a tier, site or label changes what was asked for, another machine costs money.
const (
	sizeHandler = 0.5
	sizeRule    = 1
	sizeMachine = 1.5
)

// near lists at most n environments that a fix for r may be about: where it could
// run alone, then others that nothing keeps it from for good.
func (s *state) near(r, n int) []int {
	rep := &s.in.reps[r]
	var out []int
	for _, c := range rep.cands {
		if len(out) < n {
			out = append(out, c.env)
		}
	}
	for e := range s.in.envs {
		if len(out) >= n {
			break
		}
		env := &s.in.envs[e]
		if rep.Pin != "" && rep.Pin != env.ID || rep.Site != "" && rep.Site != env.Site {
			continue
		}
		if _, ok := s.in.find(r, e); !ok {
			out = append(out, e)
		}
	}
	return out
}

// fixable returns the remedies for r on the n nearest environments, the smallest first.
func (s *state) fixable(r, n int) []remedy {
	rep := &s.in.reps[r]
	var out []remedy
	for _, e := range s.near(r, n) {
		for _, how := range []remedyKind{addCapacity, lowerReserve} {
			if _, _, size, ok := s.remedy(r, e, how); ok {
				out = append(out, remedy{e, how, size})
			}
		}
	}
	if rep.Pin == "" && rep.Task.Robot == "" && len(rep.cands) > 0 {
		like := slices.MinFunc(rep.cands, func(a, b candidate) int { return cmp.Compare(a.score, b.score) })
		out = append(out, remedy{like.env, oneMore, sizeMachine})
	}
	slices.SortStableFunc(out, func(a, b remedy) int {
		return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.env, b.env))
	})
	return out
}

// fix words the smallest remedy that holds when the problem is solved again with it.
func (s *state) fix(p Problem, r int, from []remedy, checks *int) string {
	rep := &s.in.reps[r]
	for _, m := range from {
		texts, change, _, _ := s.remedy(r, m.env, m.how)
		small := len(s.in.reps)*len(s.in.envs) <= fixCheckSize
		if small && *checks > 0 {
			*checks--
			if !s.works(p, r, change) {
				continue
			}
		}
		return texts
	}
	if len(from) > 0 { // proven by the constraints, only not found again by the solver
		texts, _, _, _ := s.remedy(r, from[0].env, from[0].how)
		return texts
	}
	need := fmt.Sprintf("%s TFLOPS, %s GB and %s Mbps that may be planned", num(rep.need[0]), num(rep.need[1]), num(rep.need[2]))
	switch robot := cmp.Or(rep.Pin, rep.Task.Robot); {
	case robot != "":
		return fmt.Sprintf("start an agent %s with at least %s", robot, need)
	case rep.Site != "":
		return fmt.Sprintf("start an agent in site %s with at least %s", rep.Site, need)
	}
	return "start an agent with at least " + need
}

// works reports whether r finds a place, beside all that have one, under a change.
func (s *state) works(p Problem, r int, change func(*Problem)) bool {
	q := p
	q.Environments = slices.Clone(p.Environments)
	q.Replicas = nil
	for _, x := range p.Replicas {
		i, _ := s.in.replica(x.ID)
		if i == r || s.at[i] >= 0 {
			q.Replicas = append(q.Replicas, x)
		}
	}
	change(&q)
	in, err := compile(q)
	return err == nil && len(in.solve().waiting()) == 0
}

// remedy returns what must change so that r has room on e, in words, as a change to
// a problem (whose slices the caller has cloned) and as a relative size. It is not
// ok where no change of that kind would do.
func (s *state) remedy(r, e int, how remedyKind) (text string, change func(*Problem), size float64, ok bool) {
	if how == oneMore {
		text, change = s.oneMore(e)
		return text, change, sizeMachine, true
	}
	rep, env := &s.in.reps[r], &s.in.envs[e]
	if rep.Task.Class == messages.Action && env.Tier != messages.Robot {
		return "", nil, 0, false // an action is the robot's own: off it, its limit has lost its sense
	}
	obs := s.obstacles(r, e)
	if how == lowerReserve && s.in.settings.Reserve == 0 {
		return "", nil, 0, false
	}
	w := &wording{s: s, r: r, e: e}
	cap, reserve := env.Capacity, s.in.settings.Reserve
	for _, o := range obs {
		switch o.what {
		case ConstraintClosed:
			w.rule(sizeRule, "open "+env.ID+" ("+env.Closed+")", func(x *Environment) { x.Closed = "" }, nil)
		case ConstraintSite:
			if rep.Site != "" && rep.Site != env.Site {
				return "", nil, 0, false
			}
			w.rule(sizeRule, "add "+env.Site+" to the sites of "+rep.Task.Name, nil,
				func(t *messages.Task) { t.Sites = append(slices.Clone(t.Sites), env.Site) })
		case ConstraintTier:
			w.rule(sizeRule, "add "+string(env.Tier)+" to the tiers of "+rep.Task.Name, nil,
				func(t *messages.Task) { t.Tiers = append(slices.Clone(t.Tiers), env.Tier) })
		case ConstraintLabels:
			w.rule(sizeRule, "label "+env.ID+" with "+strings.Join(missingLabels(rep.Task, env.Environment.Environment), ", "),
				func(x *Environment) { x.Labels = rep.Task.Labels }, nil)
		case ConstraintHandler:
			if rep.Task.Run != nil {
				w.rule(sizeHandler, "an agent that runs what tasks bring (start "+env.ID+" with --allow-run)", func(x *Environment) { x.Runs = true }, nil)
				break
			}
			h := rep.Task.HandlerName()
			w.rule(sizeHandler, "an agent with handler "+h+" ("+env.ID+" has "+cmp.Or(strings.Join(env.Handlers, ", "), "none")+")",
				func(x *Environment) { x.Handlers = append(slices.Clone(x.Handlers), h) }, nil)
		case ConstraintApart:
			w.rule(sizeRule, "set colocate: true on "+rep.Task.Name+" ("+env.ID+" has "+s.sibling(r, e)+")", nil,
				func(t *messages.Task) { t.Colocate = true })
		case ConstraintCompute, ConstraintStorage, ConstraintNetwork:
			k := slices.IndexFunc(kinds[:], func(k resourceKind) bool { return k.constraint == o.what })
			if rep.need[k] == 0 {
				return "", nil, 0, false // how much of it would do is anybody's guess
			}
			w.short = append(w.short, k)
			wanted := rep.need[k] + s.used[e][k] + vector(env.Foreign)[k]
			if how == lowerReserve {
				reserve = min(reserve, 1-wanted/vector(env.Capacity)[k])
				continue
			}
			now := vector(cap)[k]
			*amount(&cap, k) = now + ceilDigits(wanted/(1-reserve)-now, 3)
			w.size += (vector(cap)[k] - now) / max(now, wanted/100)
		case ConstraintLimit: // below, with the capacities that it would have then
		default:
			return "", nil, 0, false
		}
	}
	switch {
	case how == lowerReserve && (len(w.short) == 0 || reserve < -tolerance):
		return "", nil, 0, false
	case how == lowerReserve:
		reserve = max(0, math.Floor((reserve+tolerance)*100)/100)
		w.reserve(reserve)
	case len(w.short) > 0:
		w.capacity(cap)
	}
	moved := env.Environment.Environment
	moved.Capacity = cap
	delay, measured := s.in.delay(&rep.Task, e)
	if !measured { // else it stays what it is, whatever the model says of more capacity
		delay = Delay(rep.Task, moved)
	}
	if !usable(delay) {
		return "", nil, 0, false
	} else if !withinLimit(delay, rep.Task.Limit) {
		w.limit(delay)
	}
	if len(w.texts) == 0 {
		return "", nil, 0, false
	}
	return w.String(), w.change, w.size, true
}

// oneMore words another environment like e.
func (s *state) oneMore(e int) (string, func(*Problem)) {
	like := s.in.envs[e].Environment
	text := fmt.Sprintf("add one more environment like %s (%s, %s TFLOPS, %s GB, %s Mbps)", like.ID, like.Tier,
		num(like.Capacity.Compute), num(like.Capacity.Storage), num(like.Capacity.Network))
	return text, func(p *Problem) {
		for i := 2; ; i++ { // a free name
			id := like.ID[:min(len(like.ID), 50)] + "-" + strconv.Itoa(i)
			if _, taken := s.in.byID[id]; !taken {
				like.ID = id
				break
			}
		}
		like.Foreign = messages.Resources{}
		p.Environments = append(p.Environments, like)
		p.Measured = maps.Clone(p.Measured) // alike in this, too
		for k, v := range p.Measured {
			if k.Environment == s.in.envs[e].ID {
				p.Measured[Pair{k.Task, like.ID}] = v
			}
		}
	}
}

// ceilDigits rounds a positive v up to so many significant digits.
func ceilDigits(v float64, digits int) float64 {
	if v <= 0 {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(v))-float64(digits-1))
	up, err := strconv.ParseFloat(strconv.FormatFloat(math.Ceil(v/unit-1e-6)*unit, 'g', digits+2, 64), 64)
	if err != nil || math.IsNaN(up) || up == 0 {
		return v
	}
	return up
}
