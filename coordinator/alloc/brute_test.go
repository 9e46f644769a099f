package alloc

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// random makes a small problem with every feature of the model.
func random(rng *rand.Rand, envs, tasks int) Problem {
	pick := func(v ...float64) float64 { return v[rng.IntN(len(v))] }
	p := Problem{Settings: messages.Settings{WeightLatency: pick(0, 0.5, 1, 2), WeightCost: pick(0.5, 1, 2),
		Reserve: pick(0, 0, 0.1, 0.25), Mode: messages.Dynamic}}
	var plain []messages.Environment
	for i := range envs {
		e := env(fmt.Sprintf("e%d", i), messages.Tiers()[rng.IntN(3)], pick(4, 8, 10), pick(4, 8, 10), pick(4, 8, 10), pick(0, 1, 5), pick(0, 1, 3, 10))
		e.Site = []string{"a", "b", ""}[rng.IntN(3)]
		e.Labels = map[string]string{"gpu": []string{"yes", "no"}[rng.IntN(2)]}
		if rng.IntN(3) == 0 {
			e.Billing = messages.Whole
		}
		if rng.IntN(4) == 0 {
			e.Foreign = messages.Resources{Compute: pick(0, 2, 20), Network: pick(0, 1)}
		}
		if rng.IntN(10) == 0 {
			e.Closed = "draining"
		}
		if rng.IntN(4) == 0 {
			e.Offline, e.Handlers = false, []string{[]string{"t0", "t1", messages.AnyHandler}[rng.IntN(3)]}
		}
		p.Environments = append(p.Environments, e)
		plain = append(plain, e.Environment)
	}
	var list []messages.Task
	for i := range tasks {
		t := task(fmt.Sprintf("t%d", i), messages.Inference, pick(0, 1, 3, 5), pick(0, 1, 3, 5), pick(0, 1, 3, 5), pick(0, 0, 2, 4, 8), pick(0, 1))
		t.Replicas = 1 + rng.IntN(2)
		t.Colocate = rng.IntN(2) == 0
		t.Priority = rng.IntN(2)
		switch rng.IntN(8) {
		case 0:
			t.Tiers = []messages.Tier{messages.Edge, messages.Robot}
		case 1:
			t.Sites = []string{"a"}
		case 2:
			t.Labels = map[string]string{"gpu": "yes"}
		case 3:
			t.Robot = "e0"
		case 4:
			t.Replicas, t.Per = 0, messages.PerRobot
		case 5:
			t.Replicas, t.Per = 0, messages.PerSite
		}
		if rng.IntN(3) == 0 {
			w := pick(0, 1, 10)
			t.Work, t.Transfer = &w, &w
		}
		prefer(&t, rng)
		list = append(list, t)
	}
	p.Replicas = Expand(list, plain)
	if rng.IntN(2) == 0 {
		p.MovePrice, p.Current = pick(0, 1, 5), map[string]string{}
		for _, r := range p.Replicas {
			if rng.IntN(2) == 0 {
				p.Current[r.ID] = fmt.Sprintf("e%d", rng.IntN(envs+1)) // one of them is gone
			}
		}
		for i := range p.Replicas {
			if rng.IntN(4) == 0 {
				price := pick(0, 2, 20)
				p.Replicas[i].MovePrice = &price
			}
		}
	}
	if rng.IntN(2) == 0 { // else what was measured must not matter
		p.Settings.Mode = messages.Adaptive
	}
	if rng.IntN(2) == 0 {
		p.Measured = map[Pair]float64{{"gone", "e0"}: 3}
		for i := range tasks {
			for j := range envs + 1 { // one of them is gone
				if rng.IntN(4) == 0 {
					p.Measured[Pair{fmt.Sprintf("t%d", i), fmt.Sprintf("e%d", j)}] = pick(0, 1, 5, 40)
				}
			}
		}
	}
	return p
}

