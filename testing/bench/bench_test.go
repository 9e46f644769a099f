package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// tiny has two agents and three jobs; 0 and 1 on the first and 2 on the second cost 6.
const tiny = "2 3\n1 2 9\n 5 9 3\n4 4 4\n4 4 4\n8 4\n"

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGapPrintsOneObjectALine(t *testing.T) {
	var out strings.Builder
	if err := run([]string{"gap", "--time", "20ms", "--json", write(t, "a1", tiny), write(t, "a2", tiny)}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), out.String())
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"instance": "a2", "agents": 2.0, "jobs": 3.0, "cost": 6.0, "feasible": true} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	first, total, bound := got["first_ms"].(float64), got["total_ms"].(float64), got["bound"].(float64)
	if first < 0 || first > total || bound > 6 {
		t.Errorf("first after %v of %v ms, bound %v", first, total, bound)
	}
}

func TestGapTable(t *testing.T) {
	var out strings.Builder
	best := write(t, "best.csv", "instance,jobs,best\na1,3,6\n")
	if err := run([]string{"gap", "--time", "20ms", "--best", best, write(t, "a1", tiny)}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"instance", "a1", "0.000", "class", "0.0000"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestBadFilesNameTheLine(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "line 0: the file ends before the number of agents"},
		{"no agents", "0 3", "line 1: the number of agents is 0"},
		{"half a job", "2 3.5", "line 1: the number of jobs is 3.5"},
		{"too many", "60000 60000", "line 1: 60000 agents with 60000 jobs"},
		{"a word", "2 3\n1 2 x\n", `line 2: cost of agent 1, number 3 is "x"`},
		{"not a number", "2 3\n1 2 NaN\n", `line 2: cost of agent 1, number 3 is "NaN"`},
		{"negative", "2 3\n1 2 9\n5 9 3\n4 -4 4\n", `line 4: weight of agent 1, number 2 is "-4"`},
		{"short", "2 3\n1 2 9\n5 9 3\n4 4 4\n4 4 4\n8\n", "line 6: the file ends before capacity, number 2"},
		{"long", tiny + "7\n", `line 7: "7" is more than the 16 numbers`},
	} {
		if _, err := readGap(strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	for text, want := range map[string]string{
		"":                      "line 1",
		"name,best\na,1\n":      "line 1",
		"instance,best\na,-1\n": `line 2: best is "-1"`,
	} {
		if _, err := readBest(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestWrongArguments(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "name a benchmark: acks, balance, deploy, durable, exec, failover, gap"},
		{[]string{"nap"}, `no benchmark "nap"`},
		{[]string{"gap"}, "name the files"},
		{[]string{"gap", "--time", "0s", "x"}, "--time"},
		{[]string{"gap", "--json", "/nowhere/x"}, "/nowhere/x"},
		{[]string{"multi", "--seeds", "0"}, "--seeds"},
	} {
		if err := run(tt.args, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %s", tt.args, err, tt.want)
		}
	}
}

func TestVerifyFindsWhatIsBroken(t *testing.T) {
	g, err := readGap(strings.NewReader(tiny))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		plan     []int
		cost     float64
		feasible bool
	}{{[]int{0, 0, 1}, 6, true}, {[]int{0, 1, 1}, 13, false}, {[]int{0, 0, -1}, 3, false}, {[]int{0, 0}, 3, false}} {
		if cost, feasible := g.verify(tt.plan); cost != tt.cost || feasible != tt.feasible {
			t.Errorf("%v: %v, %v", tt.plan, cost, feasible)
		}
	}
}

func TestGenerateDependsOnItsArgumentsAlone(t *testing.T) {
	for _, class := range []string{"c", "d", "e"} {
		a, err := generate(class, 3, 10, 7)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := generate(class, 3, 10, 7)
		c, _ := generate(class, 3, 10, 8)
		if !reflect.DeepEqual(a, b) || reflect.DeepEqual(a, c) {
			t.Errorf("%s: equal seeds have to give equal instances, and others others", class)
		}
	}
	if _, err := generate("f", 3, 10, 7); err == nil {
		t.Error("type f")
	}
}
