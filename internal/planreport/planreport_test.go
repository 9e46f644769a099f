package planreport

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
)

var update = flag.Bool("update", false, "write the goldens anew; look at what git says then")

func build(t *testing.T, path string, set, explain []string) *Report {
	t.Helper()
	f, err := fleetfile.Load(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	f.Name = filepath.Base(path)
	s := f.Planning()
	for _, x := range set {
		if err := Set(&s, x); err != nil {
			t.Fatal(err)
		}
	}
	f.Settings = &s
	r, err := Build(f, explain...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func encode(t *testing.T, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	configs := "../../configs/"
	for _, tt := range []struct {
		golden, path string
		set, explain []string
		json         bool
	}{
		{"smart-factory", configs + "smart-factory.yaml", nil, nil, false},
		{"smart-factory.json", configs + "smart-factory.yaml", nil, []string{"action/0"}, true},
		{"three-tiers-reserve", configs + "three-tiers.yaml", []string{"resource_reserve_ratio=0.1"}, []string{"inference", "action"}, false},
		{"three-tiers-reserve.json", configs + "three-tiers.yaml", []string{"resource_reserve_ratio=0.1"}, nil, true},
		{"two-environments", configs + "two-environments.yaml", nil, []string{"training"}, false},
		{"scarcity", configs + "scarcity.yaml", nil, nil, false},
		{"ten-robots", configs + "ten-robots.yaml", nil, nil, false},
		{"fleet", configs + "fleet.yaml", nil, []string{"inference", "calibrate"}, false},
		{"fleet-adaptive", configs + "fleet.yaml", []string{"mode=adaptive"}, []string{"inference/1"}, false},
		{"odd", "testdata/odd.yaml", nil, nil, false},
		{"nothing", "testdata/nothing.yaml", nil, nil, false},
	} {
		r := build(t, tt.path, tt.set, tt.explain)
		got := encode(t, r)
		if !tt.json {
			var b bytes.Buffer
			if err := r.Write(&b); err != nil {
				t.Fatal(err)
			}
			got = b.Bytes()
		}
		path := filepath.Join("testdata", tt.golden+".golden")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.golden, got, want)
		}
	}
}

// The numbers as a program reads them, in the digits of the model.
func TestJSONNumbers(t *testing.T) {
	text := string(encode(t, build(t, "../../configs/smart-factory.yaml", nil, nil)))
	for _, want := range []string{`"delay_ms": 61.7,`, `"cost_per_hour": 5.6,`, `"delay_ms": 150.511,`, `"cost_per_hour": 5.11,`, `"delay_ms": 50.001,`, `"score": 67.3,`, `"broken": [`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "null") {
		t.Errorf("a null in\n%s", text)
	}
}

// What is preferred and what was measured, as a program reads it.
func TestWishesInJSON(t *testing.T) {
	f, err := fleetfile.Parse("f.yaml", []byte(`
settings: {weight_latency: 1, weight_cost: 1, resource_reserve_ratio: 0, mode: adaptive}
environments:
  - {id: near, tier: edge, compute: 10, latency: 5}
  - {id: robot, tier: robot, compute: 10, latency: 30}
tasks:
  - {name: a, class: inference, compute: 5, limit: 60, prefer: {tiers: [cloud, robot], penalty: 7}}
  - {name: b, class: inference, compute: 100}
measured:
  - {task: a, environment: near, delay: 9.5}
baselines:
  - {name: all-robot, tier: robot, one_per: robot}
  - {name: an-edge-each, tier: edge, one_per: robot}
`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Build(f, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	a := r.Assignments[0]
	if a.Environment != "near" || a.Delay != 9.5 || a.Modelled != 5.5 || !a.Measured || a.Penalty != 7 || a.Score != 16.5 || a.Limit != 60 || a.Slack != 50.5 {
		t.Errorf("%+v", a)
	}
	if r.Totals.Penalty != 7 || r.Totals.Score != 16.5 || r.Totals.Gap != 0 {
		t.Errorf("%+v", r.Totals)
	}
	if c := r.Matrix[1]; c.Measured || c.Delay != 30.5 || c.Penalty != 0 {
		t.Errorf("%+v", c)
	}
	if u := r.Environments[0].Compute; u != (Use{Used: 5, Free: 5, Planned: 10, Capacity: 10}) || strings.Join(r.Environments[0].Replicas, " ") != "a/0" {
		t.Errorf("%+v", r.Environments[0])
	}
	// A box like the edge is measured like it, and is no robot either.
	if all, each := r.Comparison[0], r.Comparison[1]; all.Score != 30.5 || each.Delay != 9.5 || each.Score != 16.5 {
		t.Errorf("%+v\n%+v", all, each)
	}
	text := string(encode(t, r))
	for _, want := range []string{`"modelled_delay_ms": 5.5,`, `"measured": true,`, `"penalty": 7,`, `"limit_slack_ms": 50.5,`, `"it prefers tier cloud or robot"`,
		`"waiting": true,`, `"fix": "add 90 TFLOPS to robot: b needs 100 TFLOPS; robot has 10"`, `"more_score": 14,`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
}

func TestNum(t *testing.T) {
	for _, tt := range []struct {
		in         float64
		json, text string
	}{
		{61.699999999999996, "61.7", "61.7"}, {162.49999999999997, "162.5", "162.5"}, {0.1 + 0.2, "0.3", "0.3"}, {0, "0", "0"}, {math.Copysign(0, -1), "0", "0"},
		{1e12, "1000000000000", "1000000000000"}, {1e20, "1e+20", "1e+20"}, {1e-9, "1e-09", "1e-09"}, {1.0 / 3, "0.333333333333", "0.333333333"},
		{math.Inf(1), "null", "∞"}, {-1.5, "-1.5", "-1.5"},
	} {
		got, err := json.Marshal(Num(tt.in))
		if err != nil || string(got) != tt.json || Num(tt.in).String() != tt.text {
			t.Errorf("%v: %s and %s, want %s and %s (%v)", tt.in, got, Num(tt.in), tt.json, tt.text, err)
		}
	}
}

func TestSet(t *testing.T) {
	s := messages.DefaultSettings()
	for _, x := range []string{"preset=cost", "weight_latency=3", " resource_reserve_ratio = 0.2 ", "mode=static"} {
		if err := Set(&s, x); err != nil {
			t.Errorf("%s: %v", x, err)
		}
	}
	if want := (messages.Settings{WeightLatency: 3, WeightCost: 2, Reserve: 0.2, Mode: messages.Static}); s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	before := s
	for in, want := range map[string]string{
		"reserve":                    `found "reserve", allowed is name=value`,
		"reserve=0":                  "reserve: unknown parameter, allowed are preset, weight_latency, weight_cost, resource_reserve_ratio, mode",
		"resource_reserve_ratio=0.4": "resource_reserve_ratio: found 0.4, allowed are 0 to 0.3",
		"weight_cost=cheap":          `weight_cost: found "cheap", allowed is a number`,
		"weight_cost=NaN":            "weight_cost: found NaN",
		"mode=wild":                  `mode: found "wild", allowed are static, dynamic, adaptive`,
		"preset=fast":                `preset: found "fast", allowed are balanced, cost, realtime`,
	} {
		if err := Set(&s, in); err == nil || !strings.Contains(err.Error(), want) || s != before {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestExplainNeedsAName(t *testing.T) {
	f, err := fleetfile.Load("../../configs/scarcity.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Build(f, "trainin")
	if want := `"trainin" is neither a task nor a replica of this plan; tasks are inference, training`; messages.CodeOf(err) != messages.CodeNotFound || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestWriteReportsErrors(t *testing.T) {
	if err := build(t, "../../configs/scarcity.yaml", nil, nil).Write(brokenPipe{}); err == nil {
		t.Error("a broken pipe is no error")
	}
}
