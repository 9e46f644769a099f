package alloc

import (
	"math/rand/v2"
	"testing"
)

// placedOf says which replicas have a place.
func (s *state) placedOf() []bool {
	out := make([]bool, len(s.at))
	for r, e := range s.at {
		out[r] = e >= 0
	}
	return out
}

// However a fleet is divided, into cells and hubs, with replicas that roam or without, a
// plan keeps every constraint and its bound is at most the optimum; after a repair, too.
func TestDividedHoweverBoundsHold(t *testing.T) {
	cases, roaming, hubs, repairs := 0, 0, 0, 0
	for seed := range times(800) {
		rng := rand.New(rand.NewPCG(seed, 21))
		p := random(rng, 2+rng.IntN(4), 2+rng.IntN(3))
		if len(p.Replicas) > 7 || len(p.Replicas) == 0 {
			continue
		}
		v := new(Solver)
		if _, err := v.compile(p); err != nil {
			t.Fatal(err)
		}
		v.in.holds = []float64{0.5, 1, 2, hubHolds}[rng.IntN(4)]
		v.in.rows = []int{3, 5, mostRows}[rng.IntN(3)]
		plan, err := v.Solve(p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string) {
			t.Helper()
			verify(t, p, plan)
			if _, free := brute(v.in, v.s.placedOf(), true); plan.Bound > free+1e-9*max(1, free) {
				t.Fatalf("seed %d, %s: bound %v above the optimum %v", seed, what, plan.Bound, free)
			}
		}
		check("solved")
		cases++
		if d := v.s.cells; d != nil {
			for r := range d.roam {
				if d.roam[r] {
					roaming++
				}
			}
			for e := range d.hub {
				if d.hub[e] {
					hubs++
				}
			}
		}
		for range 3 {
			i := rng.IntN(len(p.Environments))
			p.Environments = append([]Environment{}, p.Environments...)
			switch e := &p.Environments[i]; rng.IntN(4) {
			case 0:
				e.Closed = "lost"
			case 1:
				e.Closed = ""
			case 2:
				e.Foreign.Compute += float64(rng.IntN(4))
			case 3:
				e.Price /= 2
			}
			p.Current, p.MovePrice = currentOf(plan), float64(rng.IntN(3))
			if plan, err = v.Repair(p, Options{}); err != nil {
				t.Fatal(err)
			}
			check("repaired")
			repairs++
		}
	}
	if cases < 400 || roaming < 20 || hubs < 60 || repairs < 1000 {
		t.Errorf("%d cases with %d roaming replicas and %d hubs, %d repairs", cases, roaming, hubs, repairs)
	}
}