// prefer gives some tasks a preference that they allow, and some a move price.
func prefer(t *messages.Task, rng *rand.Rand) {
	if rng.IntN(4) == 0 {
		price := float64(rng.IntN(3) * 4)
		t.MovePrice = &price
	}
	var f messages.Preference
	switch rng.IntN(6) {
	case 0:
		f.Tiers = []messages.Tier{messages.Edge}
	case 1:
		f.Sites = []string{"a", messages.DefaultSite}
	case 2:
		f.Labels = map[string]string{"gpu": "yes"}
	case 3:
		f.Tiers, f.Labels = []messages.Tier{messages.Robot, messages.Edge}, map[string]string{"gpu": "yes"}
	default:
		return
	}
	if len(t.Sites) > 0 {
		f.Sites = nil
	}
	if w := float64(rng.IntN(4)) * 3; w > 0 { // else the default
		f.Penalty = &w
	}
	if len(f.Tiers)+len(f.Sites)+len(f.Labels) > 0 {
		t.Prefer = &f
	}
}

// penalty is what t pays on e, counted apart from the solver's own code.
func penalty(t messages.Task, e Environment) (sum float64) {
	f := t.Prefer
	if f == nil {
		return 0
	}
	each := 100.0
	if f.Penalty != nil {
		each = *f.Penalty
	}
	if len(f.Tiers) > 0 && !slices.Contains(f.Tiers, e.Tier) {
		sum += each
	}
	if len(f.Sites) > 0 && !slices.Contains(f.Sites, e.Site) {
		sum += each
	}
	if want, ok := f.Labels["gpu"]; ok && e.Labels["gpu"] != want {
		sum += each
	}
	return sum
}

// moves is what those pay who are not where they were, counted apart from the solver's
// own code.
func moves(p Problem, plan Plan) (sum float64) {
	there := make(map[string]bool)
	for _, e := range p.Environments {
		there[e.ID] = true
	}
	at := currentOf(plan)
	for _, r := range p.Replicas {
		was := p.Current[r.ID]
		if now := at[r.ID]; now == "" || was == "" || !there[was] || now == was {
			continue
		}
		price := p.MovePrice
		if r.Task.MovePrice != nil {
			price = *r.Task.MovePrice
		}
		if r.MovePrice != nil {
			price = *r.MovePrice
		}
		sum += price
	}
	return sum
}

