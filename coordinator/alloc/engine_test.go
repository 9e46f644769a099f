package alloc

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// A larger budget never gives a worse plan, equal budgets give equal ones, and the
// bound holds whatever the budget.
func TestLargerBudgetIsNeverWorse(t *testing.T) {
	for seed := range times(24) {
		rng := rand.New(rand.NewPCG(seed, 6))
		p := random(rng, 2+rng.IntN(8), 2+rng.IntN(12))
		if seed%10 == 0 {
			p = tight(1+int(seed/20), seed)
		}
		in, err := compile(p)
		if err != nil {
			t.Fatal(err)
		}
		var last *state
		for _, budget := range []int{1, 1_000, 10_000, 60_000} {
			s := in.solveWith(Options{Budget: budget})
			if last != nil && in.compare(in.bands(), s, last) > 0 && gains(last.objective()-s.objective(), s.objective()) {
				t.Errorf("seed %d: budget %d gives %v, a smaller one %v", seed, budget, s.objective(), last.objective())
			}
			last = s
		}
		plan, err := SolveWith(p, Options{Budget: 60_000})
		if err != nil {
			t.Fatal(err)
		}
		verify(t, p, plan)
		again, err := SolveWith(p, Options{Budget: 60_000})
		if err != nil || fmt.Sprint(plan) != fmt.Sprint(again) {
			t.Errorf("seed %d: two plans of one problem and budget", seed)
		}
		if warm, err := SolveWith(p, Options{Prices: plan.Prices}); err != nil {
			t.Error(err)
		} else {
			verify(t, p, warm)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestSearchIsNearTheBound(t *testing.T) {
	p := tight(40, 3)
	plan := mustSolve(t, p)
	verify(t, p, plan)
	if gap := plan.Score/plan.Bound - 1; len(plan.Waiting) > 0 || gap > 0.015 {
		t.Errorf("gap %.4f, %d wait", gap, len(plan.Waiting))
	}
	// Where the clouds are so scarce that some wait, what the others pay is known as well.
	p = tight(20, 5)
	for i := range p.Environments {
		if e := &p.Environments[i]; e.Tier == messages.Cloud {
			e.Capacity = e.Capacity.Scale(0.25)
		}
	}
	plan = mustSolve(t, p)
	verify(t, p, plan)
	if gap := plan.Score/plan.Bound - 1; len(plan.Waiting) == 0 || gap > 0.01 {
		t.Errorf("scarce clouds: gap %.4f, %d wait", gap, len(plan.Waiting))
	}
}

func TestStopEndsTheSearchWithAPlan(t *testing.T) {
	p := tight(5, 3)
	asked := 0
	plan, err := SolveWith(p, Options{Stop: func() bool { asked++; return true }})
	if err != nil || asked == 0 {
		t.Fatal(asked, err)
	}
	verify(t, p, plan)
	if _, err := SolveWith(p, Options{Budget: -1}); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}
}
