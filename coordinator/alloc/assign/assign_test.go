package assign

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// small makes an instance that can be brute-forced, with three resources, options that
// are missing, groups, opening prices and prices of waiting.
func small(rng *rand.Rand) Instance {
	m, n := 1+rng.IntN(3), 1+rng.IntN(6)
	p := Instance{Capacity: make([][Resources]float64, m), Items: make([]Item, n)}
	unit := []float64{1, 0.1}[rng.IntN(2)]
	for i := range p.Capacity {
		for k := range p.Capacity[i] {
			p.Capacity[i][k] = unit * float64(rng.IntN(20))
		}
	}
	if rng.IntN(3) == 0 {
		for range m {
			p.Open = append(p.Open, float64(rng.IntN(10)))
		}
	}
	wait, apart := rng.IntN(3) == 0, rng.IntN(3) == 0
	for j := range p.Items {
		it := &p.Items[j]
		for b := range m {
			if rng.IntN(5) == 0 {
				continue
			}
			o := Option{Bin: b, Cost: float64(rng.IntN(30)-3) * unit}
			for k := range o.Need {
				o.Need[k] = unit * float64(rng.IntN(9))
			}
			it.Options = append(it.Options, o)
		}
		if wait {
			it.Wait = float64(rng.IntN(60))
		}
		if apart {
			it.Apart = rng.IntN(3)
		}
	}
	return p
}

// price recomputes an assignment from the instance: what is placed and waits, whether
// every constraint holds. It shares no code with the solver.
func price(p Instance, at []int, start []int, move float64) (cost, objective float64, waiting int, ok bool) {
	load := make([][Resources]float64, len(p.Capacity))
	used := make([]bool, len(p.Capacity))
	type place struct{ group, bin int }
	seen := map[place]bool{}
	ok = true
	var beside float64
	for j, b := range at {
		it := p.Items[j]
		if b < 0 {
			waiting++
			beside += it.Wait
			continue
		}
		i := slices.IndexFunc(it.Options, func(o Option) bool { return o.Bin == b })
		if i < 0 {
			return 0, 0, 0, false
		}
		if it.Apart > 0 && seen[place{it.Apart, b}] {
			ok = false
		}
		seen[place{it.Apart, b}] = true
		cost += it.Options[i].Cost
		if start != nil && start[j] >= 0 && start[j] != b {
			beside += move
		}
		for k, v := range it.Options[i].Need {
			load[b][k] += v
		}
		if !used[b] && p.Open != nil {
			cost += p.Open[b]
		}
		used[b] = true
	}
	for b, list := range load {
		for k, v := range list {
			ok = ok && v <= p.Capacity[b][k]+1e-9*max(1, p.Capacity[b][k])
		}
	}
	return cost, cost + beside, waiting, ok
}

// brute tries everything: the fewest that wait of those to whom waiting has no price,
// then the least objective.
func brute(p Instance, start []int, move float64) (objective float64, free int) {
	objective, free = math.Inf(1), math.MaxInt
	at := make([]int, len(p.Items))
	var walk func(j int)
	walk = func(j int) {
		if j < len(at) {
			at[j] = -1
			walk(j + 1)
			for _, o := range p.Items[j].Options {
				at[j] = o.Bin
				walk(j + 1)
			}
			return
		}
		if _, v, _, ok := price(p, at, start, move); ok {
			if w := unpriced(p, at); w < free || w == free && v < objective {
				objective, free = v, w
			}
		}
	}
	walk(0)
	return objective, free
}

func unpriced(p Instance, at []int) (n int) {
	for j, b := range at {
		if b < 0 && p.Items[j].Wait == 0 {
			n++
		}
	}
	return n
}

func solved(t *testing.T, p Instance, o Options) Result {
	t.Helper()
	res, err := Solve(&p, o)
	if err != nil {
		t.Fatal(err)
	}
	cost, _, waiting, ok := price(p, res.Assign, nil, 0)
	if !ok || waiting != res.Waiting || res.Feasible != (waiting == 0) || math.Abs(cost-res.Cost) > 1e-9*max(1, math.Abs(cost)) {
		t.Fatalf("%v of %+v: keeps the constraints: %v, cost %v (says %v), %d wait (says %d)", res.Assign, p, ok, cost, res.Cost, waiting, res.Waiting)
	}
	if res.Bound > res.Objective {
		t.Fatalf("bound %v over objective %v", res.Bound, res.Objective)
	}
	return res
}

