package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runPlan runs `fleetbus plan` in this process.
func runPlan(args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = execute(append([]string{"plan"}, args...), strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

func TestPlanPrintsNumbersAsTheyAre(t *testing.T) {
	status, out, errs := runPlan("-f", "../../configs/smart-factory.yaml", "--json")
	if status != exitOK || errs != "" {
		t.Fatalf("status %d: %s", status, errs)
	}
	var got struct {
		Totals struct {
			Delay json.Number `json:"delay_ms"`
			Cost  json.Number `json:"cost_per_hour"`
		}
		Comparison []struct {
			Name  string
			Delay json.Number `json:"delay_ms"`
			Cost  json.Number `json:"cost_per_hour"`
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	c := got.Comparison[0]
	if got.Totals.Delay != "61.7" || got.Totals.Cost != "5.6" || c.Name != "all-cloud" || c.Delay != "150.511" || c.Cost != "5.11" {
		t.Errorf("%+v", got)
	}
}

func TestPlanSaysWhatWaitsAndExitsZero(t *testing.T) {
	status, out, errs := runPlan("-f", "../../configs/three-tiers.yaml", "--set", "resource_reserve_ratio=0.1", "--explain", "inference")
	if status != exitOK || errs != "" {
		t.Fatalf("status %d: %s", status, errs)
	}
	for _, want := range []string{"WAITING: 1 of 3", "to place it: set resource_reserve_ratio to 0 (now 0.1)", "Why inference/0", "39.42 more score"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("settings:\n  wieght_cost: 1\ntasks:\n  - {name: t, class: inference, limit: 10GB}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := "../../configs/scarcity.yaml"
	for _, tt := range []struct {
		args []string
		want []string // on lines of their own
	}{
		{nil, []string{"fleetbus: -f: no file given"}},
		{[]string{"-f", "none.yaml"}, []string{"fleetbus: fleet file: open none.yaml"}},
		{[]string{"-f", bad}, []string{"fleetbus: " + bad + ":2: settings.wieght_cost: unknown field; did you mean weight_cost?", "fleetbus: " + bad + `:4: tasks[0].limit: found "10GB"`}},
		{[]string{"-f", good, "--set", "weight_cost=11"}, []string{"fleetbus: --set: weight_cost: found 11, allowed are 0 to 10"}},
		{[]string{"-f", good, "--explain", "nobody"}, []string{`fleetbus: "nobody" is neither a task nor a replica of this plan; tasks are inference, training`}},
		{[]string{"-f", good, "--pareto", "--explain", "training"}, []string{"fleetbus: --pareto: it makes many plans, and --explain and --compare speak of one"}},
		{[]string{"-f", good, "--preset", "fast"}, []string{`fleetbus: --preset: found "fast", allowed are balanced, cost, realtime`}},
	} {
		status, out, errs := runPlan(tt.args...)
		lines := strings.Split(strings.TrimSpace(errs), "\n")
		if status != exitUsage || out != "" || len(lines) != len(tt.want) {
			t.Errorf("%v: status %d, %q, %q", tt.args, status, out, errs)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%v: got %s, want %s", tt.args, lines[i], want)
			}
		}
	}
}

func TestPlanComparesAndDrawsTheFrontier(t *testing.T) {
	status, out, _ := runPlan("-f", "../../configs/smart-factory.yaml", "--compare", "all-edge,hybrid")
	if status != exitOK || !strings.Contains(out, "all-edge") || strings.Contains(out, "all-cloud") {
		t.Errorf("status %d\n%s", status, out)
	}
	status, out, _ = runPlan("-f", "../../configs/smart-factory.yaml", "--compare", "hybrid,all-cloud", "--json")
	var got struct {
		Comparison []struct {
			Name  string
			Delay json.Number `json:"delay_each_ms"`
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != exitOK {
		t.Fatal(status, err)
	}
	if c := got.Comparison; len(c) != 2 || c[0].Name != "hybrid" || c[0].Delay != "61.7" || c[1].Name != "all-cloud" || c[1].Delay != "150.511" {
		t.Errorf("%+v", c)
	}
	if status, _, errs := runPlan("-f", "../../configs/smart-factory.yaml", "--compare", "all-moon"); status != exitUsage || !strings.Contains(errs, "allowed are hybrid, all-cloud") {
		t.Errorf("status %d: %s", status, errs)
	}
	prefix := filepath.Join(t.TempDir(), "p")
	status, out, _ = runPlan("-f", "../../configs/smart-factory.yaml", "--pareto="+prefix)
	if status != exitOK || !strings.Contains(out, "101.61") {
		t.Errorf("status %d\n%s", status, out)
	}
	for _, ext := range []string{".svg", ".json"} {
		if data, err := os.ReadFile(prefix + ext); err != nil || len(data) == 0 {
			t.Errorf("%s: %v", ext, err)
		}
	}
	if status, _, errs := runPlan("-f", "../../configs/smart-factory.yaml", "--pareto="+prefix+"/no/such"); status == exitOK || !strings.Contains(errs, "name another prefix") {
		t.Errorf("status %d: %s", status, errs)
	}
}

// A preset takes the place of the file's weights and reserve, not of its mode; --set says
// more than a preset. The file's own preset is read the same way.
func TestPlanTakesAPreset(t *testing.T) {
	own := filepath.Join(t.TempDir(), "own.yaml")
	if err := os.WriteFile(own, []byte("settings: {preset: cost, mode: static}\nenvironments: [{id: e, tier: edge}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-f", own}, "a millisecond weighs 0.5, one per hour 2; reserve 0.05; mode static"},
		{[]string{"-f", own, "--preset", "realtime"}, "a millisecond weighs 2, one per hour 0.5; reserve 0.15; mode static"},
		{[]string{"-f", own, "--preset", "balanced", "--set", "weight_cost=3", "--set", "mode=adaptive"}, "a millisecond weighs 1, one per hour 3; reserve 0.1; mode adaptive"},
	} {
		if status, out, errs := runPlan(tt.args...); status != exitOK || errs != "" || !strings.Contains(out, tt.want) {
			t.Errorf("%v: status %d, %s\n%s", tt.args, status, errs, out)
		}
	}
}

func TestPlanExplainsForPrograms(t *testing.T) {
	status, out, errs := runPlan("-f", "../../configs/three-tiers.yaml", "--set", "resource_reserve_ratio=0.1", "--explain", "inference", "--explain", "action/0", "--json")
	if status != exitOK || errs != "" {
		t.Fatalf("status %d: %s", status, errs)
	}
	var got struct {
		Explanations []struct {
			Replica, Fix string
			Waiting      bool
			Verdicts     []struct {
				Environment string
				Chosen      bool
				More        json.Number `json:"more_score"`
				Reasons     []struct{ Constraint string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Explanations) != 2 {
		t.Fatalf("%+v", got)
	}
	placed, waits := got.Explanations[0], got.Explanations[1]
	if v := placed.Verdicts; placed.Waiting || len(v) != 3 || v[0].More != "39.42" || !v[1].Chosen || v[2].Reasons[0].Constraint != "compute" && v[2].Reasons[0].Constraint != "network" {
		t.Errorf("%+v", placed)
	}
	if status, out, _ := runPlan("-f", "../../configs/scarcity.yaml", "--explain", "nobody", "--json"); status != exitUsage ||
		!strings.Contains(out, `"code":"not_found"`) || !strings.Contains(out, "tasks are inference, training") {
		t.Errorf("status %d: %s", status, out)
	}
	if !waits.Waiting || !strings.HasPrefix(waits.Fix, "set resource_reserve_ratio to 0 (now 0.1)") {
		t.Errorf("%+v", waits)
	}
}

// The picture in the README is what the program draws.
func TestPictureInTheReadme(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "pareto")
	t.Chdir("../..")
	if status, _, errs := runPlan("--pareto="+prefix, "-f", "configs/smart-factory.yaml"); status != exitOK {
		t.Fatal(errs)
	}
	now, err := os.ReadFile(prefix + ".svg")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("docs/pareto.svg")
	if err != nil || !bytes.Equal(kept, now) {
		t.Errorf("docs/pareto.svg is not what `fleetbus plan --pareto=docs/pareto -f configs/smart-factory.yaml` writes (%v)", err)
	}
}
