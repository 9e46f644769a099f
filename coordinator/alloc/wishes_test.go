package alloc

import (
	"math"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

func ptr[T any](v T) *T { return &v }

// verdictOf is what Explain says of one environment.
func verdictOf(t *testing.T, p Problem, replica, env string) Verdict {
	t.Helper()
	list, err := Explain(p, mustSolve(t, p), replica)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		if v.Environment == env {
			return v
		}
	}
	t.Fatalf("no verdict on %s", env)
	return Verdict{}
}

// The inference scores 11.7 on the edge and 51.12 on the cloud: 39.42 lie between them.
func TestPreferencesAreWeighed(t *testing.T) {
	for _, tt := range []struct {
		prefer    messages.Preference
		want      string
		penalty   float64
		edge, far string // what Explain says of edge and cloud
	}{
		{messages.Preference{Tiers: []messages.Tier{messages.Cloud}, Penalty: ptr(39.0)}, "edge", 39,
			"chosen: delay 10.2 ms, cost 1.5 per hour, 39 because it prefers tier cloud, score 50.7",
			"0.42 more score (51.12): delay 50.02 ms, cost 1.1 per hour"},
		{messages.Preference{Tiers: []messages.Tier{messages.Cloud}, Penalty: ptr(40.0)}, "cloud", 0,
			"0.58 more score (51.7): delay 10.2 ms, cost 1.5 per hour, 40 because it prefers tier cloud",
			"chosen: delay 50.02 ms, cost 1.1 per hour, score 51.12"},
		{messages.Preference{Labels: map[string]string{"gpu": "a100"}}, "cloud", 0,
			"60.58 more score (111.7): delay 10.2 ms, cost 1.5 per hour, 100 because it prefers gpu=a100",
			"chosen: delay 50.02 ms, cost 1.1 per hour, score 51.12"},
		{messages.Preference{Tiers: []messages.Tier{messages.Cloud, messages.Robot}, Sites: []string{"hub"}, Penalty: ptr(20.0)}, "cloud", 0,
			"0.58 more score (51.7): delay 10.2 ms, cost 1.5 per hour, 20 because it prefers tier cloud or robot, 20 because it prefers site hub",
			"chosen: delay 50.02 ms, cost 1.1 per hour, score 51.12"},
		{messages.Preference{Sites: []string{"nowhere"}, Penalty: ptr(7.0)}, "edge", 7,
			"chosen: delay 10.2 ms, cost 1.5 per hour, 7 because it prefers site nowhere, score 18.7",
			"39.42 more score (58.12): delay 50.02 ms, cost 1.1 per hour, 7 because it prefers site nowhere"},
	} {
		p := threeTiers()
		p.Environments[0].Labels, p.Environments[0].Site = map[string]string{"gpu": "a100"}, "hub"
		p.Replicas[1].Task.Prefer = &tt.prefer
		plan := mustSolve(t, p)
		a := plan.Assignments[1]
		if a.Replica != "inference/0" || a.Environment != tt.want || a.Penalty != tt.penalty || plan.Penalty != tt.penalty {
			t.Errorf("%+v: %+v of %v", tt.prefer, a, plan.Penalty)
		}
		near(t, "score", plan.Score, plan.Delay+plan.Cost+tt.penalty)
		near(t, "bound", plan.Bound, plan.Score)
		for env, want := range map[string]string{"edge": tt.edge, "cloud": tt.far} {
			if got := verdictOf(t, p, "inference/0", env).Text; got != want {
				t.Errorf("%s: got %s\nwant %s", env, got, want)
			}
		}
		ev, err := Evaluate(p, currentOf(plan))
		if err != nil {
			t.Fatal(err)
		}
		near(t, "evaluated", ev.Score, plan.Score)
		near(t, "evaluated penalty", ev.Penalty, plan.Penalty)
	}
}

// What is preferred and full is no reason to wait.
func TestPreferencesForbidNothing(t *testing.T) {
	t1, t2 := unit("a", 0, 0), unit("b", 0, 0)
	t1.Prefer = &messages.Preference{Labels: map[string]string{"gpu": "yes"}, Penalty: ptr(1e12)}
	t2.Prefer = &messages.Preference{Labels: map[string]string{"gpu": "yes"}}
	good, bad := box("good", 50), box("bad", 1)
	good.Labels = map[string]string{"gpu": "yes"}
	plan := mustSolve(t, problem([]Environment{good, bad}, t1, t2))
	if got := placement(plan); got != "a/0→good, b/0→bad" || plan.Penalty != 100 {
		t.Errorf("%s, penalty %v", got, plan.Penalty)
	}
	// Of one task a replica may have been given another wish than its sibling.
	p := problem([]Environment{good, bad}, t1)
	p.Replicas = append(p.Replicas, Replica{ID: "a/1", Task: unit("a", 0, 0)})
	if plan := mustSolve(t, p); placement(plan) != "a/0→good, a/1→bad" || plan.Penalty != 0 {
		t.Errorf("%s, penalty %v", placement(plan), plan.Penalty)
	}
}

