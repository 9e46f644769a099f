package packing

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// small makes an instance that can be brute-forced, with three resources, missing options,
// groups, opening prices, prices of waiting, and equal items.
func small(rng *rand.Rand) assign.Instance {
	m, n := 1+rng.IntN(3), 1+rng.IntN(6)
	p := assign.Instance{Capacity: make([][resources]float64, m)}
	unit := []float64{1, 0.1, 1e9}[rng.IntN(3)]
	for i := range p.Capacity {
		for k := range p.Capacity[i] {
			p.Capacity[i][k] = unit * float64(rng.IntN(20))
		}
	}
	if rng.IntN(3) == 0 {
		for range m {
			p.Open = append(p.Open, unit*float64(rng.IntN(10)))
		}
	}
	wait, apart := rng.IntN(2) == 0, rng.IntN(3) == 0
	for len(p.Items) < n {
		it := assign.Item{}
		for b := range m {
			if rng.IntN(5) == 0 {
				continue
			}
			o := assign.Option{Bin: b, Cost: float64(rng.IntN(30)) * unit}
			for k := range o.Need {
				o.Need[k] = unit * float64(rng.IntN(9))
			}
			it.Options = append(it.Options, o)
		}
		if wait && rng.IntN(4) > 0 {
			it.Wait = unit * float64(rng.IntN(60))
		}
		if apart {
			it.Apart = rng.IntN(3)
		}
		for range 1 + rng.IntN(2) {
			p.Items = append(p.Items, it)
		}
	}
	rng.Shuffle(len(p.Items), func(a, b int) { p.Items[a], p.Items[b] = p.Items[b], p.Items[a] })
	return p
}

// price recomputes a plan: its cost with that of those who wait, how many wait who must
// not, and whether it keeps the constraints.
func price(p assign.Instance, at []int) (cost float64, lost int, ok bool) {
	load := make([][resources]float64, len(p.Capacity))
	used := make([]bool, len(p.Capacity))
	seen := map[[2]int]bool{}
	for j, b := range at {
		it := p.Items[j]
		if b < 0 {
			if cost += it.Wait; it.Wait == 0 {
				lost++
			}
			continue
		}
		i := slices.IndexFunc(it.Options, func(o assign.Option) bool { return o.Bin == b })
		if i < 0 || it.Apart > 0 && seen[[2]int{it.Apart, b}] {
			return 0, 0, false
		}
		seen[[2]int{it.Apart, b}] = true
		cost += it.Options[i].Cost
		for k, v := range it.Options[i].Need {
			if load[b][k] += v; load[b][k] > p.Capacity[b][k]*(1+1e-9) {
				return 0, 0, false
			}
		}
		if !used[b] && p.Open != nil {
			cost += p.Open[b]
		}
		used[b] = true
	}
	return cost, lost, true
}

// brute tries everything: the fewest lost, then the least cost.
func brute(p assign.Instance) (cost float64, lost int) {
	cost, lost = math.Inf(1), math.MaxInt
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
		if c, l, ok := price(p, at); ok && (l < lost || l == lost && c < cost) {
			cost, lost = c, l
		}
	}
	walk(0)
	return cost, lost
}

