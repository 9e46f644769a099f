package alloc

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// For any replica and environment Explain gives one of three answers, and each is held
// against adding the whole plan up again with the replica there: it is chosen; something
// is broken there; or it would be that much more score, moves included.
func TestVerdictsAreTrue(t *testing.T) {
	chosen, broken, weighed := 0, 0, 0
	for seed := range uint64(250) {
		rng := rand.New(rand.NewPCG(seed, 9))
		p := random(rng, 1+rng.IntN(5), 1+rng.IntN(6))
		plan := mustSolve(t, p)
		at := currentOf(plan)
		worth := func(at map[string]string) (score float64, broken int) {
			ev, err := Evaluate(p, at)
			if err != nil {
				return 0, 1 // it lacks what is needed altogether
			}
			list := make([]Assignment, 0, len(at))
			for r, e := range at {
				list = append(list, Assignment{Replica: r, Environment: e})
			}
			return ev.Score + moves(p, Plan{Assignments: list}), len(ev.Passed)
		}
		now, bad := worth(at)
		if bad > 0 {
			t.Fatalf("seed %d: the plan breaks something", seed)
		}
		for _, r := range p.Replicas {
			list, err := Explain(p, plan, r.ID)
			if err != nil || len(list) != len(p.Environments) {
				t.Fatal(len(list), err)
			}
			some := false
			for _, v := range list {
				there := maps.Clone(at)
				there[r.ID] = v.Environment
				score, bad := worth(there)
				switch {
				case v.Chosen != (at[r.ID] == v.Environment) || v.Text == "":
					t.Errorf("seed %d: %s: %+v", seed, r.ID, v)
				case v.Chosen:
					chosen++
					some = true
					if len(v.Reasons) > 0 || v.More != 0 {
						t.Errorf("seed %d: %s: %+v", seed, r.ID, v)
					}
				case len(v.Reasons) > 0:
					broken++
					if bad == 0 {
						t.Errorf("seed %d: %s could be on %s: %+v", seed, r.ID, v.Environment, v)
					}
				case at[r.ID] == "":
					if bad > 0 {
						t.Errorf("seed %d: %s cannot be on %s: %+v", seed, r.ID, v.Environment, v)
					}
				default:
					weighed++
					if bad > 0 {
						t.Errorf("seed %d: %s cannot be on %s: %+v", seed, r.ID, v.Environment, v)
					}
					near(t, r.ID+" on "+v.Environment, v.More, score-now)
				}
			}
			if at[r.ID] != "" && !some {
				t.Errorf("seed %d: %s is nowhere", seed, r.ID)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	if chosen < 100 || broken < 100 || weighed < 100 {
		t.Errorf("%d chosen, %d broken, %d weighed: the cases say little", chosen, broken, weighed)
	}
}