// allNeeded says that each of the resources is needed by somebody.
func allNeeded(p Instance) bool {
	var needed [Resources]bool
	for _, it := range p.Items {
		for _, o := range it.Options {
			for k, v := range o.Need {
				needed[k] = needed[k] || v > 0
			}
		}
	}
	return !slices.Contains(needed[:], false)
}

// dualBound is the bound that prices lead to, before a result cuts it off at the objective
// of its own plan: where that plan is optimal, the cut hides a bound that is too high.
func dualBound(p Instance, o Options, prices [][Resources]float64, optimum float64) float64 {
	d := newDual(compile(&p, &o))
	d.warm(prices)
	d.climb(50, optimum)
	return d.bound()
}

// Plans and bounds against the optimum of small cases. It ends after so many cases in which
// a bound was compared with an optimum, and all three resources are needed.
func TestAgainstBruteForce(t *testing.T) {
	const enough = 1000
	rng := rand.New(rand.NewPCG(1, 2))
	cases, missed, compared, tight := 0, 0, 0, 0
	for ; compared < enough; cases++ {
		if cases == 4*enough {
			t.Fatalf("only %d of %d cases have an optimum that a bound can be compared with", compared, cases)
		}
		p := small(rng)
		o := Options{Budget: 15_000}
		if rng.IntN(3) == 0 {
			o.MovePrice = float64(rng.IntN(5))
			for range p.Items {
				o.Start = append(o.Start, rng.IntN(len(p.Capacity)+1)-1)
			}
		}
		best, free := brute(p, o.Start, o.MovePrice)
		res := solved(t, p, o)
		_, got, _, _ := price(p, res.Assign, o.Start, o.MovePrice)
		switch w := unpriced(p, res.Assign); {
		case w < free || w == free && got < best-1e-9:
			t.Fatalf("case %d: %v (%d wait) is under the optimum %v (%d): %+v", cases, got, w, best, free, p)
		case w > free || got > best+1e-9:
			missed++
		}
		// What waits without a price of its own has one in the bound that we do not know here.
		if free > 0 {
			continue
		}
		if bound := dualBound(p, o, res.Prices, best); max(bound, res.Bound) > best+1e-9 {
			t.Fatalf("case %d: bound %v, or %v before the cut, is over the optimum %v: %+v", cases, res.Bound, bound, best, p)
		}
		if allNeeded(p) {
			compared++
			if res.Bound >= best-0.01*math.Abs(best) {
				tight++
			}
		}
	}
	t.Logf("%d bounds with three resources are at most the optimum, %d within 1%% of it; %d of %d plans are not optimal", compared, tight, missed, cases)
	if missed > cases/50 {
		t.Errorf("%d of %d plans are not optimal", missed, cases)
	}
	// A bound that is never near would prove nothing.
	if tight < compared/2 {
		t.Errorf("%d of %d bounds are within 1%% of the optimum", tight, compared)
	}
}

// hard makes an instance of type D or E, in which cost and need are at odds, with three
// resources.
func hard(rng *rand.Rand, m, n int) Instance {
	p := Instance{Capacity: make([][Resources]float64, m), Items: make([]Item, n)}
	for j := range p.Items {
		for b := range m {
			o := Option{Bin: b}
			var sum float64
			for k := range o.Need {
				o.Need[k] = 1 + float64(rng.IntN(100))
				p.Capacity[b][k] += o.Need[k] / float64(m)
				sum += o.Need[k]
			}
			o.Cost = math.Round(111-sum/3) + float64(rng.IntN(21))
			p.Items[j].Options = append(p.Items[j].Options, o)
		}
	}
	for b := range p.Capacity {
		for k := range p.Capacity[b] {
			p.Capacity[b][k] = math.Floor(0.9 * p.Capacity[b][k])
		}
	}
	return p
}

