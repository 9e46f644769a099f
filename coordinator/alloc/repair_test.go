package alloc

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// currentOf is the plan as the next problem states it.
func currentOf(plan Plan) map[string]string {
	out := make(map[string]string)
	for _, a := range plan.Assignments {
		out[a.Replica] = a.Environment
	}
	return out
}

// disturb changes something of p, as a fleet does from one moment to the next.
func disturb(p Problem, rng *rand.Rand) Problem {
	p.Environments, p.Replicas = slices.Clone(p.Environments), slices.Clone(p.Replicas)
	if len(p.Environments) == 0 {
		return p
	}
	i := rng.IntN(len(p.Environments))
	e := &p.Environments[i]
	pair := Pair{fmt.Sprintf("t%d", rng.IntN(4)), e.ID}
	switch rng.IntN(11) {
	case 0:
		e.Closed = "lost"
	case 1:
		e.Closed = ""
	case 2:
		e.Foreign.Compute += 1 + float64(rng.IntN(4))
	case 3:
		e.Capacity.Network /= 2
	case 4:
		p.Environments = slices.Delete(p.Environments, i, i+1)
	case 5:
		x := *e
		x.ID = fmt.Sprintf("new-%d", rng.IntN(1000))
		p.Environments = append(p.Environments, x)
	case 6:
		if len(p.Replicas) > 0 {
			p.Replicas[rng.IntN(len(p.Replicas))].Task.Demand.Compute += 2
		}
	case 7, 8:
		p.Measured = maps.Clone(p.Measured)
		if p.Measured == nil {
			p.Measured = make(map[Pair]float64)
		}
		p.Measured[pair] = float64(rng.IntN(50))
	case 9:
		p.Measured = maps.Clone(p.Measured)
		delete(p.Measured, pair)
	case 10:
		if len(p.Replicas) > 0 {
			r, price := &p.Replicas[rng.IntN(len(p.Replicas))], float64(rng.IntN(9))
			switch rng.IntN(3) {
			case 0:
				r.MovePrice = &price
			case 1:
				r.Task.MovePrice = &price
			case 2:
				r.Task.Prefer = &messages.Preference{Labels: map[string]string{"gpu": "yes"}, Penalty: &price}
			}
		}
	}
	return p
}

