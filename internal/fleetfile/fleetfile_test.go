package fleetfile

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		unit Unit
		in   string
		want float64
	}{
		{Compute, "500", 500}, {Compute, "500TFLOPS", 500}, {Compute, "0.5 PFLOPS", 500}, {Compute, "250GFLOPS", 0.25}, {Compute, "1e3", 1000}, {Compute, "1.5e+2TFLOPS", 150},
		{Work, "500", 500}, {Work, "500TFLOP", 500_000}, {Work, "2PFLOP", 2e6}, {Work, "100MFLOP", 0.1},
		{Storage, "10TB", 10_000}, {Storage, "500MB", 0.5}, {Storage, "7 GB", 7},
		{Network, "1Gbps", 1000}, {Network, "100kbps", 0.1}, {Network, "54Mbps", 54},
		{Transfer, "5Mbit", 5000}, {Transfer, "300kB", 2400}, {Transfer, "1MB", 8000}, {Transfer, "3", 3}, {Transfer, "1Gbit", 1e6},
		{Duration, "100us", 0.1}, {Duration, "10.02ms", 10.02}, {Duration, "10s", 10_000}, {Duration, "2min", 120_000}, {Duration, "12h", 43_200_000}, {Duration, "-5", -5},
	} {
		if got, err := tt.unit.Parse(tt.in); err != nil || got != tt.want {
			t.Errorf("%q: got %v (%v), want %v", tt.in, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		unit Unit
		in   string
		want string
	}{
		{Compute, "10GB", `found "10GB" with the unit "GB", allowed are GFLOPS, TFLOPS, PFLOPS; a bare number is in TFLOPS`},
		{Compute, "10tflops", `(did you mean 10TFLOPS?)`},
		{Work, "10TFLOPS", `allowed are MFLOP, GFLOP, TFLOP, PFLOP; a bare number is in GFLOP (did you mean 10TFLOP?)`},
		{Duration, "fast", `found "fast", allowed is a number with one of the units us, ms, s, min, h`},
		{Duration, "", `found ""`}, {Duration, "ms", `found "ms"`}, {Duration, "1e999", `found "1e999"`}, {Duration, "1_000", `unit "_000"`}, {Duration, "0x10", `unit "x10"`}, {Duration, ".", `found "."`},
	} {
		if _, err := tt.unit.Parse(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.in, err, tt.want)
		}
	}
}

const full = `
fleet: plant-7
settings: {preset: realtime, weight_cost: 3, mode: static}
environments:
  - {id: c, tier: cloud, site: hub, labels: {gpu: yes}, compute: 1PFLOPS, storage: 1TB, network: 1Gbps, latency: 50ms, price: 10, billing: whole}
  - {id: r, count: 2, tier: robot, compute: 10}
tasks:
  - {name: t, class: inference, compute: 1, storage: 2, network: 3, work: 4TFLOP, transfer: 0, limit: 1s, cost: 0.5, replicas: 2, priority: -3,
     prefer: {tiers: [edge], sites: [main], labels: {gpu: l4}, penalty: 12.5}, move_price: 0,
     tiers: [cloud, edge], sites: [hub, main], labels: {arch: arm}, colocate: true, interrupt: allow, delivery: direct, handler: h, concurrency: 4, max_batch: 8, max_wait: 4ms, max_attempts: 2, deadline: 3s, idempotent: true}
  - {name: u, class: action, per: robot, on_link_loss: retract}
  - {name: w, class: inference, run: {artifact: "0000000000000000000000000000000000000000000000000000000000000abc", command: [serve, "{artifact}", "{port}", 7], env: {A: "1"}, serve: http,
     url: "http://127.0.0.1:{port}/predict", ready_url: "http://localhost:{port}/health", ready_timeout: 10min, hang_timeout: 90s, stop_timeout: 2s}}
  - {name: x, class: inference, run: {command: [serve], serve: openpi, url: "ws://127.0.0.1:8000", warmup: "0000000000000000000000000000000000000000000000000000000000000def", sessions: true}}
  - {name: v, class: training, robot: r-2, retry_pause: 2s, retry_most: 5min}
measured:
  - {task: t, environment: c, delay: 1.5s}
  - {task: u, environment: r-2, delay: 0}
baselines:
  - {name: b, tier: cloud, one_per: robot, billing: whole}
`