func TestHardOnesArePlacedAndCertified(t *testing.T) {
	for seed := range uint64(3) {
		res := solved(t, hard(rand.New(rand.NewPCG(seed, 0)), 10, 200), Options{Budget: 150_000})
		if !res.Feasible || res.Objective > 1.1*res.Bound {
			t.Errorf("seed %d: %d wait, objective %v, bound %v", seed, res.Waiting, res.Objective, res.Bound)
		}
	}
}

func TestALargerBudgetIsNeverWorse(t *testing.T) {
	for seed := range uint64(3) {
		p := hard(rand.New(rand.NewPCG(seed, 1)), 5, 40)
		last := math.Inf(1)
		for budget := 1; budget < 70_000; budget *= 4 {
			res := solved(t, p, Options{Budget: budget})
			if res.Objective > last {
				t.Errorf("seed %d: budget %d gives %v, less gave %v", seed, budget, res.Objective, last)
			}
			last = res.Objective
			if again := solved(t, p, Options{Budget: budget}); !slices.Equal(again.Assign, res.Assign) {
				t.Errorf("seed %d: two runs differ", seed)
			}
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 20 {
		p := hard(rng, 4, 30)
		for j := range p.Items {
			p.Items[j].Apart = rng.IntN(4)
		}
		o := Options{Budget: 50_000}
		want := solved(t, p, o)
		order := rng.Perm(len(p.Items))
		q := Instance{Capacity: p.Capacity, Items: make([]Item, len(p.Items))}
		for i, j := range order {
			it := p.Items[j]
			it.Options = slices.Clone(it.Options)
			rng.Shuffle(len(it.Options), func(a, b int) { it.Options[a], it.Options[b] = it.Options[b], it.Options[a] })
			q.Items[i] = it
		}
		got := solved(t, q, o)
		for i, j := range order {
			if got.Assign[i] != want.Assign[j] {
				t.Fatalf("item %d is in bin %d, and in %d where it stands at %d", j, want.Assign[j], got.Assign[i], i)
			}
		}
		if got.Bound != want.Bound || got.Objective != want.Objective {
			t.Errorf("%v ≥ %v, and %v ≥ %v in another order", want.Objective, want.Bound, got.Objective, got.Bound)
		}
	}
}

// A plan is kept where moving costs more than it gains, and prices give the bound
// without a climb.
func TestWarmStart(t *testing.T) {
	p := hard(rand.New(rand.NewPCG(9, 9)), 8, 120)
	full := solved(t, p, Options{Budget: 100_000})
	warm := solved(t, p, Options{Budget: 1, Start: full.Assign, Prices: full.Prices, MovePrice: 1000})
	if !slices.Equal(warm.Assign, full.Assign) || warm.Objective != full.Objective {
		t.Errorf("moved from %v to %v", full.Objective, warm.Objective)
	}
	if warm.Bound < 0.99*full.Bound {
		t.Errorf("bound %v with the prices that gave %v", warm.Bound, full.Bound)
	}
	start := slices.Clone(full.Assign)
	start[3], start[70] = -1, -1
	warm = solved(t, p, Options{Budget: 1, Start: start, Prices: full.Prices, MovePrice: 1000})
	if !warm.Feasible {
		t.Errorf("%d wait", warm.Waiting)
	}
}

func TestStopAndImproved(t *testing.T) {
	p := hard(rand.New(rand.NewPCG(4, 4)), 8, 120)
	last, told, asked := math.Inf(1), 0, 0
	res := solved(t, p, Options{Budget: math.MaxInt,
		Stop:     func() bool { asked++; return asked > 400 },
		Improved: func(v float64, waiting int) { told++; last = v },
	})
	if asked != 401 || told == 0 || last != res.Objective {
		t.Errorf("asked %d times, told %d times, at last of %v; the result is %v", asked, told, last, res.Objective)
	}
}

func TestErrorsNameTheField(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Instance, *Options)
		want   []string
	}{
		{"capacity", func(p *Instance, _ *Options) { p.Capacity[1][2] = math.NaN() }, []string{"bin 1: capacity 2", "NaN"}},
		{"open", func(p *Instance, _ *Options) { p.Open = []float64{0, -1} }, []string{"bin 1: opening price", "-1"}},
		{"few prices", func(p *Instance, _ *Options) { p.Open = []float64{0} }, []string{"open", "1 prices for 2 bins"}},
		{"bin", func(p *Instance, _ *Options) { p.Items[1].Options[0].Bin = 2 }, []string{"item 1: option 0: bin", "2"}},
		{"twice", func(p *Instance, _ *Options) { p.Items[1].Options[0].Bin = 1 }, []string{"item 1: option 1: bin", "once"}},
		{"cost", func(p *Instance, _ *Options) { p.Items[0].Options[1].Cost = math.Inf(-1) }, []string{"item 0: option 1: cost", "-Inf"}},
		{"need", func(p *Instance, _ *Options) { p.Items[0].Options[1].Need[1] = -2 }, []string{"item 0: option 1: need 1", "-2"}},
		{"wait", func(p *Instance, _ *Options) { p.Items[0].Wait = math.Inf(1) }, []string{"item 0: price of waiting", "Inf"}},
		{"group", func(p *Instance, _ *Options) { p.Items[0].Apart = -1 }, []string{"item 0: group", "-1"}},
		{"budget", func(_ *Instance, o *Options) { o.Budget = -1 }, []string{"budget", "-1"}},
		{"move", func(_ *Instance, o *Options) { o.MovePrice = math.NaN() }, []string{"move price", "NaN"}},
		{"start", func(_ *Instance, o *Options) { o.Start = []int{0, 5} }, []string{"start", "item 1 in bin 5"}},
		{"short start", func(_ *Instance, o *Options) { o.Start = []int{0} }, []string{"start", "1 places for 2 items"}},
		{"prices", func(_ *Instance, o *Options) { o.Prices = make([][Resources]float64, 3) }, []string{"prices", "3 for 2 bins"}},
		{"price", func(_ *Instance, o *Options) { o.Prices = [][Resources]float64{{}, {0, -1}} }, []string{"bin 1: price 1", "-1"}},
	} {
		p := Instance{Capacity: make([][Resources]float64, 2), Items: make([]Item, 2)}
		for j := range p.Items {
			p.Items[j].Options = []Option{{Bin: 0}, {Bin: 1}}
		}
		o := Options{Budget: 1}
		tt.change(&p, &o)
		_, err := Solve(&p, o)
		if messages.CodeOf(err) != messages.CodeBadRequest {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", tt.name, err, w)
			}
		}
	}
}

