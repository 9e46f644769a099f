package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// What generateFleet accepts: below, there are not the tasks that a fleet consists of;
// above, it would not fit in the memory of a small machine.
const (
	leastEnvironments = 50
	mostEnvironments  = 100_000
	leastPer, mostPer = 2, 20 // replicas per environment
)

// fleet is a generated problem and the proof that all of it can be placed.
type fleet struct {
	problem alloc.Problem
	witness map[string]string // replica → environment: keeps every constraint
}

// generateFleet makes a fleet of so many environments and replicas. A site has one to
// three edges and eight to twenty-four robots; a region, which is a site of its own, has one
// cloud, and there is one for about every thousand environments. Robots have actions,
// pinned to them; a site has inference, which may run on its edges, its robots and the
// cloud of its region; training runs in clouds with accelerators.
//
// Tasks are drawn first and put somewhere. Then every environment is given what it
// holds and little more: in the resource that is scarce in its site, what it holds is 86 to
// 95 % of what may be planned. The rest of a machine of a usual size is in foreign use.
// With roomy clouds, that goes for all but the clouds, which have room for all that could
// come to them; else clouds are as scarce as the rest. Equal arguments give equal fleets.
func generateFleet(environments, replicas int, seed uint64, roomy bool) (*fleet, error) {
	if environments < leastEnvironments || environments > mostEnvironments {
		return nil, fmt.Errorf("%d environments; allowed are %d to %d", environments, leastEnvironments, mostEnvironments)
	}
	if replicas < leastPer*environments || replicas > mostPer*environments {
		return nil, fmt.Errorf("%d replicas; for %d environments allowed are %d to %d", replicas, environments, leastPer*environments, mostPer*environments)
	}
	g := &fleetMaker{
		roomy:    roomy,
		rng:      rand.New(rand.NewPCG(seed, uint64(environments)<<32|uint64(replicas))),
		at:       make(map[string]int),
		apart:    make(map[[2]string]bool),
		settings: messages.DefaultSettings(),
	}
	g.regions(max(1, environments/1000))
	for len(g.envs) < environments {
		g.site(environments - len(g.envs))
	}
	g.actions()
	training := replicas / 20
	g.inference(replicas - len(g.at) - training)
	g.training(replicas - len(g.at))
	g.tighten()
	return g.fleet(), nil
}

// fleetMaker is a fleet that is being made.
type fleetMaker struct {
	roomy    bool
	rng      *rand.Rand
	settings messages.Settings
	envs     []messages.Environment
	load     []messages.Resources // what the witness puts on each
	clouds   []int
	sites    []fleetSite
	tasks    []messages.Task
	at       map[string]int // the witness: replica → index in envs
	apart    map[[2]string]bool
	free     []messages.Resources // what may be planned of each
}

type fleetSite struct {
	name          string
	region        int // index in envs of the cloud
	edges, robots []int
}

func (g *fleetMaker) between(lo, hi float64) float64 {
	return math.Round(10*(lo+(hi-lo)*g.rng.Float64())) / 10
}

func (g *fleetMaker) add(e messages.Environment) int {
	g.envs = append(g.envs, e)
	g.load = append(g.load, messages.Resources{})
	return len(g.envs) - 1
}

// regions makes the clouds; the first and every other have accelerators.
func (g *fleetMaker) regions(n int) {
	for i := range n {
		accelerator := "none"
		if i%2 == 0 {
			accelerator = "large"
		}
		name := fmt.Sprintf("region-%d", i)
		g.clouds = append(g.clouds, g.add(messages.Environment{ID: "cloud-" + name, Tier: messages.Cloud, Site: name,
			Labels: map[string]string{"accelerator": accelerator}, Capacity: messages.Resources{Compute: 1000, Storage: 10000, Network: 10000},
			Latency: g.between(35, 60), Price: 10, Handlers: []string{"infer", "train"}}))
	}
}

