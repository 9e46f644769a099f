package alloc

import (
	"math/rand/v2"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
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
	cases, roaming, hubs, repairs, proofs, fewer := 0, 0, 0, 0, 0, 0
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
		o := Options{}
		if rng.IntN(3) == 0 { // prices of nobody knows what
			o.Prices = make(Prices)
			for _, e := range p.Environments {
				o.Prices[e.ID] = messages.Resources{Compute: 3 * rng.Float64(), Network: rng.Float64()}
			}
		}
		if rng.IntN(4) == 0 {
			left := rng.IntN(6)
			o.Stop = func() bool { left--; return left < 0 }
		}
		plan, err := v.Solve(p, o)
		if err != nil {
			t.Fatal(err)
		}
		// The proof itself: the plan's bound is cut off at its score, which is the optimum mostly.
		check := func(what string) {
			t.Helper()
			verify(t, p, plan)
			if _, free := brute(v.in, v.s.placedOf(), true); max(v.s.proof, plan.Bound) > free+1e-9*max(1, free) {
				t.Fatalf("seed %d, %s: bound %v, proof %v above the optimum %v", seed, what, plan.Bound, v.s.proof, free)
			}
			if v.s.proof > 0 {
				proofs++
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
			switch e := &p.Environments[i]; rng.IntN(9) {
			case 0:
				e.Closed = "lost"
			case 1, 2:
				e.Closed = ""
			case 3:
				e.Foreign.Compute += float64(rng.IntN(4))
			case 4:
				e.Price /= 2
			case 5:
				e.Foreign = messages.Resources{}
			case 6:
				e.Handlers = []string{messages.AnyHandler}
			case 7:
				e.Capacity = e.Capacity.Scale(1.5)
			case 8:
				e.Labels = map[string]string{"gpu": "a"}
			}
			p.Current, p.MovePrice = currentOf(plan), float64(rng.IntN(3))
			if plan, err = v.Repair(p, Options{}); err != nil {
				t.Fatal(err)
			}
			check("repaired")
			repairs++
			// Nobody waits for the sake of whoever stands lower, as in a plan from nothing.
			full := v.in.solve()
			for _, band := range v.in.bands() {
				now, could := 0, 0
				for _, r := range band {
					if v.s.at[r] >= 0 {
						now++
					}
					if full.at[r] >= 0 {
						could++
					}
				}
				if now < could {
					fewer++
				}
				if now != could {
					break
				}
			}
		}
	}
	// Who waited before a repair only gets in where there is room: a few could do better.
	if 100*fewer > repairs {
		t.Errorf("%d of %d repairs place fewer of a band than a plan from nothing", fewer, repairs)
	}
	t.Logf("%d of %d repairs place fewer of a band than a plan from nothing", fewer, repairs)
	if cases < 400 || roaming < 20 || hubs < 60 || repairs < 1000 || proofs < 300 {
		t.Errorf("%d cases with %d roaming replicas and %d hubs, %d repairs, %d proofs", cases, roaming, hubs, repairs, proofs)
	}
}