func FuzzSolve(f *testing.F) {
	f.Add(uint64(1), 1.0, 0.0, uint8(0))
	f.Add(uint64(2), math.NaN(), 1e12, uint8(1))
	f.Add(uint64(3), math.Inf(1), -1.0, uint8(2))
	f.Add(uint64(4), 1e12, 1e-12, uint8(3))
	f.Add(uint64(5), 1e15, 5e-324, uint8(4))
	f.Fuzz(func(t *testing.T, seed uint64, v, w float64, where uint8) {
		rng := rand.New(rand.NewPCG(seed, 7))
		p := small(rng)
		o := Options{Budget: 3000}
		for _, x := range []float64{v, w} {
			it := &p.Items[rng.IntN(len(p.Items))]
			switch {
			case where%5 == 0:
				p.Capacity[0][1] = x
			case where%5 == 1:
				it.Wait = x
			case where%5 == 2:
				o.MovePrice = x
			case len(it.Options) > 0 && where%5 == 3:
				it.Options[0].Cost = x
			case len(it.Options) > 0:
				it.Options[0].Need[2] = x
			}
			where /= 5
		}
		res, err := Solve(&p, o)
		if err != nil {
			return
		}
		if _, _, _, ok := price(p, res.Assign, nil, 0); !ok {
			t.Errorf("%v breaks a constraint of %+v", res.Assign, p)
		}
		if !(res.Bound <= res.Objective) || math.IsNaN(res.Cost) {
			t.Errorf("bound %v, objective %v, cost %v", res.Bound, res.Objective, res.Cost)
		}
	})
}

func TestNothing(t *testing.T) {
	for _, p := range []Instance{{}, {Items: make([]Item, 3)}, {Capacity: make([][Resources]float64, 2)}} {
		if res := solved(t, p, Options{}); res.Cost != 0 || res.Waiting != len(p.Items) {
			t.Errorf("%+v", res)
		}
	}
}
