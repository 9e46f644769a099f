package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

func embedded(t *testing.T) multiSet {
	t.Helper()
	set, err := readMultiSet(bytes.NewReader(multiCSV))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// steps solves with so many steps and no clock, so that a test finds the same everywhere.
func steps(budget int) func(*assign.Instance, assign.Options) (assign.Result, error) {
	return func(p *assign.Instance, o assign.Options) (assign.Result, error) {
		o.Budget, o.Stop = budget, nil
		return assign.Solve(p, o)
	}
}

// The set has every type, size and seed that the command solves by default; each instance
// is generated again as it was, and its optimum has room between bound and best.
func TestTheSetIsWhatTheGeneratorMakes(t *testing.T) {
	set := embedded(t)
	names := multiNames(3, 0)
	if len(set) != len(names) || len(names) != 3*3*len(multiSizes) {
		t.Errorf("%d instances in the set, %d names", len(set), len(names))
	}
	for _, n := range names {
		k, ok := set[n]
		if !ok {
			t.Errorf("%s is not in the set", n)
			continue
		}
		p, err := n.generate()
		if err != nil {
			t.Fatal(err)
		}
		if sum := checksum(p); sum != k.checksum {
			t.Errorf("%s has the checksum %s, in the set it is %s", n, sum, k.checksum)
		}
		if k.bound > k.best {
			t.Errorf("%s: bound %v, best %v", n, k.bound, k.best)
		}
	}
	var text bytes.Buffer
	if err := set.write(&text); err != nil || !bytes.Equal(text.Bytes(), multiCSV) {
		t.Errorf("the file is not as --update writes it: %v", err)
	}
}

func TestChecksumsAreOfEveryNumber(t *testing.T) {
	seen := map[string]bool{}
	for i, change := range []func(p *assign.Instance){
		func(*assign.Instance) {},
		func(p *assign.Instance) { p.Capacity[1][2]++ },
		func(p *assign.Instance) { p.Open = []float64{0, 0, 0} },
		func(p *assign.Instance) { p.Items[3].Wait = 1 },
		func(p *assign.Instance) { p.Items[3].Apart = 1 },
		func(p *assign.Instance) { p.Items[3].Options[1].Bin = 7 },
		func(p *assign.Instance) { p.Items[3].Options[1].Cost++ },
		func(p *assign.Instance) { p.Items[3].Options[1].Need[2]++ },
		func(p *assign.Instance) { p.Items[3].Options = p.Items[3].Options[1:] },
		func(p *assign.Instance) { p.Items = p.Items[1:] },
	} {
		p, err := generate("d", 3, 10, 7)
		if err != nil {
			t.Fatal(err)
		}
		change(p)
		sum := checksum(p)
		if seen[sum] {
			t.Errorf("change %d is not noticed", i)
		}
		seen[sum] = true
	}
}

// Little effort places the small ones, and no plan is under what the set calls a bound.
func TestSmallOnesAreFeasibleAndNotUnderTheBound(t *testing.T) {
	set := embedded(t)
	for _, class := range multiClasses {
		for seed := range uint64(3) {
			n := multiName{class, 5, 100, seed + 1}
			p, err := n.generate()
			if err != nil {
				t.Fatal(err)
			}
			res, err := steps(200_000)(p, assign.Options{})
			if err != nil {
				t.Fatal(err)
			}
			v, k := verifyMulti(p, res.Assign), set[n]
			if !v.feasible() || v.cost != res.Cost || v.used < 85 {
				t.Errorf("%s: %+v, cost %v by the engine", n, v, res.Cost)
			}
			if v.cost < k.bound || res.Bound > k.best || v.cost > 1.05*k.best {
				t.Errorf("%s: cost %v and bound %v, in the set %v and %v", n, v.cost, res.Bound, k.best, k.bound)
			}
		}
	}
}

func TestVerifyMultiFindsWhatIsBroken(t *testing.T) {
	need := func(a, b, c float64) [assign.Resources]float64 { return [assign.Resources]float64{a, b, c} }
	p := &assign.Instance{
		Capacity: [][assign.Resources]float64{need(10, 10, 10), need(5, 5, 0)},
		Items: []assign.Item{
			{Options: []assign.Option{{Bin: 0, Cost: 1, Need: need(5, 1, 10)}, {Bin: 1, Cost: 2, Need: need(5, 1, 0)}}},
			{Options: []assign.Option{{Bin: 0, Cost: 4, Need: need(5, 1, 0)}, {Bin: 1, Cost: 8, Need: need(1, 1, 1)}}},
			{Options: []assign.Option{{Bin: 0, Cost: 16, Need: need(0, 9, 0)}}},
		},
	}
	for _, tt := range []struct {
		plan       []int
		cost, used float64
		waiting    int
		fault      string
	}{
		{[]int{0, 0, -1}, 5, 50, 1, ""},
		{[]int{1, 0, 0}, 22, 100, 0, ""},
		{[]int{0, 0, 0}, 21, 55, 0, "bin 0 uses 11 of its 10 of resource 1"},
		{[]int{-1, 1, -1}, 8, 10, 2, "bin 1 uses 1 of its 0 of resource 2"},
		{[]int{0, 0, 1}, 5, 50, 0, "item 2 is in bin 1, which it may not be"},
		{[]int{-2, 0, -1}, 4, 25, 1, "item 0 is in bin -2"},
		{[]int{1, 0}, 0, 0, 0, "the plan has 2 places for 3 items"},
	} {
		v := verifyMulti(p, tt.plan)
		if tt.fault == "" && v.fault != nil || tt.fault != "" && (v.fault == nil || !strings.Contains(v.fault.Error(), tt.fault)) {
			t.Errorf("%v: %v, want %s", tt.plan, v.fault, tt.fault)
		}
		if v.cost != tt.cost || v.waiting != tt.waiting || v.feasible() != (tt.fault == "" && tt.waiting == 0) {
			t.Errorf("%v: %+v", tt.plan, v)
		}
		if math.Abs(v.used-tt.used) > 1e-9 {
			t.Errorf("%v: %v %% used, want %v", tt.plan, v.used, tt.used)
		}
	}
}

// An engine that lies, and a set that does: each is found out.
func TestFaultsOfEngineAndSetAreFound(t *testing.T) {
	n := multiName{"d", 5, 100, 1}
	p, err := n.generate()
	if err != nil {
		t.Fatal(err)
	}
	sum := checksum(p)
	for _, tt := range []struct {
		name   string
		lie    func(*assign.Result)
		k      known
		faults []string
	}{
		{"none", func(*assign.Result) {}, known{sum, 5593, 5509}, nil},
		{"over capacity", func(res *assign.Result) {
			for j := range 60 {
				res.Assign[j] = 0
			}
		}, known{}, []string{"bin 0 uses", "feasible is true by the engine, and false"}},
		{"who waits", func(res *assign.Result) { res.Assign[0] = -1 }, known{}, []string{"feasible is true by the engine", "cost is"}},
		{"cost", func(res *assign.Result) { res.Cost-- }, known{}, []string{"cost is"}},
		{"own bound", func(res *assign.Result) { res.Bound = res.Cost + 1 }, known{}, []string{"is over cost"}},
		{"bound over the optimum", func(res *assign.Result) { res.Bound = res.Cost }, known{sum, 5500, 5400}, []string{"is over the best known cost 5500"}},
		{"set's bound", func(*assign.Result) {}, known{sum, 9999, 9998}, []string{"is under the best known bound 9998"}},
		{"set's cost", func(*assign.Result) {}, known{sum, 5000, 4999}, []string{"is over the best known cost 5000"}},
		{"generator", func(*assign.Result) {}, known{"0123456789abcdef", 5593, 5509}, []string{sum, "0123456789abcdef in multi.csv", "generator has changed"}},
	} {
		set := multiSet{}
		if tt.k != (known{}) {
			set[n] = tt.k
		}
		before := tt.k
		r := multiRun{out: &strings.Builder{}, set: set, name: "multi.csv", limit: time.Second, solve: func(p *assign.Instance, o assign.Options) (assign.Result, error) {
			res, err := steps(100_000)(p, o)
			tt.lie(&res)
			return res, err
		}}
		err := r.run([]multiName{n})
		if (err == nil) != (tt.faults == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, f := range tt.faults {
			if err != nil && !strings.Contains(err.Error(), f) {
				t.Errorf("%s: %v does not say %q", tt.name, err, f)
			}
		}
		if tt.faults != nil && set[n] != before {
			t.Errorf("%s: what is wrong was kept: %+v", tt.name, set[n])
		}
	}
}

// A first run makes the file; one that finds better says so and keeps it, a worse one
// changes nothing, and one with another generator begins anew.
func TestUpdateKeepsWhatIsBetter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "set.csv")
	names := []multiName{{"c", 5, 100, 1}, {"e", 5, 100, 2}}
	do := func(names []multiName) (lines []multiLine, file string) {
		t.Helper()
		set, err := loadMultiSet(path)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		r := multiRun{out: &out, asJSON: true, set: set, name: path, update: path, limit: time.Second, solve: steps(60_000)}
		if err := r.run(names); err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(out.String()) {
			var l multiLine
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return lines, string(text)
	}
	lines, first := do(names)
	if lines[0].News != "new" || lines[1].News != "new" || lines[0].BestGap != nil || lines[0].Gap == nil || strings.Count(first, "\n") != 3 {
		t.Errorf("%+v\n%s", lines, first)
	}
	if lines, second := do(names[:1]); second != first || lines[0].News != "" || lines[0].Best != lines[0].Cost || lines[0].BestGap == nil || *lines[0].BestGap != 0 {
		t.Errorf("%+v, and the file was\n%s and is\n%s", lines, first, second)
	}
	change := func(f func(k *known)) {
		t.Helper()
		set, err := loadMultiSet(path)
		if err != nil {
			t.Fatal(err)
		}
		k := set[names[0]]
		f(&k)
		set[names[0]] = k
		if err := set.save(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, news string
		change     func(k *known)
	}{
		{"better cost", "better cost", func(k *known) { k.best++ }},
		{"better bound", "better bound", func(k *known) { k.bound-- }},
		{"better both", "better cost and bound", func(k *known) { k.best, k.bound = k.best+1, k.bound-1 }},
		{"another generator", "new", func(k *known) { *k = known{"0123456789abcdef", 2, 1} }},
	} {
		change(tt.change)
		if lines, file := do(names); file != first || lines[0].News != tt.news || lines[1].News != "" {
			t.Errorf("%s: %+v, and the file was\n%s and is\n%s", tt.name, lines, first, file)
		}
	}
	change(func(k *known) { k.best-- })
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines, file := do(names); file != string(text) || lines[0].News != "" || *lines[0].BestGap <= 0 {
		t.Errorf("%+v, and the file was\n%s and is\n%s", lines, text, file)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestMultiTable(t *testing.T) {
	n, other := multiName{"c", 5, 100, 1}, multiName{"c", 5, 100, 9}
	p, err := n.generate()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r := multiRun{out: &out, set: multiSet{n: {checksum(p), 9000, 100}}, name: "multi.csv", limit: time.Second, solve: steps(60_000)}
	if err := r.run([]multiName{n, other}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"to best %", "9000", "better cost and bound", "mean to best %", "1 better or new: keep them with --update"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	// Without a plan there are no gaps.
	out.Reset()
	r.solve = func(p *assign.Instance, _ assign.Options) (assign.Result, error) {
		return assign.Result{Assign: slices.Repeat([]int{-1}, len(p.Items)), Waiting: len(p.Items), Bound: 1}, nil
	}
	if err := r.run([]multiName{n}); err != nil || !strings.Contains(out.String(), "false") {
		t.Errorf("%v\n%s", err, out.String())
	}
	r.update = filepath.Join(t.TempDir(), "set.csv")
	if err := r.run([]multiName{other}); err == nil || !strings.Contains(err.Error(), "c5-100-9: no feasible plan within 1s") {
		t.Error(err)
	}
}

func TestMultiSolvesTheSet(t *testing.T) {
	var out strings.Builder
	if err := run([]string{"multi", "--time", "1ms", "--seeds", "1", "--items", "1600", "--json"}, &out); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 9 || strings.Count(out.String(), `"best":`) != n {
		t.Errorf("%d lines: %s", n, out.String())
	}
}

func TestMultiRefusesWrongArguments(t *testing.T) {
	header := "instance,checksum,best,bound\n"
	row := "c5-100-1,0123456789abcdef,2,1\n"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--time", "0s"}, "--time is 0s; it has to be more than 0"},
		{[]string{"--seeds", "0"}, "--seeds is 0; it has to be more than 0"},
		{[]string{"--items", "1601"}, "--items is 1601; no size has so many, the largest has 1600"},
		{[]string{"set.csv"}, `"set.csv" is no flag`},
		{[]string{"--update", ""}, "name the file"},
		{[]string{"--update", t.TempDir()}, "is a directory"},
		{[]string{"--update", write(t, "a", "")}, "line 1: the header has to be [instance checksum best bound]"},
		{[]string{"--update", write(t, "a", "instance,best\n")}, "line 1"},
		{[]string{"--update", write(t, "a", "name,checksum,best,bound\n")}, "line 1: the header has to be"},
		{[]string{"--update", write(t, "a", header+"c5-100-1,1\n")}, "line 2"},
		{[]string{"--update", write(t, "a", header+row+row)}, "line 3: instance c5-100-1 stands here a second time"},
		{[]string{"--update", write(t, "a", header+"f5-100-1,0123456789abcdef,2,1\n")}, `line 2: instance is "f5-100-1"; allowed is`},
		{[]string{"--update", write(t, "a", header+"c5-100,0123456789abcdef,2,1\n")}, `instance is "c5-100"`},
		{[]string{"--update", write(t, "a", header+"c05-100-1x,0123456789abcdef,2,1\n")}, `instance is "c05-100-1x"`},
		{[]string{"--update", write(t, "a", header+",0123456789abcdef,2,1\n")}, `instance is ""`},
		{[]string{"--update", write(t, "a", header+"c5-100-1,beef,2,1\n")}, `checksum of c5-100-1 is "beef"; allowed are 16 hexadecimal digits`},
		{[]string{"--update", write(t, "a", header+"c5-100-1,0123456789abcdef,NaN,1\n")}, `best of c5-100-1 is "NaN"; allowed is a number over 0`},
		{[]string{"--update", write(t, "a", header+"c5-100-1,0123456789abcdef,2,0\n")}, `bound of c5-100-1 is "0"`},
		{[]string{"--update", write(t, "a", header+"c5-100-1,0123456789abcdef,1,2\n")}, "line 2: bound 2 of c5-100-1 is over its best cost 1"},
	} {
		if err := run(append([]string{"multi"}, tt.args...), &strings.Builder{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %s", tt.args, err, tt.want)
		}
	}
}