func TestEveryField(t *testing.T) {
	f, err := Parse("f.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	work, transfer, penalty, price := 4000.0, 0.0, 12.5, 0.0
	gpu := map[string]string{"gpu": "yes"}
	want := &File{
		Name: "f.yaml", Fleet: "plant-7",
		Settings: &messages.Settings{WeightLatency: 2, WeightCost: 3, Reserve: 0.15, Mode: messages.Static},
		Environments: []messages.Environment{
			{ID: "c", Tier: messages.Cloud, Site: "hub", Labels: gpu, Capacity: messages.Resources{Compute: 1000, Storage: 1000, Network: 1000}, Latency: 50, Price: 10, Billing: messages.Whole, Offline: true},
			{ID: "r-1", Tier: messages.Robot, Site: "main", Capacity: messages.Resources{Compute: 10}, Billing: messages.Share, Offline: true},
			{ID: "r-2", Tier: messages.Robot, Site: "main", Capacity: messages.Resources{Compute: 10}, Billing: messages.Share, Offline: true},
		},
		Tasks: []messages.Task{
			{Name: "t", Class: messages.Inference, Demand: messages.Resources{Compute: 1, Storage: 2, Network: 3}, Work: &work, Transfer: &transfer, Limit: 1000, Cost: 0.5,
				Replicas: 2, Priority: -3, Tiers: []messages.Tier{messages.Cloud, messages.Edge}, Sites: []string{"hub", "main"}, Labels: map[string]string{"arch": "arm"}, Colocate: true, Interrupt: messages.InterruptAllow,
				Prefer:    &messages.Preference{Tiers: []messages.Tier{messages.Edge}, Sites: []string{"main"}, Labels: map[string]string{"gpu": "l4"}, Penalty: &penalty},
				MovePrice: &price,
				Delivery:  messages.Direct, Handler: "h", Concurrency: 4, MaxBatch: 8, MaxWait: 4, MaxAttempts: 2, Deadline: 3000, Idempotent: true},
			{Name: "u", Class: messages.Action, Per: messages.PerRobot, OnLinkLoss: "retract"},
			{Name: "w", Class: messages.Inference, Run: &messages.Run{Artifact: strings.Repeat("0", 61) + "abc", Command: []string{"serve", "{artifact}", "{port}", "7"}, Env: map[string]string{"A": "1"}, Serve: messages.ServeHTTP,
				URL: "http://127.0.0.1:{port}/predict", ReadyURL: "http://localhost:{port}/health", ReadyTimeout: 600_000, HangTimeout: 90_000, StopTimeout: 2000}},
			{Name: "x", Class: messages.Inference, Run: &messages.Run{Command: []string{"serve"}, Serve: messages.ServeOpenPI, URL: "ws://127.0.0.1:8000", Warmup: strings.Repeat("0", 61) + "def", Sessions: true}},
			{Name: "v", Class: messages.Training, Robot: "r-2", RetryPause: 2000, RetryMost: 300_000},
		},
		Measured:  map[alloc.Pair]float64{{Task: "t", Environment: "c"}: 1500, {Task: "u", Environment: "r-2"}: 0},
		Baselines: []Baseline{{Name: "b", Tier: messages.Cloud, OnePer: messages.PerRobot, Billing: messages.Whole}},
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
	p := f.Problem()
	if len(p.Environments) != 3 || len(p.Replicas) != 7 || len(p.Measured) != 2 || p.Settings != *want.Settings {
		t.Errorf("problem: %d environments, %d replicas, %+v", len(p.Environments), len(p.Replicas), p.Settings)
	}
	// The test is not complete if a field of the vocabulary is missing from it.
	first, second, third := reflect.ValueOf(f.Tasks[0]), reflect.ValueOf(f.Tasks[1]), reflect.ValueOf(f.Tasks[4])
	fourth := reflect.ValueOf(f.Tasks[2]) // run is not beside a handler
	for i := range first.NumField() {
		if name := first.Type().Field(i).Name; first.Field(i).IsZero() && second.Field(i).IsZero() && third.Field(i).IsZero() && fourth.Field(i).IsZero() && name != "Revision" && name != "Robot" {
			t.Errorf("field %s of a task cannot be written in a file", name)
		}
	}
}

// What every kind of mistake reads like. The errors name the file, the line and the
// field, and all of a file are found at once.
func TestErrors(t *testing.T) {
	env := "environments:\n  - {id: e, tier: edge, site: s}\n"
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "f.yaml: it is empty; allowed are fleet, settings, environments, tasks, measured, baselines"},
		{"comment only", "# nothing\n", "f.yaml: it is empty; allowed are fleet, settings, environments, tasks, measured, baselines"},
		{"a list", "- a\n", `f.yaml:1: found a list, expected a mapping with fleet, settings, environments, tasks, measured, baselines`},
		{"a text", "hello\n", `f.yaml:1: found "hello", expected a mapping with fleet, settings, environments, tasks, measured, baselines`},
		{"not YAML", "fleet: a\n\tb: c\n", "f.yaml:2: it is not YAML: found a tab character that violates indentation"},
		{"not YAML, in a block", "tasks:\n  - name: a\n    class: inference\n   compute: 3\n  - name: b\n    class: action\n", "f.yaml:4: it is not YAML: did not find expected '-' indicator"},
		{"not YAML, unclosed", "tasks:\n  - {name: a,\n     class: inference}\n  - {name: b\nbaselines: []\n", "f.yaml:4: it is not YAML: did not find expected ',' or '}'"},
		{"not YAML, second document", "fleet: a\n---\nfleet: [\n", "f.yaml:3: it is not YAML: did not find expected node content"},
		{"no text", "\xff\xfe\x00", "f.yaml: it is not YAML: incomplete UTF-16 character"},
		{"two documents", "fleet: a\n---\nfleet: b\n", "f.yaml:2: found a second document; a fleet file is one"},
		{"unknown field", "task: []\n", "f.yaml:1: task: unknown field; did you mean tasks? allowed are fleet, settings, environments, tasks, measured, baselines"},
		{"unknown field of a task", "tasks:\n  - name: t\n    class: action\n    limits: 3\n",
			"f.yaml:4: tasks[0].limits: unknown field; did you mean limit? allowed are name, class, compute, storage, network, work, transfer, limit, cost, replicas, per, priority, tiers, sites, labels, prefer, move_price, robot, colocate, interrupt, delivery, handler, concurrency, max_batch, max_wait, max_attempts, retry_pause, retry_most, deadline, idempotent, run, on_link_loss"},
		{"unknown field of run", env + "tasks:\n  - name: t\n    class: inference\n    run: {comand: [x]}\n", "f.yaml:6: tasks[0].run.comand: unknown field; did you mean command? allowed are artifact, command, env, serve, url, ready_url, ready_timeout, hang_timeout, warmup, sessions, stop_timeout\nf.yaml:6: tasks[0].run.command: it is missing; allowed is a list of words, the program first"},
		{"a command line", env + "tasks:\n  - name: t\n    class: inference\n    run:\n      command: python3 serve.py\n", `f.yaml:7: tasks[0].run.command: found "python3 serve.py", expected a list of words, like [python3, serve.py]; no shell takes it apart`},
		{"another machine", env + "tasks:\n  - name: t\n    class: inference\n    run:\n      command: [x]\n      serve: http\n      url: http://10.0.0.1:80/\n", `f.yaml:9: tasks[0].run.url: found "http://10.0.0.1:80/", expected one on loopback like http://127.0.0.1:{port}/predict`},
		{"a digest", env + "tasks:\n  - name: t\n    class: inference\n    run:\n      artifact: abc\n      command: [x]\n", "f.yaml:7: tasks[0].run.artifact: found \"abc\", expected a SHA-256 of 64 hex digits, as `fleetbus artifacts push` prints it"},
		{"field twice", "fleet: a\nfleet: b\n", "f.yaml:2: fleet: found a second time; the first is in line 1"},
		{"bad name", "fleet: a.b\n", `f.yaml:1: fleet: fleet name "a.b": character 2 is '.'; allowed are 1 to 64 letters, digits, '-' and '_', starting and ending with a letter or digit, without "__"`},
		{"wrong unit", env + "tasks:\n  - name: t\n    class: inference\n    limit: 10GB\n", `f.yaml:6: tasks[0].limit: found "10GB" with the unit "GB", allowed are us, ms, s, min, h; a bare number is in ms`},
		{"negative", env + "tasks:\n  - {name: t, class: inference, storage: -1GB}\n", `f.yaml:4: tasks[0].storage: found -1 GB, allowed is 0 GB or more`},
		{"not a number", "environments:\n  - {id: e, tier: edge, price: .nan}\n", `f.yaml:2: environments[0].price: found ".nan", expected a number without a unit`},
		{"a unit on a price", "environments:\n  - {id: e, tier: edge, price: 5EUR}\n", `f.yaml:2: environments[0].price: found "5EUR", expected a number without a unit`},
		{"out of range", "settings:\n  resource_reserve_ratio: 0.5\n", `f.yaml:2: settings.resource_reserve_ratio: found 0.5, allowed are 0 to 0.3`},
		{"preset", "settings:\n  preset: realtim\n", `f.yaml:2: settings.preset: found "realtim", allowed are balanced, cost, realtime (did you mean realtime?)`},
		{"mode", "settings: {mode: 7}\n", `f.yaml:1: settings.mode: found "7", allowed are static, dynamic, adaptive`},
		{"nothing", "environments:\n  - {id: e, tier: edge, compute: }\n", `f.yaml:2: environments[0].compute: found nothing, expected a number with or without a unit (GFLOPS, TFLOPS, PFLOPS)`},
		{"missing", "environments:\n  - {site: s}\ntasks:\n  - {name: t}\n", "f.yaml:2: environments[0].id: it is missing; allowed is a name\n" +
			"f.yaml:2: environments[0].tier: it is missing; allowed is one of cloud, edge, robot\n" +
			"f.yaml:4: tasks[0].class: it is missing; allowed is one of training, inference, action"},
		{"whole number", env + "tasks:\n  - {name: t, class: inference, replicas: 2.5}\n", `f.yaml:4: tasks[0].replicas: found "2.5", allowed are whole numbers from 1 to 10000`},
		{"true or false", env + "tasks:\n  - {name: t, class: inference, colocate: yes}\n", `f.yaml:4: tasks[0].colocate: found "yes", allowed are true, false`},
		{"a list wanted", env + "tasks:\n  - {name: t, class: inference, tiers: edge}\n", `f.yaml:4: tasks[0].tiers: found "edge", expected a list`},
		{"in a list", env + "tasks:\n  - {name: t, class: inference, tiers: [edge, sky]}\n", `f.yaml:4: tasks[0].tiers[1]: found "sky", allowed are cloud, edge, robot`},
		{"labels", env + "tasks:\n  - {name: t, class: inference, labels: [gpu]}\n", `f.yaml:4: tasks[0].labels: found a list, expected a mapping of labels, like {gpu: "yes"}`},
		{"environment twice", "environments:\n  - {id: e, tier: edge}\n  - {id: e, tier: cloud}\n", `f.yaml:3: environments[1].id: the environment "e" is in line 2 already; every environment needs a name of its own`},
		{"counted twice", "environments:\n  - {id: e-2, tier: edge}\n  - {id: e, count: 3, tier: cloud}\n", `f.yaml:3: environments[1].id: the environment "e-2" is in line 2 already; every environment needs a name of its own`},
		{"count", "environments:\n  - {id: e, count: 0, tier: edge}\n", `f.yaml:2: environments[0].count: found "0", allowed are whole numbers from 1 to 10000`},
		{"task twice", env + "tasks:\n  - {name: t, class: action}\n  - name: t\n    class: action\n", `f.yaml:5: tasks[1].name: the task "t" is in line 4 already; every task needs a name of its own`},
		{"unknown robot", env + "tasks:\n  - {name: t, class: action,\n     robot: f}\n", `f.yaml:5: tasks[0].robot: found "f", which no environment of this file is called; did you mean e? allowed are e`},
		{"unknown site", "tasks:\n  - {name: t, class: action,\n     sites: [s, nowhere]}\n" + env, `f.yaml:3: tasks[0].sites: found "nowhere", which no environment of this file is in; allowed are s`},
		{"replicas beside per", env + "tasks:\n  - {name: t, class: inference, per: site,\n     replicas: 2}\n", `f.yaml:5: tasks[0].replicas: found 2 beside per: site, which sets the number; leave one of the two out`},
		{"robot beside per", env + "tasks:\n  - {name: t, class: action, robot: e,\n     per: robot}\n", `f.yaml:5: tasks[0].per: found robot beside robot: e (line 4), which is one robot already; leave one of the two out`},
		{"direct training", env + "tasks:\n  - {name: t, class: training, delivery: direct}\n", `f.yaml:4: tasks[0].delivery: found direct on a training task, whose jobs must wait in a queue; allowed is durable`},
		{"action off robots", env + "tasks:\n  - {name: t, class: action, tiers: [edge]}\n", `f.yaml:4: tasks[0].tiers: an action runs on a robot, found [edge]; add robot or leave tiers out`},
		{"empty preference", env + "tasks:\n  - {name: t, class: inference,\n     prefer: {penalty: 3}}\n", `f.yaml:5: tasks[0].prefer: found nothing that is preferred, allowed are tiers, sites, labels; say one of them or leave it out`},
		{"unknown field of a preference", env + "tasks:\n  - name: t\n    class: inference\n    prefer: {tier: [edge]}\n", `f.yaml:6: tasks[0].prefer.tier: unknown field; did you mean tiers? allowed are tiers, sites, labels, penalty`},
		{"impossible preference", env + "tasks:\n  - name: t\n    class: inference\n    tiers: [edge]\n    prefer:\n      tiers: [cloud]\n", `f.yaml:8: tasks[0].prefer.tiers: found cloud, which the task's own tiers [edge] do not allow; what is preferred must be possible`},
		{"preferred site", env + "tasks:\n  - name: t\n    class: inference\n    prefer:\n      sites: [S]\n", `f.yaml:7: tasks[0].prefer.sites: found "S", which no environment of this file is in; did you mean s? allowed are s`},
		{"penalty", env + "tasks:\n  - name: t\n    class: inference\n    prefer: {tiers: [edge], penalty: 5ms}\n", `f.yaml:6: tasks[0].prefer.penalty: found "5ms", expected a number without a unit`},
		{"negative penalty", env + "tasks:\n  - name: t\n    class: inference\n    prefer: {tiers: [edge], penalty: -5}\n", `f.yaml:6: tasks[0].prefer.penalty: found -5, allowed are 0 to 1e+12`},
		{"move price", env + "tasks:\n  - {name: t, class: inference, move_price: 1e13}\n", `f.yaml:4: tasks[0].move_price: found 1e+13, allowed are 0 to 1e+12`},
		{"measured", "measured:\n  - {task: a}\n", "f.yaml:2: measured[0].environment: it is missing; allowed is the id of an environment\n" +
			"f.yaml:2: measured[0].delay: it is missing; allowed is a number with or without a unit\n" +
			`f.yaml:2: measured[0].task: found "a", which no task of this file is called; it has none`},
		{"measured on nothing", "measured:\n  - {task: tt, environment: f, delay: -3ms}\n" + env + "tasks:\n  - {name: t, class: inference}\n",
			"f.yaml:2: measured[0].delay: found -3 ms, allowed is 0 ms or more\n" +
				`f.yaml:2: measured[0].task: found "tt", which no task of this file is called; did you mean t? allowed are t` + "\n" +
				`f.yaml:2: measured[0].environment: found "f", which no environment of this file is called; did you mean e? allowed are e`},
		{"measured twice", env + "tasks:\n  - {name: t, class: inference}\nmeasured:\n  - {task: t, environment: e, delay: 3}\n  - {task: t, environment: e, delay: 4}\n",
			`f.yaml:7: measured[1]: the delay of t on e is measured already; one is enough`},
		{"baseline called like the plan", "baselines:\n  - {name: hybrid, tier: cloud}\n", `f.yaml:2: baselines[0].name: found hybrid, which is what the plan itself is called; allowed is any other name`},
		{"link loss of no action", env + "tasks:\n  - {name: t, class: inference,\n     on_link_loss: stop}\n", `f.yaml:5: tasks[0].on_link_loss: found it on a task of class inference; only actions are stopped when a robot loses its link, so leave it out`},
		{"baseline", "baselines:\n  - {name: b, tier: cloud, billing: whole}\n", `f.yaml:2: baselines[0].billing: found it without one_per: robot; the environments that there are say themselves how they are billed`},
		{"several", "fleet: 'a b'\nsettings:\n  weight_latency: 11\n  wieght_cost: 1\n", `f.yaml:1: fleet: fleet name "a b": character 2 is ' '; allowed are 1 to 64 letters, digits, '-' and '_', starting and ending with a letter or digit, without "__"` + "\n" +
			"f.yaml:3: settings.weight_latency: found 11, allowed are 0 to 10\n" +
			"f.yaml:4: settings.wieght_cost: unknown field; did you mean weight_cost? allowed are preset, weight_latency, weight_cost, resource_reserve_ratio, mode"},
	} {
		f, err := Parse("f.yaml", []byte(tt.in))
		if err == nil {
			t.Errorf("%s: taken as %+v", tt.name, f)
			continue
		}
		if got := err.Error(); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
		if messages.CodeOf(err) != messages.CodeBadRequest {
			t.Errorf("%s: code %s", tt.name, messages.CodeOf(err))
		}
	}
}

