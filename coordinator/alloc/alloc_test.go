package alloc

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

func TestExpand(t *testing.T) {
	robot := func(id, site, gpu string) messages.Environment {
		return messages.Environment{ID: id, Tier: messages.Robot, Site: site, Labels: map[string]string{"gpu": gpu}}
	}
	envs := []messages.Environment{robot("r2", "b", "yes"), robot("r1", "", "no"), {ID: "c", Tier: messages.Cloud, Site: "hub"}}
	for _, tt := range []struct {
		name string
		task messages.Task
		want string // id@pin@site …
	}{
		{"one is the default", messages.Task{Name: "t"}, "t/0@@"},
		{"replicas", messages.Task{Name: "t", Replicas: 2}, "t/0@@ t/1@@"},
		{"pinned", messages.Task{Name: "t", Robot: "r1"}, "t/0@r1@"},
		{"per robot", messages.Task{Name: "t", Per: messages.PerRobot}, "t/r1@r1@ t/r2@r2@"},
		{"per robot of a site", messages.Task{Name: "t", Per: messages.PerRobot, Sites: []string{"main"}}, "t/r1@r1@"},
		{"per robot with a label", messages.Task{Name: "t", Per: messages.PerRobot, Labels: map[string]string{"gpu": "yes"}}, "t/r2@r2@"},
		{"per robot of a named robot", messages.Task{Name: "t", Per: messages.PerRobot, Robot: "r9"}, "t/0@r9@"},
		{"per site", messages.Task{Name: "t", Per: messages.PerSite}, "t/b@@b t/hub@@hub t/main@@main"},
		{"per site of some", messages.Task{Name: "t", Per: messages.PerSite, Sites: []string{"b", "elsewhere"}}, "t/b@@b"},
	} {
		var got []string
		for _, r := range Expand([]messages.Task{tt.task}, envs) {
			got = append(got, r.ID+"@"+r.Pin+"@"+r.Site)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, s, tt.want)
		}
	}
}

func TestModelAtTheEdges(t *testing.T) {
	zero := 0.0
	none := messages.Environment{Latency: 3, Price: 7}
	for _, tt := range []struct {
		name        string
		task        messages.Task
		env         messages.Environment
		delay, cost float64
		feasible    bool
	}{
		{"nothing on nothing", messages.Task{}, none, 3, 0, true},
		{"compute on nothing", messages.Task{Demand: messages.Resources{Compute: 1}}, none, math.Inf(1), math.Inf(1), false},
		{"transfer over nothing", messages.Task{Demand: messages.Resources{Storage: 1}}, none, math.Inf(1), 0, false},
		{"compute without work", messages.Task{Demand: messages.Resources{Compute: 1}, Work: &zero}, none, 3, math.Inf(1), false},
		{"for free", messages.Task{Demand: messages.Resources{Compute: 1}, Work: &zero}, messages.Environment{}, 0, 0, false},
		{"whole", messages.Task{Cost: 2}, messages.Environment{Price: 7, Billing: messages.Whole}, 0, 9, true},
		{"a limit met exactly", messages.Task{Limit: 3}, none, 3, 0, true},
		{"a limit passed", messages.Task{Limit: 2.99}, none, 3, 0, false},
		{"a limit below zero is none", messages.Task{Limit: -1}, none, 3, 0, true},
	} {
		if d, c, f := Delay(tt.task, tt.env), Cost(tt.task, tt.env), Feasible(tt.task, tt.env); d != tt.delay || c != tt.cost || f != tt.feasible {
			t.Errorf("%s: delay %v, cost %v, feasible %v; want %v, %v, %v", tt.name, d, c, f, tt.delay, tt.cost, tt.feasible)
		}
	}
	if s := Score(messages.Settings{WeightCost: 1}, math.Inf(1), 2); s != 2 {
		t.Errorf("an infinite delay without weight: score %v", s)
	}
}

