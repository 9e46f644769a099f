package planreport

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
)

// Report is everything that there is to say about the plan of a fleet file. Lists are
// never null in JSON.
type Report struct {
	File         string        `json:"file"`
	Fleet        string        `json:"fleet"`
	Settings     Settings      `json:"settings"`
	Matrix       []Cell        `json:"matrix"`       // by task, then environment
	Assignments  []Assignment  `json:"assignments"`  // by replica
	Waiting      []Waiting     `json:"waiting"`      // by replica
	Environments []Environment `json:"environments"` // by id
	Totals       Totals        `json:"totals"`
	Comparison   []Comparison  `json:"comparison"` // as the file's baselines stand
	Explanations []Explanation `json:"explanations"`
	Notes        []string      `json:"notes"` // what is odd about the file and no error
}

// Settings are those that were planned with.
type Settings struct {
	WeightLatency Num           `json:"weight_latency"`
	WeightCost    Num           `json:"weight_cost"`
	Reserve       Num           `json:"resource_reserve_ratio"`
	Mode          messages.Mode `json:"mode"`
}

// Cell is one task on one environment, as if nothing else ran there.
type Cell struct {
	Task        string   `json:"task"`
	Environment string   `json:"environment"`
	Delay       Num      `json:"delay_ms"`          // the measured one where it counts
	Modelled    Num      `json:"modelled_delay_ms"` // equal to delay_ms where that was not measured
	Measured    bool     `json:"measured"`          // delay_ms was measured
	Cost        Num      `json:"cost_per_hour"`
	Penalty     Num      `json:"penalty"` // score, for what the task prefers and has not got there
	Score       Num      `json:"score"`
	Feasible    bool     `json:"feasible"`  // by the model and delay_ms: capacity without reserve, and limit
	Plannable   bool     `json:"plannable"` // and nothing else keeps it off either: reserve, tier, site, …
	Reasons     []Reason `json:"reasons"`
}

// Reason is one thing that keeps a replica off an environment.
type Reason struct {
	Environment string `json:"environment"`
	Constraint  string `json:"constraint"`
	Need        Num    `json:"need"`
	Have        Num    `json:"have"`
	Text        string `json:"text"`
}

// Assignment is a replica that has a place.
type Assignment struct {
	Replica     string        `json:"replica"`
	Task        string        `json:"task"`
	Environment string        `json:"environment"`
	Tier        messages.Tier `json:"tier"`
	Delay       Num           `json:"delay_ms"`          // the measured one where it counts
	Modelled    Num           `json:"modelled_delay_ms"` // equal to delay_ms where that was not measured
	Measured    bool          `json:"measured"`
	Limit       Num           `json:"limit_ms"`       // 0: none
	Slack       Num           `json:"limit_slack_ms"` // what delay may grow by; null without a limit
	Cost        Num           `json:"cost_per_hour"`
	Penalty     Num           `json:"penalty"` // score, for what it prefers and has not got
	Score       Num           `json:"score"`
}

// Waiting is a replica that has none.
type Waiting struct {
	Replica string   `json:"replica"`
	Task    string   `json:"task"`
	Fix     string   `json:"fix"` // the smallest change that would place it
	Reasons []Reason `json:"reasons"`
}

// Environment is what the plan makes of one.
type Environment struct {
	ID       string           `json:"id"`
	Tier     messages.Tier    `json:"tier"`
	Site     string           `json:"site"`
	Replicas []string         `json:"replicas"`
	Compute  Use              `json:"compute_tflops"`
	Storage  Use              `json:"storage_gb"`
	Network  Use              `json:"network_mbps"`
	Cost     Num              `json:"cost_per_hour"` // of what is placed there
	Billing  messages.Billing `json:"billing"`
}

// Use is how much of one resource is taken.
type Use struct {
	Used     Num `json:"used"`
	Free     Num `json:"free"`           // of what may be planned
	Planned  Num `json:"may_be_planned"` // capacity less reserve
	Capacity Num `json:"capacity"`
}

// Totals sum up the plan.
type Totals struct {
	Replicas  int `json:"replicas"`
	Placed    int `json:"placed"`
	Waiting   int `json:"waiting"`
	Delay     Num `json:"delay_ms"`      // of all placed replicas together
	DelayEach Num `json:"delay_each_ms"` // one request of each task: the sum of their mean delays
	Cost      Num `json:"cost_per_hour"`
	Penalty   Num `json:"penalty"` // score, for preferences that are not met
	Score     Num `json:"score"`
	Bound     Num `json:"bound"`       // no plan that places the same replicas scores less
	Gap       Num `json:"gap_percent"` // of score above bound
}