// Where everybody can be placed, small instances are solved exactly; bounds hold whatever
// the effort, and whatever the values.
func TestAgainstBruteForce(t *testing.T) {
	placed := 0
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := small(rng)
		want, lost := brute(p)
		start := make([]int, len(p.Items))
		values := make([]float64, len(p.Items))
		for j := range start {
			start[j] = rng.IntN(len(p.Capacity)+1) - 1
			if !slices.ContainsFunc(p.Items[j].Options, func(o assign.Option) bool { return o.Bin == start[j] }) {
				start[j] = -1
			}
			values[j] = 40 * rng.Float64()
		}
		for _, o := range []Options{{Gap: 1e-9, Nodes: 1000}, {}, {Nodes: 1, Start: start}, {Values: values, Gap: 0.1}} {
			res, ok := Solve(&p, o)
			if !ok {
				if lost == 0 {
					t.Fatalf("seed %d: not solved, and %v would do", seed, want)
				}
				continue
			}
			got, l, keeps := price(p, res.Assign)
			if !keeps {
				t.Fatalf("seed %d, %+v: %v breaks a constraint", seed, o, res.Assign)
			}
			if (l > 0) != math.IsInf(res.Objective, 1) || l == 0 && math.Abs(got-res.Objective) > 1e-9*max(1, got) {
				t.Fatalf("seed %d, %+v: objective %v, says %v, %d lost", seed, o, got, res.Objective, l)
			}
			if lost > 0 {
				continue
			}
			if res.Bound > want*(1+1e-9)+1e-9 {
				t.Fatalf("seed %d, %+v: bound %v above the optimum %v", seed, o, res.Bound, want)
			}
			if b, ok := Bound(&p, values); !ok || b > want*(1+1e-9)+1e-9 {
				t.Fatalf("seed %d: bound by values %v above the optimum %v", seed, b, want)
			}
			if o.Nodes == 1000 {
				placed++
				if l > 0 || got > want*(1+1e-6)+1e-9 {
					t.Fatalf("seed %d: %v (%d lost), the optimum is %v", seed, got, l, want)
				}
			}
		}
	}
	if placed < 1000 {
		t.Errorf("only %d cases could be placed", placed)
	}
}

// site makes a site as fleets have them: edges that hold some ten items, robots that hold one
// or two, an outside that is dear.
func site(rng *rand.Rand, edges, robots, items int) assign.Instance {
	p := assign.Instance{}
	for i := range edges + robots {
		room := [resources]float64{4 + 2*rng.Float64(), 30, 15 + 10*rng.Float64()}
		open := 0.0
		if i < edges {
			room = [resources]float64{25 + 10*rng.Float64(), 200, 90 + 40*rng.Float64()}
			open = []float64{0, 15}[rng.IntN(2)]
		}
		p.Capacity, p.Open = append(p.Capacity, room), append(p.Open, open)
	}
	for len(p.Items) < items {
		it := assign.Item{Wait: 50}
		need := [resources]float64{1 + 3*rng.Float64(), 2 + 28*rng.Float64(), 4 + 16*rng.Float64()}
		for b := range p.Capacity {
			it.Options = append(it.Options, assign.Option{Bin: b, Cost: 5 + 10*rng.Float64(), Need: need})
		}
		if rng.IntN(10) == 0 {
			it.Apart = len(p.Items) + 1
		}
		for range 1 + rng.IntN(4) {
			p.Items = append(p.Items, it)
		}
	}
	return p
}

func TestSitesAreCertified(t *testing.T) {
	var sum, bound float64
	for seed := range uint64(20) {
		p := site(rand.New(rand.NewPCG(seed, 2)), 2, 12, 30)
		res, ok := Solve(&p, Options{})
		got, lost, keeps := price(p, res.Assign)
		if !ok || lost > 0 || !keeps || math.Abs(got-res.Objective) > 1e-6 {
			t.Fatalf("seed %d: %v %v %v", seed, ok, got, res.Objective)
		}
		again, _ := Solve(&p, Options{})
		if !slices.Equal(again.Assign, res.Assign) {
			t.Errorf("seed %d: two plans of one instance", seed)
		}
		sum, bound = sum+res.Objective, bound+res.Bound
	}
	if gap := sum/bound - 1; gap > 0.02 {
		t.Errorf("gap %.4f", gap)
	}
}