// site makes one of at most so many environments.
func (g *fleetMaker) site(left int) {
	s := fleetSite{name: fmt.Sprintf("site-%d", len(g.sites)), region: g.clouds[len(g.sites)%len(g.clouds)]}
	size := min(left, 9+g.rng.IntN(19))
	if left-size < 9 { // what is left would be no site
		size = left
	}
	for e := range 1 + min(2, size/10) {
		billing := messages.Share
		if g.rng.IntN(5) == 0 {
			billing = messages.Whole
		}
		s.edges = append(s.edges, g.add(messages.Environment{ID: fmt.Sprintf("edge-%s-%d", s.name, e), Tier: messages.Edge, Site: s.name,
			Labels: map[string]string{"zone": string(rune('a' + e))}, Capacity: messages.Resources{Compute: 100, Storage: 1000, Network: 1000},
			Latency: g.between(5, 12), Price: g.between(4, 6), Billing: billing, Handlers: []string{"infer"}}))
	}
	for r := len(s.edges); r < size; r++ {
		arm := "no"
		if g.rng.IntN(2) == 0 {
			arm = "yes"
		}
		s.robots = append(s.robots, g.add(messages.Environment{ID: fmt.Sprintf("robot-%s-%d", s.name, r), Tier: messages.Robot, Site: s.name,
			Labels: map[string]string{"arm": arm}, Capacity: messages.Resources{Compute: 10, Storage: 100, Network: 100},
			Latency: 1, Price: 1, Handlers: []string{"act", "infer"}}))
	}
	g.sites = append(g.sites, s)
}

// put adds a replica of the task to the witness.
func (g *fleetMaker) put(t messages.Task, suffix string, env int) {
	g.at[messages.ReplicaID(t.Name, suffix)] = env
	g.apart[[2]string{t.Name, g.envs[env].ID}] = true
	g.load[env] = g.load[env].Add(t.Demand)
}

// actions gives every robot one to drive and every robot with an arm one to grasp.
func (g *fleetMaker) actions() {
	drive := messages.Task{Name: "drive", Class: messages.Action, Handler: "act", Per: messages.PerRobot, Limit: 10, Priority: 2,
		Demand: messages.Resources{Compute: 1, Storage: 2, Network: 8}, Work: amount(5), Transfer: amount(20)}
	grasp := messages.Task{Name: "grasp", Class: messages.Action, Handler: "act", Per: messages.PerRobot, Limit: 20, Priority: 2,
		Labels: map[string]string{"arm": "yes"},
		Demand: messages.Resources{Compute: 1.5, Storage: 4, Network: 5}, Work: amount(20), Transfer: amount(10)}
	g.tasks = append(g.tasks, drive, grasp)
	for _, s := range g.sites {
		for _, r := range s.robots {
			g.put(drive, g.envs[r].ID, r)
			if g.envs[r].Labels["arm"] == "yes" {
				g.put(grasp, g.envs[r].ID, r)
			}
		}
	}
}

// inference gives the sites so many replicas, by turns a task each.
func (g *fleetMaker) inference(left int) {
	for i := 0; left > 0; i++ {
		s := g.sites[i%len(g.sites)]
		t := messages.Task{Name: fmt.Sprintf("infer-%s-%d", s.name, i/len(g.sites)), Class: messages.Inference, Handler: "infer",
			Sites: []string{s.name, g.envs[s.region].Site}, Limit: 150, Priority: g.rng.IntN(2), Colocate: g.rng.IntN(3) > 0,
			Demand:   messages.Resources{Compute: g.between(1, 4), Storage: g.between(2, 30), Network: g.between(4, 20)},
			Replicas: min(left, 1+g.rng.IntN(6)), Work: amount(g.between(20, 120)), Transfer: amount(g.between(50, 400))}
		if len(s.edges) > 1 && g.rng.IntN(10) == 0 {
			// Too urgent for the cloud. Only where a second edge can take it over.
			t.Limit = 30
		}
		if !t.Colocate {
			t.Replicas = min(t.Replicas, len(s.edges)+1)
		}
		left -= t.Replicas
		g.tasks = append(g.tasks, t)
		for n := range t.Replicas {
			g.put(t, fmt.Sprint(n), g.home(t, s))
		}
	}
}