func TestCheckNamesTheField(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, tt := range []struct {
		name   string
		change func(*Problem)
		want   []string
	}{
		{"weight", func(p *Problem) { p.Settings.WeightLatency = 10.5 }, []string{"weight_latency", "10.5", "0 to 10"}},
		{"reserve", func(p *Problem) { p.Settings.Reserve = 0.31 }, []string{"resource_reserve_ratio", "0.31", "0 to 0.3"}},
		{"mode", func(p *Problem) { p.Settings.Mode = "wild" }, []string{"mode", "wild", "static"}},
		{"move price", func(p *Problem) { p.MovePrice = nan }, []string{"move price", "NaN"}},
		{"negative move price", func(p *Problem) { p.MovePrice = -1 }, []string{"move price", "-1"}},
		{"capacity", func(p *Problem) { p.Environments[1].Capacity.Storage = inf }, []string{"environment edge: storage", "Inf"}},
		{"latency", func(p *Problem) { p.Environments[1].Latency = -1 }, []string{"environment edge: latency", "-1 ms", "0 ms or more"}},
		{"price", func(p *Problem) { p.Environments[1].Price = nan }, []string{"environment edge: price", "NaN"}},
		{"foreign", func(p *Problem) { p.Environments[1].Foreign.Network = nan }, []string{"environment edge: foreign network", "NaN"}},
		{"tier", func(p *Problem) { p.Environments[1].Tier = "sky" }, []string{"environment edge: tier", "sky", "cloud, edge, robot"}},
		{"environment twice", func(p *Problem) { p.Environments[1].ID = "cloud" }, []string{"environment cloud: id", "twice"}},
		{"demand", func(p *Problem) { p.Replicas[0].Task.Demand.Compute = nan }, []string{"replica action/0: compute", "NaN"}},
		{"limit", func(p *Problem) { p.Replicas[0].Task.Limit = -3 }, []string{"replica action/0: limit", "-3 ms"}},
		{"work", func(p *Problem) { p.Replicas[0].Task.Work = &nan }, []string{"replica action/0: work", "NaN"}},
		{"replica twice", func(p *Problem) { p.Replicas[1].ID = "action/0" }, []string{"replica action/0: id", "twice"}},
		{"replica without id", func(p *Problem) { p.Replicas[1].ID = "" }, []string{"inference", "id", "empty"}},
	} {
		p := threeTiers()
		tt.change(&p)
		plan, err := Solve(p)
		if messages.CodeOf(err) != messages.CodeBadRequest || plan.Assignments != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", tt.name, err, w)
			}
		}
		for name, f := range map[string]func() error{
			"Matrix":   func() error { _, err := Matrix(p); return err },
			"Explain":  func() error { _, err := Explain(p, plan, "x"); return err },
			"Evaluate": func() error { _, err := Evaluate(p, nil); return err },
			"AllOn":    func() error { _, err := AllOn(p, messages.Cloud); return err },
		} {
			if f() == nil {
				t.Errorf("%s: %s takes it", tt.name, name)
			}
		}
	}
}

// box is an environment with room for one unit of compute.
func box(id string, latency float64) Environment { return env(id, messages.Edge, 1, 1, 1, latency, 0) }

func unit(name string, priority int, limit float64) messages.Task {
	t := task(name, messages.Inference, 1, 0, 0, limit, 0)
	t.Priority = priority
	return t
}

