package planreport

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
)

// Comparison is a baseline: the same replicas, all on one tier, by the model alone.
type Comparison struct {
	Name       string   `json:"name"`
	Delay      Num      `json:"delay_ms"`      // of all replicas together
	DelayEach  Num      `json:"delay_each_ms"` // one request of each task: the sum of their mean delays
	Cost       Num      `json:"cost_per_hour"`
	Score      Num      `json:"score"`
	DelaySaved Num      `json:"delay_saved_percent"` // by the plan, of delay_each_ms; negative where the plan is slower
	CostSaved  Num      `json:"cost_saved_percent"`
	Possible   bool     `json:"possible"` // it breaks no constraint
	Broken     []Reason `json:"broken"`   // those that it breaks
	Note       string   `json:"note,omitempty"`
}

// hybrid is the plan itself among what it is compared with.
const hybrid = "hybrid"

// Compare reads a list of what a plan is to be compared with: all-cloud, all-edge and
// all-robot put everything on one tier, a baseline of the file goes by its name, and
// hybrid is the plan itself.
func Compare(f *fleetfile.File, names []string) ([]fleetfile.Baseline, error) {
	out := []fleetfile.Baseline{}
	allowed := []string{hybrid}
	known := map[string]fleetfile.Baseline{hybrid: {Name: hybrid}}
	for _, t := range []messages.Tier{messages.Cloud, messages.Edge, messages.Robot} {
		name := "all-" + string(t)
		known[name] = fleetfile.Baseline{Name: name, Tier: t}
		allowed = append(allowed, name)
	}
	for _, b := range f.Baselines { // the file's own all-cloud may say more, as one box for each robot
		if _, ok := known[b.Name]; !ok {
			allowed = append(allowed, b.Name)
		}
		known[b.Name] = b
	}
	for _, name := range names {
		b, ok := known[name]
		if !ok {
			return nil, messages.Errorf(messages.CodeBadRequest, "found %q, allowed are %s", name, strings.Join(allowed, ", "))
		}
		out = append(out, b)
	}
	return out, nil
}

// compare evaluates the file's baselines over the replicas that the plan places.
func (r *Report) compare(f *fleetfile.File, p alloc.Problem, plan alloc.Plan) {
	placed := make(map[string]bool, len(plan.Assignments))
	for _, a := range plan.Assignments {
		placed[a.Replica] = true
	}
	q := p
	q.Replicas = nil
	for _, x := range p.Replicas {
		if placed[x.ID] {
			q.Replicas = append(q.Replicas, x)
		}
	}
	for _, b := range f.Baselines {
		r.Comparison = append(r.Comparison, r.baseline(b, q))
	}
}

// baseline evaluates one. What cannot be evaluated (no environment of that tier) has a
// note that says why.
func (r *Report) baseline(b fleetfile.Baseline, p alloc.Problem) Comparison {
	out := Comparison{Name: b.Name, Broken: []Reason{}}
	if b.Tier == "" { // the plan itself
		t := r.Totals
		out.Delay, out.DelayEach, out.Cost, out.Score, out.Possible = t.Delay, t.DelayEach, t.Cost, t.Score, true
		return out
	}
	pins := make(map[string]string)
	p.Replicas = slices.Clone(p.Replicas)
	for i := range p.Replicas {
		// Where a task may run is what a baseline sets aside; amounts and limits remain.
		x := &p.Replicas[i]
		pins[x.ID] = x.Pin
		x.Pin, x.Site = "", ""
		x.Task.Robot, x.Task.Sites, x.Task.Tiers, x.Task.Labels = "", nil, nil, nil
	}
	extra := 0.0
	var assignment map[string]string
	var err error
	if b.OnePer == messages.PerRobot {
		p, assignment, extra, err = onePerRobot(b, p, pins)
	} else {
		assignment, err = alloc.AllOn(p, b.Tier)
	}
	var ev alloc.Evaluation
	if err == nil {
		ev, err = alloc.Evaluate(p, assignment)
	}
	if err != nil {
		out.Note = messages.AsError(err, messages.CodeInternal).Message
		return out
	}
	cost := ev.Cost + extra
	out.Delay, out.Cost, out.Score = Num(ev.Delay), Num(cost), Num(alloc.Score(p.Settings, ev.Delay, cost)+ev.Penalty)
	var tasks []string
	for t := range ev.DelayOf {
		tasks = append(tasks, t)
	}
	slices.Sort(tasks) // sums of floats in one order
	for _, t := range tasks {
		out.DelayEach += Num(ev.DelayOf[t])
	}
	out.DelaySaved, out.CostSaved = saved(out.DelayEach, r.Totals.DelayEach), saved(out.Cost, r.Totals.Cost)
	out.Possible = len(ev.Passed) == 0
	for _, v := range ev.Passed {
		x := reasons([]alloc.Reason{v.Reason})[0]
		if v.Replica != "" {
			x.Text = v.Replica + ": " + x.Text
		}
		out.Broken = append(out.Broken, x)
	}
	if r.Totals.Waiting > 0 {
		out.Note = fmt.Sprintf("over the %d replicas that the plan places", r.Totals.Placed)
	}
	return out
}

func saved(before, now Num) Num {
	if before == 0 {
		return 0
	}
	return 100 * (before - now) / before
}

// onePerRobot is p with one environment of the baseline's tier for each robot instead of
// all, the assignment of its replicas to them, and the price of those that stand idle:
// one's own box is paid for in any case. A robot's own replicas go to its box, the others
// in turn to all.
func onePerRobot(b fleetfile.Baseline, p alloc.Problem, pins map[string]string) (alloc.Problem, map[string]string, float64, error) {
	var robots []string
	var like *alloc.Environment
	for i, e := range p.Environments {
		if e.Tier == messages.Robot {
			robots = append(robots, e.ID)
		}
		if e.Tier == b.Tier && (like == nil || e.ID < like.ID) {
			like = &p.Environments[i]
		}
	}
	if like == nil || len(robots) == 0 {
		return p, nil, 0, messages.Errorf(messages.CodeNoCapacity, "no environment is of tier %s, or there is no robot", b.Tier)
	}
	slices.Sort(robots)
	box := func(i int) string {
		return fmt.Sprintf("%s-of-%d", strings.TrimRight(like.ID[:min(len(like.ID), 40)], "-_"), i+1)
	}
	measured := p.Measured
	p.Environments, p.Measured = nil, make(map[alloc.Pair]float64)
	for i := range robots {
		e := *like
		e.ID = box(i)
		for k, v := range measured { // what is alike takes as long
			if k.Environment == like.ID {
				p.Measured[alloc.Pair{Task: k.Task, Environment: e.ID}] = v
			}
		}
		if b.Billing != "" {
			e.Billing = b.Billing
		}
		p.Environments = append(p.Environments, e)
	}
	slices.SortFunc(p.Replicas, func(a, b alloc.Replica) int { return strings.Compare(a.ID, b.ID) })
	assignment := make(map[string]string, len(p.Replicas))
	turn := make(map[string]int)
	inUse := make(map[string]bool)
	for _, x := range p.Replicas {
		n := slices.Index(robots, pins[x.ID])
		if n < 0 {
			n = turn[x.Task.Name] % len(robots)
			turn[x.Task.Name]++
		}
		assignment[x.ID] = box(n)
		inUse[box(n)] = true
	}
	extra := 0.0
	if p.Environments[0].Billing == messages.Whole {
		extra = like.Price * float64(len(robots)-len(inUse))
	}
	return p, assignment, extra, nil
}
