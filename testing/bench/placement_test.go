package main

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

func TestGeneratedFleetsAreFullAndTight(t *testing.T) {
	for _, size := range [][2]int{{50, 100}, {120, 360}, {1000, 3000}, {400, 8000}, {3000, 9000}} {
		for seed := range uint64(3) {
			f, err := generateFleet(size[0], size[1], seed, seed == 2)
			if err != nil {
				t.Fatal(err)
			}
			p := f.problem
			if len(p.Environments) != size[0] || len(p.Replicas) != size[1] {
				t.Fatalf("%v: %d environments, %d replicas", size, len(p.Environments), len(p.Replicas))
			}
			if err := p.Check(); err != nil {
				t.Errorf("%v: %v", size, err)
			}
			v := inspect(p, f.witness)
			if !v.full() {
				t.Errorf("%v, seed %d: %s", size, seed, v.faults[0])
			}
			if v.used < 0.85 {
				t.Errorf("%v, seed %d: a site uses only %.1f %% of what is scarce in it", size, seed, 100*v.used)
			}
			tiers, classes, whole := make(map[messages.Tier]int), make(map[messages.Class]int), 0
			for _, e := range p.Environments {
				tiers[e.Tier]++
				if e.Billing == messages.Whole {
					whole++
				}
			}
			for _, r := range p.Replicas {
				classes[r.Task.Class]++
			}
			if len(tiers) != 3 || len(classes) != 3 || size[0] >= 400 && whole == 0 {
				t.Errorf("%v: tiers %v, classes %v, %d billed whole", size, tiers, classes, whole)
			}
		}
	}
}

