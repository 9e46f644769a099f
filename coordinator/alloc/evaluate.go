package alloc

import (
	"fmt"
	"math"

	"github.com/fleetbus/fleetbus/messages"
)

// Evaluation is what a given assignment amounts to, whether or not it keeps the
// constraints.
type Evaluation struct {
	Delay, Cost    float64            // like those of a Plan
	Penalty, Score float64            // likewise
	DelayOf        map[string]float64 // ms, mean over the replicas of a task, by task
	Passed         []Violation        // the constraints that it breaks, sorted by replica
}

// Violation is one constraint that an assignment breaks.
type Violation struct {
	Replica string // "" where an environment is overfull
	Reason
}

// Evaluate adds up an assignment (environment id by replica id) by the model alone,
// and lists the constraints that it breaks instead of keeping them: for comparing a
// plan with "everything on the cloud". Replicas without an entry count for nothing.
// It fails where p is wrong, an environment is not in p, or a delay is infinite.
func Evaluate(p Problem, assignment map[string]string) (Evaluation, error) {
	in, err := compile(p)
	if err != nil {
		return Evaluation{}, err
	}
	out := Evaluation{DelayOf: make(map[string]float64)}
	empty, s := newState(in, 0), newState(in, 0)
	count := make(map[string]int)
	for r := range in.reps {
		rep := &in.reps[r]
		id, ok := assignment[rep.ID]
		if !ok {
			continue
		}
		e, ok := in.byID[id]
		if !ok {
			return Evaluation{}, messages.Errorf(messages.CodeNotFound, "replica %s: its environment %q is not in this problem", rep.ID, id)
		}
		delay, _ := in.delay(&rep.Task, e)
		cost := in.shareCost(rep, e)
		if math.IsInf(delay, 0) || math.IsInf(cost, 0) {
			return Evaluation{}, messages.Errorf(messages.CodeNoCapacity, "%s can never run on %s, which lacks what it needs altogether", rep.ID, id)
		}
		if in.envs[e].whole && len(s.on[e]) == 0 {
			cost += in.envs[e].Price
		}
		for _, o := range empty.obstacles(r, e) {
			out.Passed = append(out.Passed, Violation{rep.ID, empty.reason(r, e, []obstacle{o})})
		}
		if in.apart[rep.task] && s.held[[2]int{rep.task, e}] > 0 {
			o := obstacle{what: ConstraintApart}
			out.Passed = append(out.Passed, Violation{rep.ID, s.reason(r, e, []obstacle{o})})
		}
		s.put(r, e)
		out.Delay += delay
		out.Cost += cost
		out.Penalty += Penalty(rep.Task, in.envs[e].Environment.Environment)
		out.DelayOf[rep.Task.Name] += delay
		count[rep.Task.Name]++
	}
	for task, n := range count {
		out.DelayOf[task] /= float64(n)
	}
	out.Score = Score(in.settings, out.Delay, out.Cost) + out.Penalty
	for e := range in.envs {
		for k, used := range s.used[e] {
			// One replica that is too large by itself is listed already.
			if len(s.on[e]) > 1 && !fits(used, in.envs[e].cap[k]) {
				out.Passed = append(out.Passed, Violation{Reason: Reason{Environment: in.envs[e].ID, Constraint: kinds[k].constraint,
					Need: used, Have: in.envs[e].cap[k], Text: fmt.Sprintf("%d replicas need %s %s of %s together; %s may be planned",
						len(s.on[e]), num(used), kinds[k].unit, in.envs[e].ID, num(in.envs[e].cap[k]))}})
			}
		}
	}
	return out, nil
}

// AllOn assigns every replica to the environment of the tier where it scores best by
// itself, whatever the constraints say. It fails where the tier has none.
func AllOn(p Problem, tier messages.Tier) (map[string]string, error) {
	in, err := compile(p)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(in.reps))
	for r := range in.reps {
		rep := &in.reps[r]
		best, low := "", math.Inf(1)
		for e := range in.envs {
			env := in.envs[e].Environment.Environment
			if env.Tier != tier {
				continue
			}
			delay, _ := in.delay(&rep.Task, e)
			if v := Score(in.settings, delay, in.shareCost(rep, e)) + Penalty(rep.Task, env); best == "" || v < low {
				best, low = env.ID, v
			}
		}
		if best == "" {
			return nil, messages.Errorf(messages.CodeNoCapacity, "no environment is of tier %s", tier)
		}
		out[rep.ID] = best
	}
	return out, nil
}