// A plan to start from is never lost, and is kept where nothing is better.
func TestStartIsKept(t *testing.T) {
	for seed := range uint64(10) {
		p := site(rand.New(rand.NewPCG(seed, 3)), 2, 6, 20)
		first, _ := Solve(&p, Options{})
		res, _ := Solve(&p, Options{Start: first.Assign, Nodes: 1})
		if res.Objective > first.Objective+1e-9 {
			t.Errorf("seed %d: %v from a plan of %v", seed, res.Objective, first.Objective)
		}
		if math.Abs(res.Objective-first.Objective) < 1e-9 && !slices.Equal(res.Assign, first.Assign) {
			t.Errorf("seed %d: equal items changed places", seed)
		}
	}
}

// Large ones end, with a bound: no more work is begun when there was enough.
func TestEffortIsBounded(t *testing.T) {
	for _, size := range [][3]int{{6, 60, 140}, {2, 400, 100}, {40, 0, 400}} {
		p := site(rand.New(rand.NewPCG(1, 4)), size[0], size[1], size[2])
		for i := range p.Capacity {
			p.Capacity[i][0] *= 0.6 // so that it is not over at once
		}
		s, ok := newSolver(&p, true)
		if !ok {
			t.Fatal(size)
		}
		s.items, s.best, s.gap = len(p.Items), math.Inf(1), 1e-12
		s.guess(nil)
		bound := s.search(math.MaxInt / 100)
		if s.work > 2*mostWork || math.IsNaN(bound) {
			t.Errorf("%v: work %d, allowed are %d; bound %v", size, s.work, mostWork, bound)
		}
		res, ok := Solve(&p, Options{})
		if _, _, keeps := price(p, res.Assign); !ok || !keeps || res.Bound > res.Objective {
			t.Errorf("%v: %v %v %v", size, res.Objective, res.Bound, keeps)
		}
	}
}

// Costs that are far apart, or hardly numbers, give a right answer or none.
func TestOddCosts(t *testing.T) {
	solved := 0
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 5))
		p := small(rng)
		factor := func() float64 { return []float64{1, 1e-9, 1e9, 1e-310, 1e5}[rng.IntN(5)] }
		for j := range p.Items {
			p.Items[j].Wait *= factor()
			for i := range p.Items[j].Options {
				p.Items[j].Options[i].Cost *= factor()
			}
		}
		want, lost := brute(p)
		res, ok := Solve(&p, Options{})
		if !ok {
			continue
		}
		solved++
		_, l, keeps := price(p, res.Assign)
		if !keeps || math.IsNaN(res.Objective) || math.IsNaN(res.Bound) {
			t.Fatalf("seed %d: %+v", seed, res)
		}
		if lost == 0 && l == 0 && res.Bound > want*(1+1e-9)+1e-9 {
			t.Fatalf("seed %d: bound %v above the optimum %v", seed, res.Bound, want)
		}
	}
	if solved < 100 {
		t.Errorf("only %d were solved", solved)
	}
}

func TestNothing(t *testing.T) {
	for _, p := range []assign.Instance{{}, {Capacity: make([][resources]float64, 2)}, {Items: []assign.Item{{Wait: 1}}}} {
		if res, ok := Solve(&p, Options{}); !ok || len(res.Assign) != len(p.Items) || res.Objective != float64(len(p.Items)) {
			t.Errorf("%+v: %+v", p, res)
		}
	}
	full := assign.Instance{Capacity: [][resources]float64{{1}}, Items: []assign.Item{
		{Options: []assign.Option{{Need: [resources]float64{1}}}}, {Options: []assign.Option{{Need: [resources]float64{1}}}}}}
	if _, ok := Solve(&full, Options{}); ok {
		t.Error("two in a bin for one")
	}
	if _, ok := Bound(&full, make([]float64, 2)); ok {
		t.Error("a bound for what has no room")
	}
}

func BenchmarkSite(b *testing.B) {
	p := site(rand.New(rand.NewPCG(1, 2)), 2, 12, 30)
	for b.Loop() {
		res, _ := Solve(&p, Options{})
		b.ReportMetric(100*(res.Objective/res.Bound-1), "gap%")
	}
}
