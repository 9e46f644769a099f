package alloc

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

func env(id string, tier messages.Tier, compute, storage, network, latency, price float64) Environment {
	return Environment{Environment: messages.Environment{ID: id, Tier: tier, Latency: latency, Price: price, Offline: true,
		Capacity: messages.Resources{Compute: compute, Storage: storage, Network: network}}}
}

func task(name string, class messages.Class, compute, storage, network, limit, cost float64) messages.Task {
	return messages.Task{Name: name, Class: class, Limit: limit, Cost: cost,
		Demand: messages.Resources{Compute: compute, Storage: storage, Network: network}}
}

// problem expands the tasks; the weights are those of balanced, the reserve is 0.
func problem(envs []Environment, tasks ...messages.Task) Problem {
	s := messages.DefaultSettings()
	s.Reserve = 0
	var plain []messages.Environment
	for _, e := range envs {
		plain = append(plain, e.Environment)
	}
	return Problem{Environments: envs, Replicas: Expand(tasks, plain), Settings: s}
}

// threeTiers is the main table of the model.
func threeTiers() Problem {
	return problem([]Environment{
		env("cloud", messages.Cloud, 1000, 10000, 1000, 50, 10),
		env("edge", messages.Edge, 100, 1000, 100, 10, 5),
		env("robot", messages.Robot, 10, 100, 10, 1, 1),
	},
		task("training", messages.Training, 500, 5000, 100, 10000, 50),
		task("inference", messages.Inference, 10, 10, 50, 100, 1),
		task("action", messages.Action, 1, 1, 10, 10, 0.1),
	)
}

// near compares with what the model prints, to its last digit and beyond.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9*max(1, math.Abs(want)) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func mustSolve(t *testing.T, p Problem) Plan {
	t.Helper()
	plan, err := Solve(p)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// placement renders a plan as "replica→environment …" and "replica waits …".
func placement(p Plan) string {
	var out []string
	for _, a := range p.Assignments {
		out = append(out, a.Replica+"→"+a.Environment)
	}
	for _, w := range p.Waiting {
		out = append(out, w.Replica+" waits")
	}
	return strings.Join(out, ", ")
}

func TestWorkedMatrix(t *testing.T) {
	cells, err := Matrix(threeTiers())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		delay, cost float64
		why         Constraint
	}{
		"training/cloud":  {55.5, 55, ""},
		"training/edge":   {65, 75, ConstraintCompute},
		"training/robot":  {551, 100, ConstraintCompute},
		"inference/cloud": {50.02, 1.1, ""},
		"inference/edge":  {10.2, 1.5, ""},
		"inference/robot": {3, 2, ConstraintNetwork},
		"action/cloud":    {50.002, 0.11, ConstraintLimit},
		"action/edge":     {10.02, 0.15, ConstraintLimit},
		"action/robot":    {1.2, 0.2, ""},
	}
	if len(cells) != len(want) {
		t.Fatalf("%d cells, want %d", len(cells), len(want))
	}
	for _, c := range cells {
		at := c.Task + "/" + c.Environment
		w := want[at]
		near(t, at+" delay", c.Delay, w.delay)
		near(t, at+" cost", c.Cost, w.cost)
		near(t, at+" score", c.Score, w.delay+w.cost)
		if c.Feasible != (w.why == "") {
			t.Errorf("%s: feasible %v", at, c.Feasible)
		}
		if got := append(c.Reasons, Reason{})[0].Constraint; got != w.why {
			t.Errorf("%s: reason %q, want %q", at, got, w.why)
		}
	}
}

func TestWorkedMainTable(t *testing.T) {
	plan := mustSolve(t, threeTiers())
	if got, want := placement(plan), "action/0→robot, inference/0→edge, training/0→cloud"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	near(t, "delay", plan.Delay, 55.5+10.2+1.2)
	near(t, "cost", plan.Cost, 55+1.5+0.2)
	near(t, "score", plan.Score, 110.5+11.7+1.4)
	near(t, "bound", plan.Bound, plan.Score)
}

func TestWorkedReserveLeavesActionWaiting(t *testing.T) {
	p := threeTiers()
	p.Settings.Reserve = 0.1
	plan := mustSolve(t, p)
	if got, want := placement(plan), "inference/0→edge, training/0→cloud, action/0 waits"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	w := plan.Waiting[0]
	if want := "set resource_reserve_ratio to 0 (now 0.1): action needs 10 Mbps; robot has 10, of which 9 may be planned"; w.Fix != want {
		t.Errorf("fix: got  %s\nwant %s", w.Fix, want)
	}
	got := fmt.Sprint(w.Reasons)
	want := "[{cloud limit 50.002 10 delay on cloud 50.002 ms, limit 10 ms} " +
		"{edge limit 10.02 10 delay on edge 10.02 ms, limit 10 ms} " +
		"{robot network 10 9 needs 10 Mbps; robot has 10, of which 9 may be planned}]"
	if got != want {
		t.Errorf("reasons: got\n%s, want\n%s", got, want)
	}
	p.Settings.Reserve = 0 // the fix, taken
	if plan := mustSolve(t, p); len(plan.Waiting) != 0 {
		t.Errorf("with the fix %s", placement(plan))
	}
}