func TestFleetsDependOnTheirArgumentsAlone(t *testing.T) {
	make := func(n, m int, seed uint64) *fleet {
		f, err := generateFleet(n, m, seed, false)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a := make(120, 360, 7)
	if !reflect.DeepEqual(a, make(120, 360, 7)) {
		t.Error("equal arguments, different fleets")
	}
	if reflect.DeepEqual(a.problem, make(120, 360, 8).problem) {
		t.Error("different seeds, equal fleets")
	}
}

func TestInspectFindsPlantedFaults(t *testing.T) {
	task := func(name string, compute, limit float64) messages.Task {
		return messages.Task{Name: name, Class: messages.Inference, Limit: limit, Demand: messages.Resources{Compute: compute}}
	}
	env := func(id string, tier messages.Tier, compute, latency float64) alloc.Environment {
		return alloc.Environment{Environment: messages.Environment{ID: id, Tier: tier, Site: "s", Latency: latency, Price: 10,
			Capacity: messages.Resources{Compute: compute, Storage: 1, Network: 1}, Handlers: []string{"*"}}}
	}
	small, local := task("small", 6, 0), task("local", 1, 20)
	pinned, apart := task("pinned", 1, 0), task("apart", 1, 0)
	pinned.Labels, local.Tiers = map[string]string{"arm": "yes"}, []messages.Tier{messages.Edge, messages.Cloud}
	p := alloc.Problem{
		Environments: []alloc.Environment{env("cloud", messages.Cloud, 100, 50), env("edge", messages.Edge, 10, 10), env("robot", messages.Robot, 10, 1), env("other", messages.Robot, 10, 1)},
		Replicas: []alloc.Replica{{ID: "small/0", Task: small}, {ID: "small/1", Task: small}, {ID: "local/0", Task: local},
			{ID: "pinned/0", Task: pinned, Pin: "robot"}, {ID: "apart/0", Task: apart}, {ID: "apart/1", Task: apart}},
		Settings: messages.Settings{WeightLatency: 1, WeightCost: 1, Reserve: 0.1, Mode: messages.Dynamic},
	}
	p.Environments[2].Labels = map[string]string{"arm": "yes"}
	p.Environments[1].Billing = messages.Whole
	p.Environments[1].Foreign.Compute = 1
	good := map[string]string{"small/0": "edge", "small/1": "cloud", "local/0": "edge", "pinned/0": "robot", "apart/0": "cloud", "apart/1": "robot"}
	v := inspect(p, good)
	if !v.full() {
		t.Fatal(v.faults)
	}
	// Delays: edge 10.6 + 10.1, cloud 50.06 + 50.01, robot 1.1 + 1.1. Cost: edge 10, cloud 0.6 + 0.1, robot 1 + 1.
	if want := 122.97 + 12.7; v.score < want-1e-9 || v.score > want+1e-9 {
		t.Errorf("score %v, want %v", v.score, want)
	}
	plan, err := alloc.Solve(p)
	if err != nil {
		t.Fatal(err)
	}
	if got := inspect(p, placesOf(plan)); !got.full() || got.score > plan.Score+1e-9 || got.score < plan.Score-1e-9 {
		t.Errorf("the engine says %v; recomputed: %v %v", plan.Score, got.score, got.faults)
	}
	for _, tt := range []struct{ replica, env, want string }{
		{"small/1", "edge", "two replicas of small are on edge"},
		{"small/1", "edge", "edge holds 13 of resource 0; it has 8"},
		{"local/0", "cloud", "takes 50.01 ms"},
		{"local/0", "robot", "tier"},
		{"pinned/0", "other", "pinned"},
		{"apart/0", "robot", "two replicas of apart are on robot"},
		{"apart/0", "", "replica apart/0 has no place"},
		{"apart/0", "nowhere", "does not exist"},
		{"ghost/0", "cloud", "ghost/0 is placed and does not exist"},
	} {
		bad := maps.Clone(good)
		if bad[tt.replica] = tt.env; tt.env == "" {
			delete(bad, tt.replica)
		}
		if got := strings.Join(inspect(p, bad).faults, "\n"); !strings.Contains(got, tt.want) {
			t.Errorf("%s on %q: %q, want %s", tt.replica, tt.env, got, tt.want)
		}
	}
	for want, change := range map[string]func(*alloc.Problem){
		"lost":        func(p *alloc.Problem) { p.Environments[0].Closed = "lost" },
		"site":        func(p *alloc.Problem) { p.Replicas[0].Task.Sites = []string{"elsewhere"} },
		"label color": func(p *alloc.Problem) { p.Replicas[0].Task.Labels = map[string]string{"color": "red"} },
		"handler":     func(p *alloc.Problem) { p.Environments[1].Handlers = []string{"infer"} },
		"it has 6":    func(p *alloc.Problem) { p.Environments[1].Foreign.Compute = 3 },
	} {
		bad := p
		bad.Environments, bad.Replicas = append([]alloc.Environment{}, p.Environments...), append([]alloc.Replica{}, p.Replicas...)
		change(&bad)
		if got := strings.Join(inspect(bad, good).faults, "\n"); !strings.Contains(got, want) {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

func TestPlacementPrintsTheAgreedLines(t *testing.T) {
	var out strings.Builder
	if err := run([]string{"placement", "--environments", "50", "--replicas", "120", "--seed", "3", "--runs", "1", "--json"}, &out); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]placementLine)
	for line := range strings.Lines(out.String()) {
		var l placementLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.Bench != "placement" || l.Case != "50x120" || l.Unit == "" {
			t.Errorf("%+v", l)
		}
		got[l.Metric] = l
	}
	for _, metric := range []string{"solve_ms", "gap_pct", "feasible", "repair_ms", "repair_moved", "repair_forced", "rss_mb"} {
		if _, ok := got[metric]; !ok {
			t.Errorf("no %s in\n%s", metric, out.String())
		}
	}
	if got["feasible"].Value != 1 || got["repair_forced"].Value < 1 || got["solve_ms"].Value <= 0 || got["rss_mb"].Value <= 0 {
		t.Error(out.String())
	}
	out.Reset()
	if err := run([]string{"placement", "--environments", "50", "--replicas", "120", "--runs", "1"}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "repair ms") || strings.Contains(out.String(), "{") {
		t.Error(out.String())
	}
}

func TestPlacementRefusesWrongArguments(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--environments", "7"}, "7 environments; allowed are 50 to 100000"},
		{[]string{"--environments", "100", "--replicas", "10"}, "10 replicas; for 100 environments allowed are 200 to 2000"},
		{[]string{"--runs", "-1"}, "--runs is -1"},
		{[]string{"--growth", "--replicas", "300"}, "leave out --replicas"},
		{[]string{"--clouds", "blue"}, `--clouds is "blue"`},
		{[]string{"file"}, `"file" is no flag`},
		{[]string{"--seed", "-1"}, "seed"},
	} {
		if err := run(append([]string{"placement"}, tt.args...), &strings.Builder{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %s", tt.args, err, tt.want)
		}
	}
}