// Explanation says of one replica why it is where it is.
type Explanation struct {
	Replica  string    `json:"replica"`
	Waiting  bool      `json:"waiting"`  // it has no place
	Fix      string    `json:"fix"`      // the smallest change that would place it; "" where it has one
	Verdicts []Verdict `json:"verdicts"` // by environment
}

// Verdict says why it is on one environment or not.
type Verdict struct {
	Environment string   `json:"environment"`
	Chosen      bool     `json:"chosen"`
	Delay       Num      `json:"delay_ms"`          // the measured one where it counts
	Modelled    Num      `json:"modelled_delay_ms"` // equal to delay_ms where that was not measured
	Measured    bool     `json:"measured"`
	Cost        Num      `json:"cost_per_hour"`
	Penalty     Num      `json:"penalty"` // score, for what it prefers and has not got there
	Unmet       []string `json:"unmet"`   // what that is
	Score       Num      `json:"score"`
	More        Num      `json:"more_score"` // than where it is; 0 where it is, and where it cannot be
	Reasons     []Reason `json:"reasons"`
	Text        string   `json:"text"`
}

// Build plans the file's problem and reports on it. explain names tasks or replicas
// whose verdicts are wanted. The error is a [*messages.Error]: not_found for a name in
// explain that is neither, bad_request for a problem that cannot be planned.
func Build(f *fleetfile.File, explain ...string) (*Report, error) {
	p := f.Problem()
	plan, err := alloc.Solve(p)
	if err != nil {
		return nil, err
	}
	s := p.Settings
	r := &Report{File: f.Name, Fleet: f.Fleet, Settings: Settings{Num(s.WeightLatency), Num(s.WeightCost), Num(s.Reserve), s.Mode},
		Matrix: []Cell{}, Assignments: []Assignment{}, Waiting: []Waiting{}, Environments: []Environment{},
		Comparison: []Comparison{}, Explanations: []Explanation{}, Notes: notes(f, p)}
	cells, err := alloc.Matrix(p)
	if err != nil {
		return nil, err
	}
	for _, c := range cells {
		r.Matrix = append(r.Matrix, Cell{c.Task, c.Environment, Num(c.Delay), Num(c.Modelled), c.Measured, Num(c.Cost), Num(c.Penalty),
			Num(c.Score), c.Feasible, len(c.Reasons) == 0, reasons(c.Reasons)})
	}
	r.environments(p, plan)
	r.replicas(p, plan)
	for _, w := range plan.Waiting {
		r.Waiting = append(r.Waiting, Waiting{w.Replica, w.Task, w.Fix, reasons(w.Reasons)})
	}
	r.compare(f, p, plan)
	if err := r.explain(p, plan, explain); err != nil {
		return nil, err
	}
	return r, nil
}

func reasons(from []alloc.Reason) []Reason {
	out := make([]Reason, 0, len(from))
	for _, r := range from {
		out = append(out, Reason{r.Environment, string(r.Constraint), Num(r.Need), Num(r.Have), r.Text})
	}
	return out
}

// environments fills in who runs where, and what that uses.
func (r *Report) environments(p alloc.Problem, plan alloc.Plan) {
	at := make(map[string]int, len(p.Environments))
	used := make([]messages.Resources, len(p.Environments))
	envs := slices.Clone(p.Environments)
	slices.SortFunc(envs, func(a, b alloc.Environment) int { return strings.Compare(a.ID, b.ID) })
	for i, e := range envs {
		at[e.ID] = i
		r.Environments = append(r.Environments, Environment{ID: e.ID, Tier: e.Tier, Site: e.Site, Billing: e.Billing, Replicas: []string{}})
	}
	demand := make(map[string]messages.Resources, len(p.Replicas))
	for _, x := range p.Replicas {
		demand[x.ID] = x.Task.Demand
	}
	use := func(used, planned, capacity float64) Use {
		return Use{Num(used), Num(max(0, planned-used)), Num(planned), Num(capacity)}
	}
	for _, a := range plan.Assignments {
		i := at[a.Environment]
		e := &r.Environments[i]
		e.Replicas = append(e.Replicas, a.Replica)
		e.Cost += Num(a.Cost)
		used[i] = used[i].Add(demand[a.Replica])
	}
	for i, e := range envs {
		free := e.Capacity.Scale(1 - p.Settings.Reserve)
		r.Environments[i].Compute = use(used[i].Compute, free.Compute, e.Capacity.Compute)
		r.Environments[i].Storage = use(used[i].Storage, free.Storage, e.Capacity.Storage)
		r.Environments[i].Network = use(used[i].Network, free.Network, e.Capacity.Network)
	}
	r.Totals = Totals{Replicas: len(p.Replicas), Placed: len(plan.Assignments), Waiting: len(plan.Waiting),
		Delay: Num(plan.Delay), Cost: Num(plan.Cost), Penalty: Num(plan.Penalty), Score: Num(plan.Score), Bound: Num(plan.Bound)}
	if plan.Bound > 0 {
		r.Totals.Gap = Num(100 * (plan.Score - plan.Bound) / plan.Bound)
	}
	for _, d := range means(plan) {
		r.Totals.DelayEach += Num(d.delay)
	}
}

