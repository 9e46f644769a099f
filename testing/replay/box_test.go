package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Cases that were reckoned by hand: what is there shares the machine in equal parts.
func TestBoxByHand(t *testing.T) {
	type begin struct {
		at   int // ms
		work float64
	}
	for _, tt := range []struct {
		name   string
		begins []begin
		speed  map[int]float64 // TFLOPS from a time on, ms; 1 before
		want   string          // which is done when, ms
	}{
		{"alone", []begin{{0, 10}}, nil, "0@10"},
		{"one after the other", []begin{{0, 10}, {10, 5}}, nil, "0@10 1@15"},
		{"two at once", []begin{{0, 10}, {0, 20}}, nil, "0@20 1@30"},
		{"one comes later", []begin{{0, 30}, {10, 10}}, nil, "1@30 0@40"},
		{"equal ones end together, in order", []begin{{0, 10}, {0, 10}, {0, 10}}, nil, "0@30 1@30 2@30"},
		{"slower from the half on", []begin{{0, 10}}, map[int]float64{5: 0.5}, "0@15"},
		{"off for a while", []begin{{0, 10}, {0, 10}}, map[int]float64{4: 0, 104: 1}, "0@120 1@120"},
	} {
		c := &clock{}
		b := &box{c: c, speed: 1}
		var got []string
		for i, x := range tt.begins {
			c.in(time.Duration(x.at)*time.Millisecond, func() {
				b.begin(x.work, func() { got = append(got, fmt.Sprintf("%d@%d", i, c.now.Milliseconds())) })
			})
		}
		for at, speed := range tt.speed {
			c.in(time.Duration(at)*time.Millisecond, func() { b.setSpeed(speed) })
		}
		c.run(time.Second)
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, s, tt.want)
		}
	}
}

// What is dropped leaves its part to the others at once.
func TestBoxDrops(t *testing.T) {
	c := &clock{}
	b := &box{c: c, speed: 1}
	var at time.Duration
	b.begin(10, func() { at = c.now })
	j := b.begin(100, func() { t.Error("what was dropped is done") })
	c.in(10*time.Millisecond, func() { b.drop(j) })
	c.run(time.Second)
	if at != 15*time.Millisecond || math.Abs(b.served-15) > 1e-9 {
		t.Errorf("done at %v, %v GFLOP served; want 15ms, 15", at, b.served)
	}
}

// The queue, the pulls and the sharing of a machine against a twin that knows no events: it
// looks at everything every microsecond.
func TestQueueAgainstASlowTwin(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var list []request
		at := time.Duration(0)
		for range 60 {
			at += time.Duration(rng.Int64N(int64(36 * time.Millisecond))).Truncate(time.Microsecond)
			list = append(list, request{at: at, kind: 2, work: 200 + 3000*rng.Float64(), kbit: 100 * rng.Float64()})
		}
		ours, twin := playQueue(t, list), twinOf(list)
		for i := range list {
			if late := twin[i] - ours[i]; late < -5*time.Microsecond || late > 200*time.Microsecond { // the twin is late by a step for each thing that happens
				t.Errorf("seed %d: request %d of %d ends at %v, the twin's at %v", seed, i, len(list), ours[i], twin[i])
				break
			}
		}
	}
}

// The machine of both: two replicas with one slot each.
const (
	twinReplicas = 2
	twinCompute  = 100.0
	twinNetwork  = 100.0
	twinLatency  = 10.0
)

func playQueue(t *testing.T, list []request) []time.Duration {
	t.Helper()
	h := &hour{requests: list}
	w := &world{rng: rand.New(rand.NewPCG(1, 1)), byID: make(map[string]*agent), queues: make(map[queueKey]*queue)}
	w.ledger = newLedger(w, h)
	a := w.addAgent(messages.Environment{ID: "edge", Tier: messages.Edge, Latency: twinLatency, Capacity: messages.Resources{Compute: twinCompute, Network: twinNetwork}}.Normal())
	a.up, a.reps = true, make(map[string]*replica)
	a.reckon()
	task := messages.Task{Name: kinds[2].name, Class: messages.Inference, Delivery: messages.Durable}
	routes := &messages.Routes{Tasks: []messages.TaskRoute{{Task: task}}}
	for i := range twinReplicas {
		id := messages.ReplicaID(task.Name, fmt.Sprint(i))
		r := &replica{w: w, a: a, placed: messages.PlacedReplica{ID: id, Task: task}, state: messages.ReplicaReady}
		a.reps[id] = r
		w.in(0, r.pull)
		routes.Tasks[0].Replicas = append(routes.Tasks[0].Replicas, messages.Route{ID: id, Agent: a.env.ID, Tier: a.env.Tier, Site: a.env.Site, State: messages.ReplicaReady})
	}
	w.addClient(0)
	w.clients[0].routes = routes
	for i, q := range list {
		w.in(warmUp+q.at, func() { w.clients[0].ask(i, q) })
	}
	w.run(warmUp + time.Minute)
	if err := w.ledger.check([]messages.Environment{a.env}, nil, w.now); err != nil {
		t.Fatal(err)
	}
	out := make([]time.Duration, len(list))
	for i, f := range w.ledger.fates {
		if f.outcome != answered {
			t.Fatalf("request %d of this load ended with outcome %d; it is meant to be one that is always answered", i, f.outcome)
		}
		out[i] = f.at - warmUp
	}
	return out
}

// twinOf is when each request is answered. A slot that comes free asks for the next: that
// takes half the latency, the message the other half and its transfer, and the answer half
// the latency again.
func twinOf(list []request) []time.Duration {
	const step = time.Microsecond
	half := messages.Millis(twinLatency / 2)
	out := make([]time.Duration, len(list))
	type slot struct {
		pulls   bool          // its pull is at the queue
		pullAt  time.Duration // or will be
		request int           // that it has; -1: none
		from    time.Duration // when that is there
		left    float64
	}
	slots := make([]slot, twinReplicas)
	for i := range slots {
		slots[i].request = -1
	}
	var queue []int
	next, answers := 0, 0
	for now := time.Duration(0); answers < len(list); now += step {
		for ; next < len(list) && list[next].at <= now; next++ {
			queue = append(queue, next)
		}
		var free []int // the pull that has waited longest comes first
		busy := 0
		for i := range slots {
			s := &slots[i]
			if s.request < 0 && now >= s.pullAt {
				s.pulls = true
			}
			if s.pulls {
				free = append(free, i)
			}
			if s.request >= 0 && now >= s.from {
				busy++
			}
		}
		slices.SortStableFunc(free, func(a, b int) int { return int(slots[a].pullAt - slots[b].pullAt) })
		for len(queue) > 0 && len(free) > 0 {
			s, q := &slots[free[0]], queue[0]
			queue, free = queue[1:], free[1:]
			s.pulls, s.request, s.left = false, q, list[q].work
			s.from = now + half + messages.Millis(list[q].kbit/twinNetwork)
		}
		for i := range slots {
			s := &slots[i]
			if s.request < 0 || now < s.from {
				continue
			}
			if s.left -= ms(step) * twinCompute / float64(max(1, busy)); s.left <= 0 {
				out[s.request] = now + step + half
				answers++
				s.request, s.pullAt = -1, now+step+half
			}
		}
	}
	return out
}
