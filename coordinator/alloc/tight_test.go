package alloc

import (
	"fmt"
	"math/rand/v2"

	"github.com/fleetbus/fleetbus/messages"
)

// tight makes sites of eight robots and three edges each and a cloud per twenty sites,
// with about three replicas an environment: actions pinned to their robots, perception
// that may run on a robot, an edge of its site or the cloud, and training. The edges
// are short, so that the tightest resource of a site is used up nearly.
func tight(sites int, seed uint64) Problem {
	rng := rand.New(rand.NewPCG(seed, 77))
	between := func(lo, hi float64) float64 { return lo + (hi-lo)*rng.Float64() }
	var envs []Environment
	var plain []messages.Environment
	add := func(e Environment, site string) {
		e.Site = site
		envs, plain = append(envs, e), append(plain, e.Environment)
	}
	var tasks []messages.Task
	for s := range sites {
		site := fmt.Sprintf("site-%04d", s)
		hub := fmt.Sprintf("hub-%03d", s/20)
		for r := range 8 {
			add(env(fmt.Sprintf("robot-%04d-%d", s, r), messages.Robot, between(8, 14), between(60, 120), between(60, 120), 1, between(1, 2)), site)
		}
		for e := range 3 {
			x := env(fmt.Sprintf("edge-%04d-%d", s, e), messages.Edge, between(32, 48), between(500, 800), between(250, 400), between(5, 12), between(4, 8))
			if e == 2 {
				x.Billing = messages.Whole
			}
			add(x, site)
		}
		if s%20 == 0 {
			add(env("cloud-"+hub, messages.Cloud, 12000, 100000, 20000, between(40, 60), 100), hub)
		}
		for i := range 22 {
			t := task(fmt.Sprintf("see-%04d-%02d", s, i), messages.Inference, between(1, 8), between(10, 100), between(5, 50), 100, between(0, 1))
			t.Sites = []string{site, hub}
			if i%4 > 0 {
				t.Tiers = []messages.Tier{messages.Edge, messages.Cloud}
			}
			if i%6 == 0 {
				t.Replicas = 2
			}
			tasks = append(tasks, t)
		}
		tr := task(fmt.Sprintf("train-%04d", s), messages.Training, between(50, 300), between(100, 1000), 100, 0, 5)
		tr.Sites = []string{hub}
		tasks = append(tasks, tr)
	}
	act := task("action", messages.Action, 1, 1, 10, 10, 0.1)
	act.Per = messages.PerRobot
	tasks = append(tasks, act)
	return Problem{Environments: envs, Replicas: Expand(tasks, plain), Settings: messages.DefaultSettings()}
}