func TestWhoWaits(t *testing.T) {
	big := unit("a-big", 0, 0)
	big.Demand.Compute = 2
	two := box("two", 0)
	two.Capacity.Compute = 2
	bigTight := big
	bigTight.Limit = 5
	for _, tt := range []struct {
		name  string
		envs  []Environment
		tasks []messages.Task
		want  string
	}{
		{"the lower priority", []Environment{box("e", 0)}, []messages.Task{unit("a", 1, 0), unit("b", 2, 0)}, "b/0→e, a/0 waits"},
		{"priority before limit", []Environment{box("e", 0)}, []messages.Task{unit("a", 1, 5), unit("b", 2, 0)}, "b/0→e, a/0 waits"},
		{"the looser limit", []Environment{box("e", 0)}, []messages.Task{unit("a", 1, 90), unit("b", 1, 5)}, "b/0→e, a/0 waits"},
		{"no limit is the loosest", []Environment{box("e", 0)}, []messages.Task{unit("a", 1, 0), unit("b", 1, 1e6)}, "b/0→e, a/0 waits"},
		{"the last by id", []Environment{box("e", 0)}, []messages.Task{unit("b", 0, 0), unit("a", 0, 0)}, "a/0→e, b/0 waits"},
		{"as many as possible of equals", []Environment{two}, []messages.Task{big, unit("b", 0, 0), unit("c", 0, 0)}, "b/0→two, c/0→two, a-big/0 waits"},
		{"one tight before two loose", []Environment{two}, []messages.Task{bigTight, unit("b", 0, 0), unit("c", 0, 0)}, "a-big/0→two, b/0 waits, c/0 waits"},
		{"the higher moves aside for the lower", []Environment{box("e", 0), box("f", 20)}, []messages.Task{unit("a", 9, 0), unit("b", 0, 5)}, "a/0→f, b/0→e"},
	} {
		if got := placement(mustSolve(t, problem(tt.envs, tt.tasks...))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestMovePriceKeepsReplicasWhereTheyAre(t *testing.T) {
	p := problem([]Environment{box("near", 1), box("far", 4)}, unit("a", 0, 0))
	p.Current = map[string]string{"a/0": "far"}
	for _, tt := range []struct {
		price float64
		want  string
	}{{0, "a/0→near"}, {2.9, "a/0→near"}, {3.1, "a/0→far"}} {
		p.MovePrice = tt.price
		plan := mustSolve(t, p)
		if got := placement(plan); got != tt.want {
			t.Errorf("moving for %v: %s, want %s", tt.price, got, tt.want)
		}
		if want := plan.Delay + plan.Cost; plan.Score != want {
			t.Errorf("moving for %v: score %v, want %v without the move", tt.price, plan.Score, want)
		}
	}
	p.Current["a/0"] = "gone" // it has to move anyway
	if got := placement(mustSolve(t, p)); got != "a/0→near" {
		t.Error(got)
	}
}

// Two tasks share a whole-billed box that is too dear for either alone, and one
// that is worth it for nobody stays shut.
func TestWholeBillingOpensAndCloses(t *testing.T) {
	own, cloud := env("own", messages.Edge, 10, 10, 10, 1, 5), env("cloud", messages.Cloud, 10, 10, 10, 5, 0)
	own.Billing = messages.Whole
	p := problem([]Environment{own, cloud}, unit("a", 0, 0), unit("b", 0, 0))
	plan := mustSolve(t, p)
	if got := placement(plan); got != "a/0→own, b/0→own" {
		t.Fatal(got)
	}
	if plan.Cost != 5 || plan.Assignments[0].Cost != 5 || plan.Assignments[1].Cost != 0 {
		t.Errorf("the price is to be paid once, by the first: %+v", plan.Assignments)
	}
	if one := mustSolve(t, problem([]Environment{own, cloud}, unit("a", 0, 0))); placement(one) != "a/0→cloud" {
		t.Error(placement(one))
	}
}

func TestExplain(t *testing.T) {
	p := threeTiers()
	p.Replicas = append(p.Replicas, Replica{ID: "inference/1", Task: p.Replicas[1].Task})
	plan := mustSolve(t, p)
	var got []string
	for _, id := range []string{"inference/0", "inference/1"} {
		verdicts, err := Explain(p, plan, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts {
			got = append(got, fmt.Sprintf("%s %s: %s", id, v.Environment, v.Text))
		}
	}
	want := `inference/0 cloud: cloud has inference/1, and replicas of a task keep apart
inference/0 edge: chosen: delay 10.2 ms, cost 1.5 per hour, score 11.7
inference/0 robot: needs 10 TFLOPS; robot has 10, 1 are taken by action/0; needs 50 Mbps; robot has 10
inference/1 cloud: chosen: delay 50.02 ms, cost 1.1 per hour, score 51.12
inference/1 edge: edge has inference/0, and replicas of a task keep apart
inference/1 robot: needs 10 TFLOPS; robot has 10, 1 are taken by action/0; needs 50 Mbps; robot has 10`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	verdicts, err := Explain(threeTiers(), mustSolve(t, threeTiers()), "inference/0")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := verdicts[0].Text, "39.42 more score (51.12): delay 50.02 ms, cost 1.1 per hour"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := Explain(p, plan, "nobody"); messages.CodeOf(err) != messages.CodeNotFound {
		t.Error(err)
	}
	plan.Assignments[0].Environment = "cloud" // the action, past its limit
	if _, err := Explain(p, plan, "inference/0"); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}
}

func TestFixTexts(t *testing.T) {
	pinned := unit("t", 0, 0)
	pinned.Robot = "r7"
	siteless := unit("t", 0, 0)
	siteless.Sites = []string{"north"}
	labelled := unit("t", 0, 0)
	labelled.Labels = map[string]string{"gpu": "yes", "arm": "left"}
	tier := unit("t", 0, 0)
	tier.Tiers = []messages.Tier{messages.Robot}
	pair := unit("t", 0, 0)
	pair.Replicas = 2
	closed, dumb, roomy := box("e", 0), box("e", 0), box("e", 0)
	closed.Closed = "draining"
	dumb.Offline, dumb.Handlers = false, []string{"other"}
	roomy.Capacity.Compute = 2
	brings := unit("t", 0, 0)
	brings.Run = &messages.Run{Command: []string{"serve"}}
	anything := box("e", 0)
	anything.Offline, anything.Handlers = false, []string{messages.AnyHandler}
	busy := box("e", 0)
	busy.Foreign.Compute = 0.25
	inference := task("t", messages.Inference, 10, 0, 50, 100, 0)
	both := task("t", messages.Inference, 3, 0, 2, 0, 0)
	for _, tt := range []struct {
		name string
		envs []Environment
		task messages.Task
		want string
	}{
		{"network", []Environment{env("robot", messages.Robot, 10, 0, 10, 1, 1)}, inference, "add 40 Mbps to robot: t needs 50 Mbps; robot has 10"},
		{"two at once", []Environment{box("e", 0)}, both, "add 2 TFLOPS and 1 Mbps to e: t needs 3 TFLOPS; e has 1; needs 2 Mbps; e has 1"},
		{"limit", []Environment{box("e", 9.02)}, unit("t", 0, 10), "raise limit from 10 ms to 10.02 ms (e)"},
		{"no environment", nil, unit("t", 0, 0), "start an agent with at least 1 TFLOPS, 0 GB and 0 Mbps that may be planned"},
		{"pinned to nobody", []Environment{box("e", 0)}, pinned, "start an agent r7 with at least 1 TFLOPS, 0 GB and 0 Mbps that may be planned"},
		{"handler", []Environment{dumb}, unit("t", 0, 0), "an agent with handler t (e has other)"},
		{"a command", []Environment{anything}, brings, "an agent that runs what tasks bring (start e with --allow-run)"},
		{"site", []Environment{box("e", 0)}, siteless, "add main to the sites of t"},
		{"labels", []Environment{box("e", 0)}, labelled, "label e with arm=left, gpu=yes"},
		{"tier", []Environment{box("e", 0)}, tier, "add edge to the tiers of t"},
		{"closed", []Environment{closed}, unit("t", 0, 0), "open e (draining)"},
		{"apart", []Environment{roomy}, pair, "set colocate: true on t (e has t/0)"},
		{"apart, and full", []Environment{box("e", 0)}, pair, "add one more environment like e (edge, 1 TFLOPS, 1 GB, 1 Mbps)"},
		{"foreign use", []Environment{busy}, unit("t", 0, 0), "add 0.25 TFLOPS to e: t needs 1 TFLOPS; e has 1, 0.25 are used by others"},
	} {
		p := problem(tt.envs, tt.task)
		plan := mustSolve(t, p)
		if len(plan.Waiting) != 1 {
			t.Errorf("%s: %d wait", tt.name, len(plan.Waiting))
			continue
		}
		if got := plan.Waiting[0].Fix; got != tt.want {
			t.Errorf("%s: got  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// An action is never advised off its robot, however close the next tier comes.
func TestFixKeepsActionsOnRobots(t *testing.T) {
	p := threeTiers()
	p.Environments = p.Environments[:2]
	for _, w := range mustSolve(t, p).Waiting {
		if !strings.HasPrefix(w.Fix, "start an agent") {
			t.Errorf("%s: %s", w.Replica, w.Fix)
		}
	}
}

func TestEvaluateListsWhatIsBroken(t *testing.T) {
	p := threeTiers()
	p.Replicas = append(p.Replicas, Replica{ID: "action/1", Task: p.Replicas[0].Task})
	ev, err := Evaluate(p, map[string]string{"action/0": "robot", "action/1": "robot", "inference/0": "robot"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range ev.Passed {
		got = append(got, fmt.Sprintf("%s %s %s", v.Replica, v.Environment, v.Constraint))
	}
	if s := strings.Join(got, ", "); s != "action/1 robot apart, inference/0 robot network,  robot compute,  robot network" {
		t.Error(s)
	}
	near(t, "delay", ev.Delay, 1.2+1.2+3)
	near(t, "mean delay of the actions", ev.DelayOf["action"], 1.2)
	if _, err := Evaluate(p, map[string]string{"action/0": "moon"}); messages.CodeOf(err) != messages.CodeNotFound {
		t.Error(err)
	}
}

func TestHugeAndEmpty(t *testing.T) {
	if plan := mustSolve(t, Problem{}); len(plan.Assignments)+len(plan.Waiting) != 0 || plan.Score != 0 {
		t.Errorf("%+v", plan)
	}
	huge := env("e", messages.Cloud, 1e12, 1e12, 1e12, 1e12, 1e12)
	plan := mustSolve(t, problem([]Environment{huge}, task("t", messages.Training, 1e12, 1e12, 1e12, 0, 1e12)))
	if placement(plan) != "t/0→e" || plan.Delay != 2+1e12 || plan.Cost != 2e12 {
		t.Errorf("%+v", plan)
	}
	huge.Latency = math.MaxFloat64 // finite, so no error, but nothing to add up
	plan = mustSolve(t, problem([]Environment{huge, box("f", 1)}, unit("t", 0, 0)))
	if placement(plan) != "t/0→f" {
		t.Errorf("%+v", plan)
	}
}