// verify checks a plan against the problem, apart from the solver's own code.
func verify(t *testing.T, p Problem, plan Plan) {
	t.Helper()
	envs, reps := map[string]Environment{}, map[string]Replica{}
	for _, e := range p.Environments {
		e.Environment = e.Environment.Normal()
		envs[e.ID] = e
	}
	for _, r := range p.Replicas {
		reps[r.ID] = r
	}
	if len(plan.Assignments)+len(plan.Waiting) != len(p.Replicas) {
		t.Fatalf("%d placed + %d waiting of %d", len(plan.Assignments), len(plan.Waiting), len(p.Replicas))
	}
	used := map[string]messages.Resources{}
	there := map[string]bool{}
	var delay, cost, unmet float64
	for _, a := range plan.Assignments {
		e, r := envs[a.Environment], reps[a.Replica]
		task := r.Task
		d := task.WorkGFLOP() / e.Capacity.Compute
		if task.WorkGFLOP() == 0 {
			d = 0
		}
		if task.TransferKbit() > 0 {
			d += task.TransferKbit() / e.Capacity.Network
		}
		d += e.Latency
		if v, ok := p.Measured[Pair{task.Name, e.ID}]; ok && p.Settings.Mode == messages.Adaptive {
			d = v
		}
		delay, cost, unmet = delay+a.Delay, cost+a.Cost, unmet+penalty(task, e)
		near(t, "penalty of "+r.ID, a.Penalty, penalty(task, e))
		switch site := r.Site; {
		case math.Abs(d-a.Delay) > 1e-9*max(1, d):
			t.Errorf("%s on %s: delay %v, want %v", r.ID, e.ID, a.Delay, d)
		case task.Limit > 0 && d > task.Limit+1e-9*max(1, task.Limit):
			t.Errorf("%s on %s: delay %v past the limit %v", r.ID, e.ID, d, task.Limit)
		case r.Pin != "" && r.Pin != e.ID, task.Robot != "" && task.Robot != e.ID, site != "" && site != e.Site,
			len(task.Sites) > 0 && !slices.Contains(task.Sites, e.Site), len(task.Tiers) > 0 && !slices.Contains(task.Tiers, e.Tier):
			t.Errorf("%s must not run on %s", r.ID, e.ID)
		case task.Labels["gpu"] != "" && e.Labels["gpu"] != task.Labels["gpu"], e.Closed != "", !e.Serves(task.HandlerName()):
			t.Errorf("%s cannot run on %s", r.ID, e.ID)
		case !task.Colocate && there[task.Name+" "+e.ID]:
			t.Errorf("two of %s on %s", task.Name, e.ID)
		}
		there[task.Name+" "+e.ID] = true
		used[e.ID] = used[e.ID].Add(task.Demand)
	}
	for id, u := range used {
		free := envs[id].Capacity.Scale(1 - p.Settings.Reserve).Sub(envs[id].Foreign).Max(messages.Resources{})
		if !u.Within(free) {
			t.Errorf("%s holds %v of %v", id, u, free)
		}
	}
	near(t, "sum of delays", plan.Delay, delay)
	near(t, "sum of costs", plan.Cost, cost)
	near(t, "sum of penalties", plan.Penalty, unmet)
	if s := Score(p.Settings, delay, cost) + unmet; plan.Bound > s || math.Abs(s-plan.Score) > 1e-9*max(1, s) {
		t.Errorf("score %v (is %v), bound %v", plan.Score, s, plan.Bound)
	}
	for _, w := range plan.Waiting {
		if w.Fix == "" || len(w.Reasons) == 0 && (reps[w.Replica].Pin == "" && len(envs) > 0) {
			t.Errorf("%s waits without a reason or a fix: %+v", w.Replica, w)
		}
	}
}

// brute tries every assignment: the most placed per band, the first band counting
// most, then the lowest objective. With only set, exactly those are placed, and
// moves are free if asked.
func brute(in *instance, only []bool, freeMoves bool) (counts []int, objective float64) {
	if freeMoves {
		copied := *in
		copied.reps = slices.Clone(in.reps)
		for r := range copied.reps {
			copied.reps[r].move = 0
		}
		in = &copied
	}
	bands := in.bands()
	s := newState(in, 0)
	objective = math.Inf(1)
	var walk func(r int)
	walk = func(r int) {
		if r == len(in.reps) {
			now := make([]int, len(bands))
			for i, b := range bands {
				for _, x := range b {
					if s.at[x] >= 0 {
						now[i]++
					}
				}
			}
			o := s.objective()
			if c := slices.Compare(now, counts); counts == nil || c > 0 || c == 0 && o < objective {
				counts, objective = now, o
			}
			return
		}
		if only == nil || only[r] {
			for _, c := range in.reps[r].cands {
				if s.room(r, c.env) {
					s.put(r, c.env)
					walk(r + 1)
					s.take(r)
				}
			}
		}
		if only == nil || !only[r] {
			walk(r + 1)
		}
	}
	walk(0)
	return counts, objective
}