// home finds where the witness has a replica of t: mostly an edge, sometimes a robot or the cloud.
func (g *fleetMaker) home(t messages.Task, s fleetSite) int {
	for {
		list := s.edges
		switch dice := g.rng.IntN(10); {
		case dice == 0:
			list = []int{s.region}
		case dice <= 2:
			list = s.robots
		}
		e := list[g.rng.IntN(len(list))]
		// A machine may yet become a larger one, never a slower one.
		if !t.Colocate && g.apart[[2]string{t.Name, g.envs[e].ID}] || delayOf(t, g.envs[e]) > t.Limit {
			continue
		}
		return e
	}
}

// training gives the clouds with accelerators so many replicas.
func (g *fleetMaker) training(left int) {
	var fit []int
	for _, c := range g.clouds {
		if g.envs[c].Labels["accelerator"] == "large" {
			fit = append(fit, c)
		}
	}
	for i := 0; left > 0; i++ {
		t := messages.Task{Name: fmt.Sprintf("train-%d", i), Class: messages.Training, Handler: "train", Tiers: []messages.Tier{messages.Cloud},
			Labels: map[string]string{"accelerator": "large"}, Colocate: true, Replicas: min(left, 1+g.rng.IntN(20)),
			Demand: messages.Resources{Compute: g.between(50, 200), Storage: g.between(100, 900), Network: g.between(20, 100)},
			Work:   amount(1000), Transfer: amount(5000)}
		left -= t.Replicas
		g.tasks = append(g.tasks, t)
		for n := range t.Replicas {
			g.put(t, fmt.Sprint(n), fit[g.rng.IntN(len(fit))])
		}
	}
}

// tighten says what may be planned of every environment, and makes the machines as many
// times as large as they have to be for that.
func (g *fleetMaker) tighten() {
	scarce := make(map[string]int) // by site
	g.free = make([]messages.Resources, len(g.envs))
	for i := range g.envs {
		e := &g.envs[i]
		if _, ok := scarce[e.Site]; !ok {
			scarce[e.Site] = []int{0, 0, 0, 2, 2, 1}[g.rng.IntN(6)]
		}
		factor := 1.0
		for k, load := range amounts(g.load[i]) {
			part := 0.5 + 0.3*g.rng.Float64()
			if k == scarce[e.Site] {
				part = 0.86 + 0.09*g.rng.Float64()
			}
			if g.roomy && e.Tier == messages.Cloud {
				part = 0.04 + 0.02*g.rng.Float64()
			}
			free := load / part
			*at(&g.free[i], k) = free
			factor = max(factor, math.Ceil(free/((1-g.settings.Reserve)*amounts(e.Capacity)[k])))
		}
		e.Capacity = e.Capacity.Scale(factor)
		e.Price *= factor
	}
}

func (g *fleetMaker) fleet() *fleet {
	f := &fleet{witness: make(map[string]string, len(g.at))}
	f.problem.Settings = g.settings
	for i, e := range g.envs {
		use := e.Capacity.Scale(1 - g.settings.Reserve).Sub(g.free[i])
		f.problem.Environments = append(f.problem.Environments, alloc.Environment{Environment: e, Foreign: use.Max(messages.Resources{})})
	}
	f.problem.Replicas = alloc.Expand(g.tasks, slices.Clone(g.envs))
	for r, e := range g.at {
		f.witness[r] = g.envs[e].ID
	}
	return f
}

func amount(v float64) *float64 { return &v }

// amounts are compute, storage and network.
func amounts(r messages.Resources) [3]float64 { return [3]float64{r.Compute, r.Storage, r.Network} }

func at(r *messages.Resources, k int) *float64 {
	return [3]*float64{&r.Compute, &r.Storage, &r.Network}[k]
}