func TestWorkedTwoEnvironments(t *testing.T) {
	p := problem([]Environment{
		env("cloud", messages.Cloud, 1000, 0, 0, 50, 10),
		env("edge", messages.Edge, 100, 0, 0, 10, 5),
	}, task("training", messages.Training, 500, 0, 0, 0, 0), task("inference", messages.Inference, 10, 0, 0, 0, 0))
	cells, err := Matrix(p)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []struct {
		at                 string
		delay, cost, score float64
		feasible           bool
	}{
		{"inference/cloud", 50.01, 0.1, 50.11, true},
		{"inference/edge", 10.1, 0.5, 10.6, true},
		{"training/cloud", 50.5, 5, 55.5, true},
		{"training/edge", 15, 25, 40, false},
	} {
		c := cells[i]
		if c.Task+"/"+c.Environment != w.at || c.Feasible != w.feasible {
			t.Errorf("cell %d: %s/%s feasible %v", i, c.Task, c.Environment, c.Feasible)
		}
		near(t, w.at+" delay", c.Delay, w.delay)
		near(t, w.at+" cost", c.Cost, w.cost)
		near(t, w.at+" score", c.Score, w.score)
	}
	if got, want := placement(mustSolve(t, p)), "inference/0→edge, training/0→cloud"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWorkedScarcity(t *testing.T) {
	training, inference := task("training", messages.Training, 500, 0, 0, 0, 0), task("inference", messages.Inference, 10, 0, 0, 0, 0)
	training.Replicas, inference.Replicas = 3, 2
	training.Colocate, inference.Colocate = true, true
	p := problem([]Environment{
		env("cloud", messages.Cloud, 1000, 0, 0, 50, 10),
		env("edge", messages.Edge, 100, 0, 0, 10, 5),
	}, training, inference)
	plan := mustSolve(t, p)
	want := "inference/0→edge, inference/1→edge, training/0→cloud, training/1→cloud, training/2 waits"
	if got := placement(plan); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if got, want := plan.Waiting[0].Fix, "add 500 TFLOPS to cloud: training needs 500 TFLOPS; cloud has 1000, 1000 are taken by training/0, training/1"; got != want {
		t.Errorf("fix: got  %s\nwant %s", got, want)
	}
}

// smartFactory is the main table without storage and fixed costs.
func smartFactory() Problem {
	return problem([]Environment{
		env("cloud", messages.Cloud, 1000, 0, 1000, 50, 10),
		env("edge", messages.Edge, 100, 0, 100, 10, 5),
		env("robot", messages.Robot, 10, 0, 10, 1, 1),
	},
		task("training", messages.Training, 500, 0, 100, 10000, 0),
		task("inference", messages.Inference, 10, 0, 50, 100, 0),
		task("action", messages.Action, 1, 0, 10, 10, 0),
	)
}

func TestWorkedSmartFactory(t *testing.T) {
	p := smartFactory()
	plan := mustSolve(t, p)
	near(t, "hybrid delay", plan.Delay, 61.7)
	near(t, "hybrid cost", plan.Cost, 5.6)
	all, err := AllOn(p, messages.Cloud)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := Evaluate(p, all)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "all-cloud delay", ev.Delay, 150.511)
	near(t, "all-cloud cost", ev.Cost, 5.11)
	if saved := math.Round(100 * (1 - plan.Delay/ev.Delay)); saved != 59 {
		t.Errorf("delay saved %v %%, want 59 %%", saved)
	}
	if len(ev.Passed) != 1 || ev.Passed[0].Replica != "action/0" || ev.Passed[0].Constraint != ConstraintLimit {
		t.Errorf("all on the cloud breaks %v, want the action's limit alone", ev.Passed)
	}
	if _, err := AllOn(problem(nil, task("a", messages.Inference, 1, 0, 0, 0, 0)), messages.Cloud); messages.CodeOf(err) != messages.CodeNoCapacity {
		t.Errorf("all on a cloud that is not there: %v", err)
	}
}

func TestWorkedTenRobots(t *testing.T) {
	envs := []Environment{env("cloud", messages.Cloud, 1000, 0, 1000, 50, 10)}
	for i := range 10 {
		e, r := env(fmt.Sprintf("edge-%d", i), messages.Edge, 100, 0, 100, 10, 5), env(fmt.Sprintf("robot-%d", i), messages.Robot, 10, 0, 10, 1, 1)
		e.Billing, r.Billing = messages.Whole, messages.Whole
		envs = append(envs, e, r)
	}
	inference, action := task("inference", messages.Inference, 10, 0, 50, 100, 0), task("action", messages.Action, 1, 0, 10, 10, 0)
	inference.Replicas, action.Per = 10, messages.PerRobot
	p := problem(envs, task("training", messages.Training, 500, 0, 100, 10000, 0), inference, action)
	plan := mustSolve(t, p)
	near(t, "cost", plan.Cost, 65)
	near(t, "bound", plan.Bound, plan.Score)
	cost := map[string]float64{}
	delay := map[string]float64{}
	for _, a := range plan.Assignments {
		cost[a.Task] += a.Cost
		delay[a.Task] = a.Delay
	}
	near(t, "training", cost["training"], 5)
	near(t, "inferences", cost["inference"], 50)
	near(t, "actions", cost["action"], 10)
	near(t, "delay per robot", delay["training"]+delay["inference"]+delay["action"], 61.7)
	if saved := 100 * (1 - plan.Cost/100); math.Round(saved) != 35 {
		t.Errorf("cost saved %v %%, want 35 %%", saved)
	}
}