// A file for a running fleet names robots and sites that only the fleet knows.
func TestReferencesNeedEnvironments(t *testing.T) {
	f, err := Parse("f.yaml", []byte("tasks:\n  - {name: t, class: action, robot: r7}\n  - {name: u, class: inference, sites: [north]}\n"))
	if err != nil || f.Settings != nil || f.Planning() != messages.DefaultSettings() {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestAliases(t *testing.T) {
	f, err := Parse("f.yaml", []byte("environments:\n  - {id: a, tier: edge, labels: &l {gpu: l4}}\n  - {id: b, tier: edge, labels: *l}\n"))
	if err != nil || f.Environments[1].Labels["gpu"] != "l4" {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	if _, err := Load(path); messages.CodeOf(err) != messages.CodeNotFound || !strings.Contains(err.Error(), path) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, []byte("colour: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var all Errors
	if !errors.As(err, &all) || len(all) != 1 || all[0].File != path || all[0].Line != 1 || all[0].Field != "colour" {
		t.Errorf("wrong: %v", err)
	}
	if _, err := Load(t.TempDir()); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Errorf("a directory: %v", err)
	}
}

// Whatever a file holds, reading it ends in errors or in what passes every check.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	for _, s := range []string{"", "a: &a [*a]\n", "tasks: &t\n  - *t\n", "environments: [{id: e, count: 10000, tier: edge}]\n", "? [a]\n: b\n", "fleet: !!binary aGk=\n",
		"<<: {fleet: a}\n", "tasks: [{name: t, class: action, limit: 1e308h}]\n", "settings: {weight_cost: .inf}\n", "fleet: \"\\xff\"\n", "%YAML 9.9\n---\nfleet: a\n",
		"environments: [{id: a, tier: robot}]\ntasks: [{name: t, class: action, per: robot}]\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("f.yaml", data)
		if err != nil {
			var all Errors
			if !errors.As(err, &all) || len(all) == 0 || file != nil {
				t.Fatalf("%v, %v", file, err)
			}
			return
		}
		for _, e := range file.Environments {
			if err := e.Check(""); err != nil {
				t.Fatal(err)
			}
			if math.IsNaN(e.Price) {
				t.Fatal("NaN")
			}
		}
		for _, x := range file.Tasks {
			if err := x.Check(""); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Planning().Check(""); err != nil {
			t.Fatal(err)
		}
	})
}