// A chain of changes: every repaired plan keeps every constraint; nobody whose place is
// still good loses it unless more are placed; and what the Solver keeps between calls is
// what it would have computed anew.
func TestRepairKeepsPlaces(t *testing.T) {
	for seed := range times(60) {
		rng := rand.New(rand.NewPCG(seed, 8))
		p := random(rng, 2+rng.IntN(7), 1+rng.IntN(10))
		v := new(Solver)
		plan, err := v.Solve(p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for step := range 6 {
			p = disturb(p, rng)
			p.Current = currentOf(plan)
			in, err := compile(p)
			if err != nil {
				t.Fatal(err)
			}
			prices := plan.Prices
			kept, _ := in.present()
			for _, how := range []string{"solver", "function"} {
				var got Plan
				if how == "solver" {
					got, err = v.Repair(p, Options{})
					plan = got
				} else {
					got, err = Repair(p, prices, Options{})
				}
				if err != nil {
					t.Fatal(err)
				}
				verify(t, p, got)
				checkKept(t, in, kept, got)
				if t.Failed() {
					t.Fatalf("seed %d, step %d, %s", seed, step, how)
				}
			}
			for r := range in.reps {
				if a, b := in.reps[r].cands, v.in.reps[r].cands; len(a)+len(b) > 0 && !reflect.DeepEqual(a, b) {
					t.Fatalf("seed %d, step %d: %s has %v, the solver keeps %v", seed, step, in.reps[r].ID, a, b)
				}
				if a, b := in.reps[r].move, v.in.reps[r].move; a != b {
					t.Fatalf("seed %d, step %d: moving %s costs %v, the solver keeps %v", seed, step, in.reps[r].ID, a, b)
				}
			}
		}
	}
}

func checkKept(t *testing.T, in *instance, kept *state, plan Plan) {
	t.Helper()
	s, err := in.load(plan)
	if err != nil {
		t.Fatal(err)
	}
	more := false
	for _, band := range in.bands() {
		var now, was int
		for _, r := range band {
			if s.at[r] >= 0 {
				now++
			}
			if kept.at[r] >= 0 {
				was++
			}
		}
		if now < was && !more {
			t.Errorf("%d of a band have a place, %d of them had a good one", now, was)
		}
		more = more || now > was
	}
	// Where not all can stay, several choices of who goes are as good.
	full := newState(in, 0)
	short := make(map[int]bool)
	for r := range in.reps {
		if e := in.reps[r].cur; e >= 0 {
			if _, ok := in.find(r, e); ok && !full.room(r, e) {
				short[e] = true
			} else if ok {
				full.put(r, e)
			}
		}
	}
	for r := range kept.at {
		if kept.at[r] >= 0 && s.at[r] < 0 && !more && !short[kept.at[r]] {
			t.Errorf("%s lost its place on %s", in.reps[r].ID, in.envs[kept.at[r]].ID)
		}
	}
}

// Nothing was scarce, then others take half an edge: who leaves it is who loses least by
// that, with the price of moving, not whoever comes last by name.
func TestRepairWhereNothingWasScarce(t *testing.T) {
	p := Problem{Settings: messages.DefaultSettings(), MovePrice: 2.2, Environments: []Environment{
		env("edge-1", messages.Edge, 100, 1000, 100, 1, 0),
		env("edge-2", messages.Edge, 15, 1000, 100, 3, 0),
		env("cloud-1", messages.Cloud, 1000, 10000, 1000, 20, 0),
	}}
	p.Settings.Reserve, p.Environments[0].Foreign.Compute = 0, 40
	for name, work := range map[string]float64{"tiny": 50, "small": 100, "large": 400, "huge": 800} {
		p.Replicas = append(p.Replicas, Replica{ID: messages.ReplicaID(name, "0"), Task: messages.Task{
			Name: name, Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Work: &work}.Normal()})
	}
	v := new(Solver)
	plan, err := v.Solve(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Environments, p.Current = slices.Clone(p.Environments), currentOf(plan)
	p.Environments[0].Foreign.Compute = 80
	want, err := Solve(p)
	if err != nil {
		t.Fatal(err)
	}
	if at := currentOf(want); at["huge/0"] != "cloud-1" || at["tiny/0"] != "edge-2" {
		t.Fatalf("the plan in full: %v", at)
	}
	if plan, err = v.Repair(p, Options{}); err != nil {
		t.Fatal(err)
	}
	verify(t, p, plan)
	if !maps.Equal(currentOf(plan), currentOf(want)) {
		t.Errorf("%v at %.4g, want %v at %.4g", currentOf(plan), plan.Score, currentOf(want), want.Score)
	}
}

// One edge dies in a fleet whose edges are nearly full: nearly only those move that
// must.
func TestRepairMovesFew(t *testing.T) {
	p := tight(20, 4)
	p.MovePrice = 5
	v := new(Solver)
	plan, err := v.Solve(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{"edge-0003-1", "edge-0007-0", "edge-0012-1"} {
		p.Environments, p.Current = slices.Clone(p.Environments), currentOf(plan)
		for e := range p.Environments {
			if p.Environments[e].ID == id {
				p.Environments[e].Closed = "lost"
			}
		}
		forced, moved := 0, 0
		for _, e := range p.Current {
			if e == id {
				forced++
			}
		}
		before := maps.Clone(p.Current)
		if plan, err = v.Repair(p, Options{}); err != nil {
			t.Fatal(err)
		}
		verify(t, p, plan)
		for _, a := range plan.Assignments {
			if before[a.Replica] != a.Environment {
				moved++
			}
		}
		if len(plan.Waiting) > 0 || 2*moved > 3*forced {
			t.Errorf("%d: %d wait, %d moved, %d had to", i, len(plan.Waiting), moved, forced)
		}
	}
}

func TestRepairSaysWhatIsWrong(t *testing.T) {
	v := new(Solver)
	p := threeTiers()
	if _, err := v.Solve(p, Options{}); err != nil {
		t.Fatal(err)
	}
	p.Environments = slices.Clone(p.Environments)
	p.Environments[0].Latency = -1
	if _, err := v.Repair(p, Options{}); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}
	p.Environments[0].Latency = 50
	p.Measured = map[Pair]float64{{"action", "robot"}: math.NaN()} // in a mode that does not read it, too
	if _, err := v.Repair(p, Options{}); err == nil || err.Error() != "bad_request: measured delay of action on robot: found NaN, allowed is a finite number ms" {
		t.Error(err)
	}
	p.Measured = nil
	if plan, err := v.Repair(p, Options{}); err != nil || len(plan.Waiting) != 0 {
		t.Errorf("%v %+v", err, plan)
	}
	if _, err := Repair(p, nil, Options{Budget: -1}); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}
}

func BenchmarkRepair(b *testing.B) {
	p := tight(900, 1)
	v := new(Solver)
	plan, err := v.Solve(p, Options{})
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		b.StopTimer()
		p.Current = currentOf(plan)
		for e := range p.Environments {
			x := &p.Environments[e]
			x.Closed = ""
			if x.ID == fmt.Sprintf("edge-%04d-%d", i%900, i%2) {
				x.Closed = "lost"
			}
		}
		i++
		b.StartTimer()
		if plan, err = v.Repair(p, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSolveTight solves fleets whose edges are nearly full.
func BenchmarkSolveTight(b *testing.B) {
	for _, sites := range []int{90, 270, 900, 2700} {
		p := tight(sites, 1)
		b.Run(fmt.Sprintf("%dx%d", len(p.Environments), len(p.Replicas)), func(b *testing.B) {
			for b.Loop() {
				plan, err := Solve(p)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(plan.Waiting)), "waiting")
				b.ReportMetric(100*(plan.Score/plan.Bound-1), "gap%")
			}
		})
	}
}