// The solver against all possibilities. Never better than the optimum, never below
// its own bound; as many placed and as cheap as the optimum in nearly all cases.
func TestBruteForceTwin(t *testing.T) {
	cases, samePlaced, same := 0, 0, 0
	var gap float64
	for seed := range times(1500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := random(rng, 2+rng.IntN(3), 2+rng.IntN(3))
		if len(p.Replicas) > 7 {
			continue
		}
		in, err := compile(p)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s := in.solve()
		plan := s.plan()
		only := make([]bool, len(s.at))
		counts := make([]int, len(in.bands()))
		for i, b := range in.bands() {
			for _, r := range b {
				if s.at[r] >= 0 {
					only[r] = true
					counts[i]++
				}
			}
		}
		best, _ := brute(in, nil, false)
		_, moved := brute(in, only, false)
		_, free := brute(in, only, true)
		near(t, fmt.Sprintf("seed %d: objective", seed), s.objective(), plan.Score+moves(p, plan))
		slack := 1e-9 * max(1, plan.Score)
		if slices.Compare(counts, best) > 0 {
			t.Errorf("seed %d: the solver places %v, all possibilities say %v", seed, counts, best)
		}
		if s.objective() < moved-slack {
			t.Errorf("seed %d: objective %v below the optimum %v", seed, s.objective(), moved)
		}
		if max(s.bound(), plan.Bound) > free+slack {
			t.Errorf("seed %d: bound %v, %v above the optimum %v", seed, s.bound(), plan.Bound, free)
		}
		cases++
		if slices.Equal(counts, best) {
			samePlaced++
		} else {
			t.Logf("seed %d: placed %v of %v", seed, counts, best)
		}
		if s.objective() <= moved+slack {
			same++
		} else {
			gap += (s.objective() - moved) / moved
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d cases: as many placed in %.2f %%, optimal score in %.2f %%, mean gap of the rest %.2f %%", cases,
		100*float64(samePlaced)/float64(cases), 100*float64(same)/float64(cases), 100*gap/float64(max(1, cases-same)))
	if float64(samePlaced) < 0.995*float64(cases) || float64(same) < 0.95*float64(cases) {
		t.Errorf("too far from the optimum: placed %d, optimal %d of %d", samePlaced, same, cases)
	}
}

func TestPlansKeepEveryConstraint(t *testing.T) {
	for seed := range times(120) {
		rng := rand.New(rand.NewPCG(seed, 2))
		p := random(rng, 1+rng.IntN(8), 1+rng.IntN(12))
		verify(t, p, mustSolve(t, p))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestPermutedProblemsGiveEqualPlans(t *testing.T) {
	for seed := range times(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		p := random(rng, 1+rng.IntN(6), 1+rng.IntN(10))
		want := fmt.Sprintf("%+v", mustSolve(t, p))
		for range 3 {
			q := p
			q.Environments, q.Replicas = slices.Clone(p.Environments), slices.Clone(p.Replicas)
			rng.Shuffle(len(q.Environments), func(i, j int) { q.Environments[i], q.Environments[j] = q.Environments[j], q.Environments[i] })
			rng.Shuffle(len(q.Replicas), func(i, j int) { q.Replicas[i], q.Replicas[j] = q.Replicas[j], q.Replicas[i] })
			if got := fmt.Sprintf("%+v", mustSolve(t, q)); got != want {
				t.Fatalf("seed %d: permuted\n%s\nnot\n%s", seed, got, want)
			}
		}
	}
}

// Every fix that Solve prints is taken, by changing the problem as it says; the
// replica must then have a place beside everything that had one.
func TestFixesWork(t *testing.T) {
	fixes, failed := 0, 0
	for seed := range times(200) {
		rng := rand.New(rand.NewPCG(seed, 4))
		p := random(rng, 1+rng.IntN(4), 1+rng.IntN(6))
		in, err := compile(p)
		if err != nil {
			t.Fatal(err)
		}
		s := in.solve()
		for _, r := range s.waiting() {
			remedies := s.fixable(r, fixNear)
			if !slices.IsSortedFunc(remedies, func(a, b remedy) int { return cmp.Compare(a.size, b.size) }) {
				t.Errorf("seed %d: %v is not sorted", seed, remedies)
			}
			for _, m := range remedies {
				text, change, _, _ := s.remedy(r, m.env, m.how)
				fixes++
				if !s.works(p, r, change) {
					failed++
					t.Logf("seed %d: %s: %q does not help", seed, in.reps[r].ID, text)
				}
			}
		}
	}
	t.Logf("%d of %d fixes work at once", fixes-failed, fixes)
	if failed*100 > fixes {
		t.Errorf("%d of %d fixes do not help", failed, fixes)
	}
}
