package alloc

import (
	"cmp"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// Verdict says of one environment why a replica is there, or why not.
type Verdict struct {
	Environment string
	Chosen      bool
	Reasons     []Reason // what keeps it off, one constraint each; empty where it is or could be
	Delay, Cost float64  // there; the cost with the whole price where nothing else would run; may be +Inf
	Modelled    float64  // delay by the model, ms; equal to Delay where that was not measured
	Measured    bool     // Delay was measured
	Penalty     float64  // score, for what it prefers and has not got there
	Unmet       []string // what that is, each a line for people
	Move        float64  // score of the move that it would be, 0 where it is none
	Score       float64  // of delay, cost, penalty and move
	More        float64  // by how much the score would grow if it were there: negative where something else of the plan suffers; 0 for the chosen and where Reasons are
	Text        string   // one line for people
}

// Explain says for every environment, sorted by id, why the plan has the replica
// there or not, given everything else in the plan. It fails where p is wrong, the
// replica is not one of p's, or the plan is not one for p.
func Explain(p Problem, plan Plan, replica string) ([]Verdict, error) {
	in, err := compile(p)
	if err != nil {
		return nil, err
	}
	s, err := in.load(plan)
	if err != nil {
		return nil, err
	}
	r, ok := in.replica(replica)
	if !ok {
		return nil, messages.Errorf(messages.CodeNotFound, "replica %q: not in this problem, which has %d replicas", replica, len(in.reps))
	}
	now := s.at[r]
	var here float64
	if now >= 0 {
		here = s.here(r)
		s.take(r)
	}
	out := make([]Verdict, 0, len(in.envs))
	for e := range in.envs {
		rep, env := &in.reps[r], in.envs[e].Environment.Environment
		v := Verdict{Environment: env.ID, Chosen: e == now, Modelled: Delay(rep.Task, env),
			Penalty: Penalty(rep.Task, env), Unmet: rep.Task.Prefer.Unmet(env)}
		v.Delay, v.Measured = in.delay(&rep.Task, e)
		v.Cost = in.shareCost(rep, e)
		if in.envs[e].whole && len(s.on[e]) == 0 {
			v.Cost += in.envs[e].Price
		}
		if rep.cur >= 0 && rep.cur != e {
			v.Move = rep.move
		}
		v.Score = Score(in.settings, v.Delay, v.Cost) + v.Penalty + v.Move
		obs := s.obstacles(r, e)
		for _, o := range obs {
			v.Reasons = append(v.Reasons, s.reason(r, e, []obstacle{o}))
		}
		switch {
		case v.Chosen:
			v.Text = "chosen: " + v.terms(rep) + ", score " + num(v.Score)
		case len(obs) > 0:
			v.Text = s.reason(r, e, obs).Text
		case now < 0:
			v.Text = "it has room there now"
		default:
			v.More = v.Score - here
			v.Text = num(v.More) + " more score (" + num(v.Score) + "): " + v.terms(rep)
			if v.More < 0 {
				v.Text = num(-v.More) + " less score (" + num(v.Score) + "); a further solve would move it there"
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// terms says what the score is made of.
func (v *Verdict) terms(rep *repInfo) string {
	s := "delay " + num(v.Delay) + " ms"
	if v.Measured {
		s += " as measured (" + num(v.Modelled) + " by the model)"
	}
	s += ", cost " + num(v.Cost) + " per hour"
	for _, u := range v.Unmet {
		s += ", " + num(rep.Task.Prefer.Weight()) + " because " + u
	}
	if v.Move > 0 {
		s += ", " + num(v.Move) + " for the move"
	}
	return s
}

// replica finds a replica by id.
func (in *instance) replica(id string) (int, bool) {
	return slices.BinarySearchFunc(in.reps, id, func(a repInfo, id string) int { return cmp.Compare(a.ID, id) })
}

// load makes the state that a plan describes.
func (in *instance) load(plan Plan) (*state, error) {
	s := newState(in, effort)
	for _, a := range plan.Assignments {
		r, ok := in.replica(a.Replica)
		e, ok2 := in.byID[a.Environment]
		if !ok || !ok2 || s.at[r] >= 0 {
			return nil, messages.Errorf(messages.CodeBadRequest, "plan: %s on %s is not of this problem", a.Replica, a.Environment)
		}
		if _, ok := in.find(r, e); !ok || !s.room(r, e) {
			return nil, messages.Errorf(messages.CodeBadRequest, "plan: %s cannot run on %s", a.Replica, a.Environment)
		}
		s.put(r, e)
	}
	return s, nil
}