// replicas fills in where each is, and how near to its limit.
func (r *Report) replicas(p alloc.Problem, plan alloc.Plan) {
	type pair struct{ task, env string }
	cell := make(map[pair]Cell, len(r.Matrix))
	for _, c := range r.Matrix {
		cell[pair{c.Task, c.Environment}] = c
	}
	limit := make(map[string]float64, len(p.Replicas))
	for _, x := range p.Replicas {
		limit[x.ID] = x.Task.Limit
	}
	tier := make(map[string]messages.Tier, len(p.Environments))
	for _, e := range p.Environments {
		tier[e.ID] = e.Tier
	}
	for _, a := range plan.Assignments {
		c := cell[pair{a.Task, a.Environment}]
		out := Assignment{Replica: a.Replica, Task: a.Task, Environment: a.Environment, Tier: tier[a.Environment],
			Delay: Num(a.Delay), Modelled: c.Modelled, Measured: c.Measured, Limit: Num(limit[a.Replica]), Slack: Num(math.Inf(1)),
			Cost: Num(a.Cost), Penalty: Num(a.Penalty), Score: Num(alloc.Score(p.Settings, a.Delay, a.Cost) + a.Penalty)}
		if out.Limit > 0 {
			out.Slack = max(0, out.Limit-out.Delay) // what rounding forgave is none
		}
		r.Assignments = append(r.Assignments, out)
	}
}

type mean struct {
	task  string
	delay float64
}

// means are the mean delays of the placed replicas of each task, by task.
func means(plan alloc.Plan) []mean {
	var out []mean
	sum, count := make(map[string]float64), make(map[string]int)
	for _, a := range plan.Assignments {
		if count[a.Task] == 0 {
			out = append(out, mean{task: a.Task})
		}
		sum[a.Task] += a.Delay
		count[a.Task]++
	}
	for i := range out {
		out[i].delay = sum[out[i].task] / float64(count[out[i].task])
	}
	return out
}

// explain adds the verdicts of the replicas that the names mean.
func (r *Report) explain(p alloc.Problem, plan alloc.Plan, names []string) error {
	for _, name := range names {
		found := false
		for _, x := range p.Replicas {
			if x.ID != name && x.Task.Name != name {
				continue
			}
			found = true
			verdicts, err := alloc.Explain(p, plan, x.ID)
			if err != nil {
				return err
			}
			e := Explanation{Replica: x.ID, Verdicts: []Verdict{}}
			if i := slices.IndexFunc(plan.Waiting, func(w alloc.Waiting) bool { return w.Replica == x.ID }); i >= 0 {
				e.Waiting, e.Fix = true, plan.Waiting[i].Fix
			}
			for _, v := range verdicts {
				e.Verdicts = append(e.Verdicts, Verdict{v.Environment, v.Chosen, Num(v.Delay), Num(v.Modelled), v.Measured, Num(v.Cost),
					Num(v.Penalty), append([]string{}, v.Unmet...), Num(v.Score), Num(v.More), reasons(v.Reasons), v.Text})
			}
			r.Explanations = append(r.Explanations, e)
		}
		if !found {
			return messages.Errorf(messages.CodeNotFound, "%q is neither a task nor a replica of this plan; tasks are %s", name, taskNames(p))
		}
	}
	return nil
}

func taskNames(p alloc.Problem) string {
	var out []string
	for _, x := range p.Replicas {
		out = append(out, x.Task.Name)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// notes says what is no error and yet probably not meant.
func notes(f *fleetfile.File, p alloc.Problem) []string {
	out := []string{}
	has := make(map[string]bool)
	for _, x := range p.Replicas {
		has[x.Task.Name] = true
	}
	for _, t := range f.Tasks {
		if !has[t.Name] {
			out = append(out, fmt.Sprintf("task %s has no replica: the file has no %s for it", t.Name, t.Per))
		}
	}
	if n := len(f.Measured); n > 0 && p.Settings.Mode != messages.Adaptive {
		out = append(out, fmt.Sprintf("what was measured (%d delays) does not count in mode %s; --set mode=adaptive plans with it", n, p.Settings.Mode))
	}
	if len(f.Environments) == 0 && len(f.Tasks) > 0 {
		out = append(out, "the file has no environments, so everything waits; `fleetbus apply` gives its tasks to a running fleet")
	}
	return out
}
