package alloc

import (
	"cmp"
	"maps"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// instance is a checked Problem, sorted and indexed. It is not changed by solving.
type instance struct {
	settings messages.Settings
	envs     []envInfo // sorted by id
	reps     []repInfo // sorted by id
	byID     map[string]int
	apart    []bool               // per task: replicas keep apart
	leaders  []int                // the first replica of each kind: those of a kind share their candidates
	measured []map[string]float64 // ms, by environment and task; nil for none
	holds    float64              // hubHolds, but in tests
	rows     int                  // mostRows, but in tests
}

type envInfo struct {
	Environment
	cap   [resources]float64 // what may be planned
	whole bool
	price float64 // weighted price, paid once, where whole
}

type repInfo struct {
	Replica
	need  [resources]float64
	task  int         // index of the task's name
	kind  int         // index into leaders
	cands []candidate // where it fits alone, sorted by environment; shared by equal replicas
	cur   int         // its current environment, -1 for none
	move  float64     // score that leaving it costs
}

// candidate is an environment on which a replica fits alone.
type candidate struct {
	env         int
	delay, cost float64 // cost without the price of a whole-billed environment
	penalty     float64 // for preferences that are not met
	score       float64 // of the three, weighted
}

// compile checks, sorts and indexes p. What depends on order is settled here: the
// ids give it.
func compile(p Problem) (*instance, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	in := &instance{settings: p.settings(), holds: hubHolds, rows: mostRows, byID: make(map[string]int, len(p.Environments))}
	in.envs = make([]envInfo, 0, len(p.Environments))
	for _, e := range p.Environments {
		in.envs = append(in.envs, newEnvInfo(e, in.settings))
	}
	slices.SortFunc(in.envs, func(a, b envInfo) int { return cmp.Compare(a.ID, b.ID) })
	sites := make(map[string][]int)
	all := make([]int, len(in.envs))
	for i, e := range in.envs {
		in.byID[e.ID], all[i] = i, i
		sites[e.Site] = append(sites[e.Site], i)
	}

	in.measured = in.measuredBy(p)

	in.reps = make([]repInfo, 0, len(p.Replicas))
	for _, r := range p.Replicas {
		r.Task = r.Task.Normal()
		in.reps = append(in.reps, repInfo{Replica: r, need: vector(r.Task.Demand), cur: -1, move: p.movePrice(r)})
	}
	slices.SortFunc(in.reps, func(a, b repInfo) int { return cmp.Compare(a.ID, b.ID) })
	names := make(map[string]int)
	equal := make(map[groupKey][]int) // replicas that differ from each other, per key
	for i := range in.reps {
		r := &in.reps[i]
		if c, ok := in.byID[p.Current[r.ID]]; ok {
			r.cur = c
		}
		t, ok := names[r.Task.Name]
		if !ok {
			t = len(names)
			names[r.Task.Name] = t
			in.apart = append(in.apart, false)
		}
		r.task = t
		in.apart[t] = in.apart[t] || !r.Task.Colocate

		key := groupKey{t, r.Pin, r.Site}
		if j := slices.IndexFunc(equal[key], func(j int) bool { return sameTask(in.reps[j].Task, r.Task) }); j >= 0 {
			r.cands, r.kind = in.reps[equal[key][j]].cands, in.reps[equal[key][j]].kind
			continue
		}
		r.kind = len(in.leaders)
		in.leaders = append(in.leaders, i)
		equal[key] = append(equal[key], i)
		scan := all
		if len(r.Task.Sites) > 0 { // a site's own task looks at its site, not at the fleet
			scan = nil
			allowed := slices.Compact(slices.Sorted(slices.Values(r.Task.Sites)))
			for _, site := range allowed {
				scan = append(scan, sites[site]...)
			}
			slices.Sort(scan)
		}
		if r.Site != "" {
			scan = sites[r.Site]
		}
		if r.Pin != "" { // a robot's own task looks at one environment, not at the fleet
			scan = nil
			if e, ok := in.byID[r.Pin]; ok {
				scan = []int{e}
			}
		}
		for _, e := range scan {
			if c, ok := in.candidate(r, e); ok {
				r.cands = append(r.cands, c)
			}
		}
	}
	return in, nil
}

func newEnvInfo(e Environment, settings messages.Settings) envInfo {
	e.Environment = e.Environment.Normal()
	info := envInfo{Environment: e, cap: planned(e, settings.Reserve), whole: e.Billing == messages.Whole}
	if info.whole {
		info.price = weigh(settings.WeightCost, e.Price)
	}
	return info
}

type groupKey struct {
	task      int
	pin, site string
}

// sameTask reports whether two tasks of one name are the same to the planner: the
// load measured on a replica can raise its demand above its siblings'.
func sameTask(a, b messages.Task) bool {
	return a.Demand == b.Demand && a.WorkGFLOP() == b.WorkGFLOP() && a.TransferKbit() == b.TransferKbit() &&
		a.Limit == b.Limit && a.Cost == b.Cost && a.Robot == b.Robot && a.HandlerName() == b.HandlerName() && (a.Run == nil) == (b.Run == nil) &&
		slices.Equal(a.Tiers, b.Tiers) && slices.Equal(a.Sites, b.Sites) && maps.Equal(a.Labels, b.Labels) && a.Prefer.Equal(b.Prefer)
}

// movePrice is the score that moving r costs.
func (p Problem) movePrice(r Replica) float64 {
	switch {
	case r.MovePrice != nil:
		return *r.MovePrice
	case r.Task.MovePrice != nil:
		return *r.Task.MovePrice
	}
	return p.MovePrice
}

func samePrice(a, b *float64) bool { return a == b || a != nil && b != nil && *a == *b }

// candidate weighs r on environment e; ok is false where it cannot run even alone.
func (in *instance) candidate(r *repInfo, e int) (c candidate, ok bool) {
	env := &in.envs[e]
	c = candidate{env: e, cost: in.shareCost(r, e), penalty: Penalty(r.Task, env.Environment.Environment)}
	c.delay, _ = in.delay(&r.Task, e)
	if !in.admits(r, e) || !usable(c.delay) || !usable(c.cost+env.price) || !withinLimit(c.delay, r.Task.Limit) {
		return c, false
	}
	for k := range r.need {
		if !fits(r.need[k], env.cap[k]) {
			return c, false
		}
	}
	c.score = Score(in.settings, c.delay, c.cost) + c.penalty
	return c, usable(c.score)
}

// admits reports whether nothing but amounts can keep r off e.
func (in *instance) admits(r *repInfo, e int) bool {
	env := &in.envs[e]
	return env.Closed == "" && (r.Pin == "" || r.Pin == env.ID) && (r.Task.Robot == "" || r.Task.Robot == env.ID) &&
		(r.Site == "" || r.Site == env.Site) && admitsSite(r.Task, env.Site) && admitsTier(r.Task, env.Tier) &&
		hasLabels(r.Task, env.Labels) && env.Takes(r.Task)
}

func hasLabels(t messages.Task, labels map[string]string) bool {
	for k, v := range t.Labels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// shareCost is the cost of r on e without the price of a whole-billed environment.
func (in *instance) shareCost(r *repInfo, e int) float64 {
	env := in.envs[e].Environment.Environment
	if in.envs[e].whole {
		env.Price = 0
	}
	env.Billing = messages.Share
	return Cost(r.Task, env)
}

// find returns the candidate of r on environment e.
func (in *instance) find(r, e int) (candidate, bool) {
	cands := in.reps[r].cands
	i, ok := slices.BinarySearchFunc(cands, e, func(c candidate, e int) int { return cmp.Compare(c.env, e) })
	if !ok {
		return candidate{}, false
	}
	return cands[i], true
}

// ahead compares two replicas by who must not wait for whom: priority, then limit.
func (in *instance) ahead(a, b int) int {
	x, y := in.reps[a].Task, in.reps[b].Task
	return cmp.Or(cmp.Compare(y.Priority, x.Priority), cmp.Compare(limitOf(x), limitOf(y)))
}

// bands returns the replicas in groups that may wait for each other, the first
// ahead of the second, each sorted by id.
func (in *instance) bands() [][]int {
	order := make([]int, len(in.reps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, in.ahead)
	var out [][]int
	for i := 0; i < len(order); {
		j := i + 1
		for j < len(order) && in.ahead(order[i], order[j]) == 0 {
			j++
		}
		out = append(out, order[i:j])
		i = j
	}
	return out
}
