package configs_test

import (
	"io/fs"
	"math"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/configs"
	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/internal/planreport"
	"github.com/fleetbus/fleetbus/messages"
)

func load(t *testing.T, name string) *fleetfile.File {
	t.Helper()
	data, err := configs.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleetfile.Parse(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func report(t *testing.T, f *fleetfile.File) *planreport.Report {
	t.Helper()
	r, err := planreport.Build(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// plan renders who is where.
func plan(r *planreport.Report) string {
	var out []string
	for _, a := range r.Assignments {
		out = append(out, a.Replica+"→"+a.Environment)
	}
	for _, w := range r.Waiting {
		out = append(out, w.Replica+" waits")
	}
	return strings.Join(out, ", ")
}

func equal(t *testing.T, what string, got planreport.Num, want float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > 1e-9 {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// Every file loads and plans; the files below are those whose numbers are asserted.
func TestEveryFile(t *testing.T) {
	asserted := "fleet.yaml scarcity.yaml smart-factory.yaml ten-robots.yaml three-tiers.yaml two-environments.yaml"
	names, err := fs.Glob(configs.Files, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names, " "); got != asserted {
		t.Errorf("files are %s; add what is new to the tests below", got)
	}
	for _, name := range names {
		r := report(t, load(t, name))
		if r.Totals.Placed == 0 || r.Totals.Bound > r.Totals.Score {
			t.Errorf("%s: %+v", name, r.Totals)
		}
	}
}

func TestSmartFactory(t *testing.T) {
	r := report(t, load(t, "smart-factory.yaml"))
	if got, want := plan(r), "action/0→robot, inference/0→edge, training/0→cloud"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	equal(t, "delay", r.Totals.Delay, 61.7)
	equal(t, "cost", r.Totals.Cost, 5.6)
	equal(t, "gap", r.Totals.Gap, 0)
	cloud := r.Comparison[0]
	equal(t, "all-cloud delay", cloud.Delay, 150.511)
	equal(t, "all-cloud cost", cloud.Cost, 5.11)
	if s := math.Round(float64(cloud.DelaySaved)); cloud.Name != "all-cloud" || s != 59 {
		t.Errorf("%s: delay saved %v %%, want 59 %%", cloud.Name, s)
	}
}

func TestThreeTiers(t *testing.T) {
	f := load(t, "three-tiers.yaml")
	r := report(t, f)
	want := []struct {
		delay, cost float64
		feasible    bool
	}{
		{50.002, 0.11, false}, {10.02, 0.15, false}, {1.2, 0.2, true}, // action: cloud, edge, robot
		{50.02, 1.1, true}, {10.2, 1.5, true}, {3, 2, false}, // inference
		{55.5, 55, true}, {65, 75, false}, {551, 100, false}, // training
	}
	for i, c := range r.Matrix {
		at := c.Task + " " + c.Environment
		equal(t, at+" delay", c.Delay, want[i].delay)
		equal(t, at+" cost", c.Cost, want[i].cost)
		if c.Feasible != want[i].feasible {
			t.Errorf("%s: feasible %v", at, c.Feasible)
		}
	}
	if got, want := plan(r), "action/0→robot, inference/0→edge, training/0→cloud"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s := f.Planning()
	s.Reserve = messages.DefaultSettings().Reserve
	f.Settings = &s
	r = report(t, f)
	if got, want := plan(r), "inference/0→edge, training/0→cloud, action/0 waits"; got != want {
		t.Errorf("with the default reserve: got %s, want %s", got, want)
	}
	if fix := r.Waiting[0].Fix; !strings.HasPrefix(fix, "set resource_reserve_ratio to 0 (now 0.1): ") {
		t.Errorf("fix: %s", fix)
	}
}

func TestTwoEnvironments(t *testing.T) {
	r := report(t, load(t, "two-environments.yaml"))
	for i, want := range []float64{50.11, 10.6, 55.5, 40} { // inference, training × cloud, edge
		equal(t, r.Matrix[i].Task+" "+r.Matrix[i].Environment+" score", r.Matrix[i].Score, want)
	}
	if r.Matrix[3].Feasible {
		t.Error("the training cannot run on the edge")
	}
	if got, want := plan(r), "inference/0→edge, training/0→cloud"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestScarcity(t *testing.T) {
	r := report(t, load(t, "scarcity.yaml"))
	want := "inference/0→edge, inference/1→edge, training/0→cloud, training/1→cloud, training/2 waits"
	if got := plan(r); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if fix := r.Waiting[0].Fix; !strings.HasPrefix(fix, "add 500 TFLOPS to cloud: ") {
		t.Errorf("fix: %s", fix)
	}
}

func TestTenRobots(t *testing.T) {
	r := report(t, load(t, "ten-robots.yaml"))
	cost := make(map[string]planreport.Num)
	for _, a := range r.Assignments {
		cost[a.Task] += a.Cost
	}
	equal(t, "training", cost["training"], 5)
	equal(t, "inference", cost["inference"], 50)
	equal(t, "action", cost["action"], 10)
	equal(t, "cost", r.Totals.Cost, 65)
	equal(t, "delay of a robot", r.Totals.DelayEach, 61.7)
	all := r.Comparison[0]
	equal(t, "all-cloud cost", all.Cost, 100)
	equal(t, "all-cloud delay of a robot", all.DelayEach, 150.511)
	equal(t, "cost saved", all.CostSaved, 35)
	if s := math.Round(float64(all.DelaySaved)); s != 59 {
		t.Errorf("delay saved %v %%, want 59 %%", s)
	}
}

// The commented file says what the defaults are; where it shows one, it is the one of
// the code.
func TestFleetShowsDefaults(t *testing.T) {
	f := load(t, "fleet.yaml")
	if s := f.Planning(); s != messages.DefaultSettings() {
		t.Errorf("settings %+v are not the defaults %+v", s, messages.DefaultSettings())
	}
	if len(f.Environments) != 7 || len(f.Tasks) != 4 || len(f.Baselines) != 2 {
		t.Errorf("%d environments, %d tasks, %d baselines", len(f.Environments), len(f.Tasks), len(f.Baselines))
	}
	if r := report(t, f); r.Totals.Waiting != 0 {
		t.Errorf("%s", plan(r))
	}
	training := f.Tasks[0]
	if training.WorkGFLOP() != 2e6 || training.TransferKbit() != 40_000 || training.Limit != 10_000 || training.Deadline != 12*3_600_000 {
		t.Errorf("%+v", training)
	}
	if d := alloc.Delay(training, f.Environments[0]); d != 2000+40+50 {
		t.Errorf("delay of a training on the cloud: %v", d)
	}
}
