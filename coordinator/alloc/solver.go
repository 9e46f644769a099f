package alloc

import (
	"maps"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// Solver solves and repairs the problems of one fleet, one after the other, and keeps
// what they have in common: where little has changed since the last one, little is
// computed. The zero value is ready. What tasks and environments point to (labels,
// sites, amounts) must not be changed in place between calls. It is for one goroutine
// at a time.
type Solver struct {
	last Problem // as given; slices of its own
	in   *instance
	s    *state // the last plan
}

// Solve is [SolveWith]; without prices in o it begins with those of the last plan.
func (v *Solver) Solve(p Problem, o Options) (Plan, error) {
	if err := o.check(); err != nil {
		return Plan{}, err
	}
	if _, err := v.compile(p); err != nil {
		return Plan{}, err
	}
	old := v.s
	v.s = v.in.solveWith(v.warm(o, old))
	return v.plan(p), nil
}

func (v *Solver) warm(o Options, old *state) Options {
	if o.Prices == nil && old != nil {
		o.Prices = old.prices()
	}
	return o
}

func (v *Solver) plan(p Problem) Plan {
	plan := v.s.plan()
	v.s.explainWaiting(p, &plan)
	return plan
}

// mostChanged bounds how many environments may differ for the compiled problem to be
// changed instead of made anew.
const mostChanged = 64

// compile makes p the compiled problem, and returns the environments that changed
// where it is still the last one's; all is nil where it was made anew.
func (v *Solver) compile(p Problem) (changed []int, err error) {
	changed, ok := v.changed(p)
	if !ok {
		in, err := compile(p)
		if err != nil {
			return nil, err
		}
		v.in = in
		v.last = Problem{Settings: p.Settings, MovePrice: p.MovePrice, Environments: slices.Clone(p.Environments), Replicas: slices.Clone(p.Replicas),
			Measured: maps.Clone(p.Measured)}
		return nil, nil
	}
	if err := p.checkMeasured(); err != nil {
		return nil, err
	}
	if err := messages.CheckAmount("move price", p.MovePrice, 0, unusable, ""); err != nil {
		return nil, err
	}
	for _, i := range changed {
		if err := p.Environments[i].check(); err != nil {
			return nil, err
		}
	}
	if !maps.Equal(p.Measured, v.last.Measured) {
		v.last.Measured, v.in.measured = maps.Clone(p.Measured), v.in.measuredBy(p)
	}
	for x, i := range changed {
		v.last.Environments[i] = p.Environments[i]
		changed[x] = v.in.byID[p.Environments[i].ID]
		v.in.replace(changed[x], p.Environments[i])
	}
	v.in.renew(changed)
	v.last.MovePrice = p.MovePrice
	for r := range v.in.reps {
		rep := &v.in.reps[r]
		rep.move, rep.cur = p.movePrice(rep.Replica), -1
		id, ok := p.Current[rep.ID]
		if !ok {
			continue
		}
		if v.s != nil && v.s.in == v.in && v.s.at[r] >= 0 && v.in.envs[v.s.at[r]].ID == id { // nearly always
			rep.cur = v.s.at[r]
		} else if e, ok := v.in.byID[id]; ok {
			rep.cur = e
		}
	}
	if changed == nil {
		changed = []int{}
	}
	return changed, nil
}

// changed compares p with the last problem, and returns the indices of environments
// that differ; it is not ok where more differs than that.
func (v *Solver) changed(p Problem) (out []int, ok bool) {
	l := &v.last
	if v.in == nil || p.Settings != l.Settings || len(p.Environments) != len(l.Environments) || len(p.Replicas) != len(l.Replicas) {
		return nil, false
	}
	measured := remeasured(&p, l)
	for i := range p.Environments {
		a, b := &p.Environments[i], &l.Environments[i]
		if a.ID != b.ID || a.Environment.Normal().Site != b.Environment.Normal().Site {
			return nil, false
		}
		if measured[a.ID] || a.Closed != b.Closed || a.Foreign != b.Foreign || !sameEnvironment(&a.Environment, &b.Environment) {
			if out = append(out, i); len(out) > mostChanged {
				return nil, false
			}
		}
	}
	for i := range p.Replicas {
		a, b := &p.Replicas[i], &l.Replicas[i]
		if a.ID != b.ID || a.Pin != b.Pin || a.Site != b.Site || !unchanged(&a.Task, &b.Task) || !samePrice(a.MovePrice, b.MovePrice) {
			return nil, false
		}
	}
	return out, true
}

func sameEnvironment(a, b *messages.Environment) bool {
	return a.Tier == b.Tier && a.Capacity == b.Capacity && a.Latency == b.Latency && a.Price == b.Price &&
		a.Billing == b.Billing && a.Offline == b.Offline && a.Runs == b.Runs && maps.Equal(a.Labels, b.Labels) && slices.Equal(a.Handlers, b.Handlers)
}

// unchanged compares all that planning reads of two tasks.
func unchanged(a, b *messages.Task) bool {
	return a.Name == b.Name && a.Class == b.Class && a.Demand == b.Demand && a.WorkGFLOP() == b.WorkGFLOP() &&
		a.TransferKbit() == b.TransferKbit() && a.Limit == b.Limit && a.Cost == b.Cost && a.Priority == b.Priority &&
		a.Robot == b.Robot && a.Colocate == b.Colocate && a.Handler == b.Handler && (a.Run == nil) == (b.Run == nil) && slices.Equal(a.Tiers, b.Tiers) &&
		slices.Equal(a.Sites, b.Sites) && maps.Equal(a.Labels, b.Labels) && a.Prefer.Equal(b.Prefer) && samePrice(a.MovePrice, b.MovePrice)
}

// replace makes e, by index, what the caller says it is now.
func (in *instance) replace(e int, env Environment) { in.envs[e] = newEnvInfo(env, in.settings) }

// renew looks again at who may run on the environments listed.
func (in *instance) renew(changed []int) {
	if len(changed) == 0 {
		return
	}
	renewed := make(map[int][]candidate)
	for kind, r := range in.leaders {
		rep := &in.reps[r]
		cands, own := rep.cands, false
		for _, e := range changed {
			if len(rep.Task.Sites) > 0 && !slices.Contains(rep.Task.Sites, in.envs[e].Site) || rep.Pin != "" && rep.Pin != in.envs[e].ID {
				continue // as before, and no need to weigh it
			}
			i, had := slices.BinarySearchFunc(cands, e, func(c candidate, e int) int { return c.env - e })
			c, may := in.candidate(rep, e)
			if had && may && cands[i] == c || !had && !may {
				continue
			}
			if !own {
				cands, own = slices.Clone(cands), true
			}
			switch {
			case had && may:
				cands[i] = c
			case had:
				cands = slices.Delete(cands, i, i+1)
			default:
				cands = slices.Insert(cands, i, c)
			}
		}
		if own {
			renewed[kind] = cands
		}
	}
	if len(renewed) == 0 {
		return
	}
	for r := range in.reps {
		if cands, ok := renewed[in.reps[r].kind]; ok {
			in.reps[r].cands = cands
		}
	}
}
