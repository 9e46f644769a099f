package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// kind is one of the three services that requests are for. A request's tokens of context
// say which one it asks, as its caller knows them; the limits part the trace in three.
type kind struct {
	name     string
	upTo     float64 // tokens of context
	gflop    float64 // a token: twice the parameters of the model, in billions
	deadline time.Duration
	delivery messages.Delivery
}

var kinds = []kind{
	{"reflex", 400, 0.2, 100 * time.Millisecond, messages.Direct}, // 0.1 billion parameters
	{"see", 1200, 2, 250 * time.Millisecond, messages.Durable},    // 1 billion
	{"study", math.Inf(1), 6, time.Second, messages.Durable},      // 3 billion
}

// The fleet is that of configs/ten-robots.yaml. Robots are the requesters, and sites of
// their own; what they share stands in the site main.
const (
	robots       = 10
	replicas     = 10          // of each service
	kbitPerToken = 0.032       // four bytes
	hop          = 10.0        // ms more to a machine in another robot's site, which the model knows nothing of
	phase        = time.Minute // robots begin within it
)

// request is one request of a robot.
type request struct {
	at         time.Duration // since the beginning of the hour
	robot      int
	kind       int
	work, kbit float64 // GFLOP, kbit
}

// hour is what the robots ask, in order of time.
type hour struct {
	requests []request
	last     time.Duration
	rate     [3]float64 // 1/s, of all robots together, by kind
	work     [3]float64 // GFLOP, mean
	kbit     [3]float64
}

// newHour lets each robot send what the trace says, at a phase of its own: so the load
// rises and falls as in the trace, and no two robots move as one.
func newHour(trace []arrival, seed uint64) *hour {
	rng := rand.New(rand.NewPCG(seed, 0x4e91a7))
	h := &hour{last: trace[len(trace)-1].at + phase}
	for r := range robots {
		shift := time.Duration(rng.Int64N(int64(phase)))
		for _, a := range trace {
			k := slices.IndexFunc(kinds, func(k kind) bool { return a.context <= k.upTo })
			tokens := max(1, a.context+a.generated)
			h.requests = append(h.requests, request{a.at + shift, r, k, tokens * kinds[k].gflop, tokens * kbitPerToken})
		}
	}
	slices.SortStableFunc(h.requests, func(a, b request) int { return int(a.at - b.at) })
	var n [3]float64
	for _, q := range h.requests {
		n[q.kind]++
		h.work[q.kind] += q.work
		h.kbit[q.kind] += q.kbit
	}
	for k := range kinds {
		h.rate[k] = n[k] / h.last.Seconds()
		h.work[k] /= max(1, n[k])
		h.kbit[k] /= max(1, n[k])
	}
	return h
}

// scheme is one way to place the services.
type scheme struct {
	name string
	mode messages.Mode
	tier messages.Tier // the only one that may be used; "": all of them
	each bool          // every robot has a whole cloud of its own
	move float64       // score that moving a replica must gain; 0: as the coordinator has it
}

var schemes = []scheme{
	{name: "all-cloud", mode: messages.Dynamic, tier: messages.Cloud},
	{name: "all-cloud-each", mode: messages.Dynamic, tier: messages.Cloud, each: true},
	{name: "all-edge", mode: messages.Dynamic, tier: messages.Edge},
	{name: "hybrid-static", mode: messages.Static},
	{name: "hybrid-dynamic", mode: messages.Dynamic},
	{name: "hybrid-adaptive", mode: messages.Adaptive},
	{name: "hybrid-adaptive-20", mode: messages.Adaptive, move: 20},
}

var tiers = []messages.Tier{messages.Cloud, messages.Edge, messages.Robot}

func robotSite(r int) string { return fmt.Sprintf("robot-%d", r) }

// environments of the fleet.
func (s scheme) environments() (list []messages.Environment) {
	add := func(e messages.Environment) {
		e.Handlers = []string{messages.AnyHandler}
		list = append(list, e.Normal())
	}
	cloud := messages.Environment{ID: "cloud", Tier: messages.Cloud, Capacity: messages.Resources{Compute: 1000, Network: 1000}, Latency: 50, Price: 10}
	if !s.each {
		add(cloud)
	}
	for i := range robots {
		add(messages.Environment{ID: fmt.Sprintf("edge-%d", i), Tier: messages.Edge, Capacity: messages.Resources{Compute: 100, Network: 100}, Latency: 10, Price: 5, Billing: messages.Whole})
		add(messages.Environment{ID: fmt.Sprintf("robot-%d", i), Site: robotSite(i), Tier: messages.Robot, Capacity: messages.Resources{Compute: 10, Network: 10}, Latency: 1, Price: 1, Billing: messages.Whole})
		if s.each {
			own := cloud
			own.ID, own.Site, own.Billing = fmt.Sprintf("cloud-%d", i), robotSite(i), messages.Whole
			add(own)
		}
	}
	return list
}

// tasks are the services as the planner is told of them: with the mean of the hour, and a
// share of its mean load for each replica.
func (s scheme) tasks(h *hour) (list []messages.Task) {
	for i, k := range kinds {
		work, kbit := h.work[i], h.kbit[i]
		rate := h.rate[i] / replicas
		t := messages.Task{
			Name: k.name, Class: messages.Inference, Work: &work, Transfer: &kbit, Delivery: k.delivery,
			Demand: messages.Resources{Compute: rate * work / 1000, Network: rate * kbit / 1000},
			Limit:  ms(k.deadline), Deadline: ms(k.deadline),
			Replicas: replicas, Colocate: true,
		}
		if s.move > 0 {
			t.MovePrice = &s.move
		}
		switch {
		case s.each:
			t.Replicas, t.Colocate, t.Per = 0, false, messages.PerSite
			for r := range robots {
				t.Sites = append(t.Sites, robotSite(r))
			}
		case s.tier == "" && i == 0: // a robot serves its own, as it does its actions in the model
			t.Replicas, t.Colocate, t.Per = 0, false, messages.PerRobot
		}
		if s.tier != "" {
			t.Tiers = []messages.Tier{s.tier}
		}
		list = append(list, t)
	}
	return list
}

// trouble is something that happens to a machine, from one time of the hour to another.
type trouble struct {
	env      string
	from, to time.Duration
	slow     float64 // its compute is really this part of what it declares; 0: all of it
	foreign  float64 // TFLOPS that others use
	off      bool
}

// roughHour brings both sides trouble. The first half of the edge boxes, which plans fill
// first, meets one of each kind: others use much of them, and they say so; they are slower
// than they declare, and nobody is told; and the first is killed and comes back. The other
// half stays as it is, so that there is somewhere to go. After that no cloud is there for
// two minutes, as when an uplink is cut.
func roughHour() (list []trouble) {
	for i := range robots / 2 {
		id := fmt.Sprintf("edge-%d", i)
		list = append(list,
			trouble{env: id, from: 10 * time.Minute, to: 20 * time.Minute, foreign: 60},
			trouble{env: id, from: 25 * time.Minute, to: 40 * time.Minute, slow: 0.4})
	}
	list = append(list, trouble{env: "edge-0", from: 45 * time.Minute, to: 50 * time.Minute, off: true},
		trouble{env: "cloud", from: 52 * time.Minute, to: 54 * time.Minute, off: true})
	for i := range robots {
		list = append(list, trouble{env: fmt.Sprintf("cloud-%d", i), from: 52 * time.Minute, to: 54 * time.Minute, off: true})
	}
	return list
}
