package alloc

import (
	"cmp"
	"slices"
)

// Cell is one task on one environment by the model: as if nothing else ran there.
type Cell struct {
	Task        string
	Environment string
	Delay       float64 // ms; the measured one where it counts; +Inf where there is nothing to run it with
	Modelled    float64 // ms; equal to Delay where that was not measured
	Measured    bool    // Delay was measured
	Cost        float64 // per hour; the whole price where it is billed whole
	Penalty     float64 // score, for what the task prefers and has not got there
	Score       float64
	Feasible    bool     // by the model and Delay: capacity without reserve, and limit
	Reasons     []Reason // what keeps a plan from putting it there even so: reserve, foreign use, tier, handler, …; empty where it may
}

// Matrix returns the matching matrix of p's tasks and environments, sorted by task,
// then by environment. Of tasks with one name the replica with the first id counts;
// pins of replicas do not.
func Matrix(p Problem) ([]Cell, error) {
	tasks := make(map[string]Replica)
	for _, r := range p.Replicas {
		if t, ok := tasks[r.Task.Name]; !ok || r.ID < t.ID {
			tasks[r.Task.Name] = r
		}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	p.Replicas, p.Current = nil, nil
	for name, r := range tasks {
		p.Replicas = append(p.Replicas, Replica{ID: name, Task: r.Task})
	}
	slices.SortFunc(p.Replicas, func(a, b Replica) int { return cmp.Compare(a.ID, b.ID) })
	in, err := compile(p)
	if err != nil {
		return nil, err
	}
	s := newState(in, 0)
	out := make([]Cell, 0, len(in.reps)*len(in.envs))
	for r := range in.reps {
		t := in.reps[r].Task
		for e := range in.envs {
			env := in.envs[e].Environment.Environment
			c := Cell{Task: t.Name, Environment: env.ID, Modelled: Delay(t, env), Cost: Cost(t, env), Penalty: Penalty(t, env)}
			c.Delay, c.Measured = in.delay(&t, e)
			c.Feasible = feasible(t, env, c.Delay)
			c.Score = Score(in.settings, c.Delay, c.Cost) + c.Penalty
			for _, o := range s.obstacles(r, e) {
				c.Reasons = append(c.Reasons, s.reason(r, e, []obstacle{o}))
			}
			out = append(out, c)
		}
	}
	return out, nil
}
