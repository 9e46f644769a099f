package alloc

import (
	"fmt"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// fleet makes sites of nine robots and two edges each, and a cloud per ten sites:
// an action on every robot, an inference per robot within its site, a training per
// site.
func fleet(sites int) Problem {
	var envs []Environment
	var plain []messages.Environment
	add := func(e Environment, site string) {
		e.Site = site
		envs, plain = append(envs, e), append(plain, e.Environment)
	}
	var tasks []messages.Task
	for s := range sites {
		site := fmt.Sprintf("site-%d", s)
		for r := range 9 {
			add(env(fmt.Sprintf("robot-%d-%d", s, r), messages.Robot, 10, 100, 100, 1, 1), site)
		}
		for e := range 2 {
			add(env(fmt.Sprintf("edge-%d-%d", s, e), messages.Edge, 100, 1000, 1000, 10, 5), site)
		}
		if s%10 == 0 {
			add(env(fmt.Sprintf("cloud-%d", s), messages.Cloud, 10000, 100000, 10000, 50, 10), "hub")
		}
		inf := task("inference-"+site, messages.Inference, 18+float64(s%5), 20, 50, 100, 1)
		inf.Replicas, inf.Colocate, inf.Sites = 9, true, []string{site, "hub"}
		tr := task("training-"+site, messages.Training, 500, 1000, 100, 0, 5)
		tasks = append(tasks, inf, tr)
	}
	act := task("action", messages.Action, 1, 1, 10, 10, 0.1)
	act.Per = messages.PerRobot
	tasks = append(tasks, act)
	return Problem{Environments: envs, Replicas: Expand(tasks, plain), Settings: messages.DefaultSettings()}
}

func BenchmarkSolve(b *testing.B) {
	for _, sites := range []int{1, 10, 100, 900} {
		p := fleet(sites)
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

// BenchmarkSolveShort solves fleets in which a fifth has to wait.
func BenchmarkSolveShort(b *testing.B) {
	for _, sites := range []int{1, 10, 100, 900} {
		p := fleet(sites)
		for i := range p.Environments {
			if e := &p.Environments[i]; e.Tier == messages.Cloud {
				e.Capacity = e.Capacity.Scale(0.5)
			}
		}
		for i := range p.Replicas {
			p.Replicas[i].Task.Priority = i % 3
		}
		b.Run(fmt.Sprintf("%dx%d", len(p.Environments), len(p.Replicas)), func(b *testing.B) {
			for b.Loop() {
				plan, err := Solve(p)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(plan.Waiting)), "waiting")
			}
		})
	}
}