// Of two that are alike the one that is dear to move stays.
func TestEachReplicaHasAMovePrice(t *testing.T) {
	big, small := unit("big", 0, 0), unit("small", 0, 0)
	big.MovePrice = ptr(50.0)
	p := problem([]Environment{box("near", 1), box("far", 4), box("other", 4)}, big, small)
	p.MovePrice, p.Current = 1, map[string]string{"big/0": "far", "small/0": "other"}
	if got := placement(mustSolve(t, p)); got != "big/0→far, small/0→near" {
		t.Error(got)
	}
	if got, want := verdictOf(t, p, "big/0", "other").Text, "50 more score (55): delay 5 ms, cost 0 per hour, 50 for the move"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	p.Replicas[0].MovePrice = ptr(0.0) // the replica's own is above the task's, and 0 is a price
	p.Replicas[1].MovePrice = ptr(9.0)
	if got := placement(mustSolve(t, p)); got != "big/0→near, small/0→other" {
		t.Error(got)
	}
}

// In mode adaptive a measured delay counts for score and limit, in others it does not.
func TestMeasuredDelays(t *testing.T) {
	p := threeTiers()
	p.Measured = map[Pair]float64{{"inference", "edge"}: 60, {"training", "gone"}: 3, {"nobody", "edge"}: 4}
	if got := placement(mustSolve(t, p)); got != "action/0→robot, inference/0→edge, training/0→cloud" {
		t.Errorf("mode %s: %s", p.Settings.Mode, got)
	}
	p.Settings.Mode = messages.Adaptive
	plan := mustSolve(t, p)
	if got := placement(plan); got != "action/0→robot, inference/0→cloud, training/0→cloud" {
		t.Error(got)
	}
	near(t, "delay", plan.Delay, 1.2+50.02+55.5)
	if got, want := verdictOf(t, p, "inference/0", "edge").Text, "10.38 more score (61.5): delay 60 ms as measured (10.2 by the model), cost 1.5 per hour"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	cells, err := Matrix(p)
	if err != nil {
		t.Fatal(err)
	}
	if c := cells[4]; c.Task != "inference" || c.Environment != "edge" || c.Delay != 60 || c.Modelled != 10.2 || !c.Measured || c.Score != 61.5 || !c.Feasible {
		t.Errorf("%+v", c)
	}
	if c := cells[3]; c.Measured || c.Modelled != c.Delay {
		t.Errorf("%+v", c)
	}
	ev, err := Evaluate(p, map[string]string{"inference/0": "edge"})
	if err != nil || ev.Delay != 60 {
		t.Errorf("%+v %v", ev, err)
	}

	p.Measured = map[Pair]float64{{"action", "robot"}: 12, {"action", "cloud"}: 30, {"action", "edge"}: 9}
	if got := placement(mustSolve(t, p)); got != "action/0→edge, inference/0→edge, training/0→cloud" {
		t.Errorf("a measured delay within the limit lets it in: %s", got)
	}
	p.Measured[Pair{"action", "edge"}] = 11
	plan = mustSolve(t, p)
	if len(plan.Waiting) != 1 || plan.Waiting[0].Fix != "raise limit from 10 ms to 12 ms (robot, as measured)" {
		t.Fatalf("%+v", plan.Waiting)
	}
	if got, want := plan.Waiting[0].Reasons[2].Text, "delay on robot 12 ms as measured (1.2 by the model), limit 10 ms"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What the model says can never run there, and was measured there, can.
func TestMeasuredWhereTheModelSaysNever(t *testing.T) {
	x := task("t", messages.Inference, 0, 0, 0, 100, 0)
	x.Work = ptr(5.0)
	p := problem([]Environment{env("e", messages.Edge, 0, 1, 1, 1, 0)}, x)
	p.Settings.Mode = messages.Adaptive
	if plan := mustSolve(t, p); len(plan.Waiting) != 1 {
		t.Errorf("%+v", plan)
	}
	p.Measured = map[Pair]float64{{"t", "e"}: 7}
	if plan := mustSolve(t, p); placement(plan) != "t/0→e" || plan.Delay != 7 {
		t.Errorf("%+v", plan)
	}
}

// A Solver notices every change of what this file is about.
func TestSolverNoticesWishes(t *testing.T) {
	p := threeTiers()
	p.Settings.Mode = messages.Adaptive
	p.Current = map[string]string{"inference/0": "cloud"}
	v := new(Solver)
	for _, tt := range []struct {
		name   string
		change func(*Problem)
		want   string
	}{
		{"as it is", func(*Problem) {}, "edge"},
		{"preference", func(p *Problem) {
			p.Replicas[1].Task.Prefer = &messages.Preference{Tiers: []messages.Tier{messages.Cloud}}
		}, "cloud"},
		{"penalty", func(p *Problem) {
			p.Replicas[1].Task.Prefer = &messages.Preference{Tiers: []messages.Tier{messages.Cloud}, Penalty: ptr(1.0)}
		}, "edge"},
		{"task's price", func(p *Problem) { p.Replicas[1].Task.MovePrice = ptr(90.0) }, "cloud"},
		{"replica's price", func(p *Problem) { p.Replicas[1].MovePrice = ptr(3.0) }, "edge"},
		{"measured", func(p *Problem) { p.Measured = map[Pair]float64{{"inference", "edge"}: 80} }, "cloud"},
		{"measured again", func(p *Problem) { p.Measured = map[Pair]float64{{"inference", "edge"}: 8} }, "edge"},
		{"measured elsewhere", func(p *Problem) { p.Measured = map[Pair]float64{{"inference", "cloud"}: 2} }, "cloud"},
		{"nothing measured", func(p *Problem) { p.Measured = nil }, "edge"},
	} {
		q := p
		q.Replicas = append([]Replica(nil), p.Replicas...)
		tt.change(&q)
		p = q
		plan, err := v.Solve(p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		fresh := mustSolve(t, p)
		if got := plan.Assignments[1].Environment; got != tt.want || placement(fresh) != placement(plan) || fresh.Score != plan.Score {
			t.Errorf("%s: on %s, want %s (solved anew: %s)", tt.name, got, tt.want, placement(fresh))
		}
	}
}

func TestWishesNameTheField(t *testing.T) {
	for want, change := range map[string]func(*Problem){
		"measured delay of action on robot: found NaN, allowed is a finite number ms":         func(p *Problem) { p.Measured[Pair{"action", "robot"}] = math.NaN() },
		"measured delay of inference on edge: found -1 ms, allowed is 0 ms or more":           func(p *Problem) { p.Measured[Pair{"inference", "edge"}] = -1 },
		"measured delay of a on b: found +Inf, allowed is a finite number ms":                 func(p *Problem) { p.Measured[Pair{"x", "b"}], p.Measured[Pair{"a", "b"}] = -1, math.Inf(1) },
		"replica action/0: move price: found NaN, allowed is a finite number":                 func(p *Problem) { p.Replicas[0].MovePrice = ptr(math.NaN()) },
		"replica action/0: move price: found -2, allowed are 0 to 1e+15":                      func(p *Problem) { p.Replicas[0].MovePrice = ptr(-2.0) },
		"replica action/0: move_price: found +Inf, allowed is a finite number":                func(p *Problem) { p.Replicas[0].Task.MovePrice = ptr(math.Inf(1)) },
		"replica action/0: prefer.penalty: found 1e+13, allowed are 0 to 1e+12":               func(p *Problem) { p.Replicas[0].Task.Prefer.Penalty = ptr(1e13) },
		"replica action/0: prefer: found nothing that is preferred, allowed are tiers, sites": func(p *Problem) { p.Replicas[0].Task.Prefer.Tiers = nil },
	} {
		p := threeTiers()
		p.Measured = make(map[Pair]float64)
		p.Replicas[0].Task.Prefer = &messages.Preference{Tiers: []messages.Tier{messages.Robot}}
		change(&p)
		for range 5 { // a map has another order each time
			if _, err := Solve(p); messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	}
	// Large and right.
	p := threeTiers()
	p.Settings.Mode = messages.Adaptive
	p.Measured = map[Pair]float64{{"training", "cloud"}: math.MaxFloat64, {"inference", "edge"}: 1e12}
	p.Replicas[2].Task.Limit = 0
	plan := mustSolve(t, p)
	if got := placement(plan); got != "action/0→robot, inference/0→cloud, training/0 waits" || len(plan.Waiting) != 1 {
		t.Errorf("%s: %+v", got, plan.Waiting)
	}
	if plan := mustSolve(t, Problem{Measured: map[Pair]float64{{"a", "b"}: 1}}); plan.Score != 0 {
		t.Errorf("%+v", plan)
	}
}
