package vtime_test

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

const ms = time.Millisecond

// seeBench is a task with a replica on an edge and one on a cloud, which takes what the edge
// leaves, and a client.
type seeBench struct {
	t      *testing.T
	s      *natstest.Server
	b      *bus.Bus
	task   messages.Task
	client *router.Client

	mu    sync.Mutex
	takes map[string]time.Duration // by agent
	deaf  bool                     // the handler of the edge does not heed its context
	exits int                      // how many requests with the body "exit" end the goroutine of the handler
	begun map[string][]string      // by agent: bodies
	ended map[string]time.Duration // by body: after how long its context ended in a handler
}

func newSeeBench(t *testing.T, s *natstest.Server, b *bus.Bus, idempotent bool, change ...func(*messages.Task)) *seeBench {
	t.Helper()
	j := &seeBench{t: t, s: s, b: b, task: messages.Task{Name: "see", Class: messages.Inference, Replicas: 2, Idempotent: idempotent},
		takes: map[string]time.Duration{"edge": 40 * ms, "cloud": 15 * ms}, begun: map[string][]string{}, ended: map[string]time.Duration{}}
	for _, f := range change {
		f(&j.task)
	}
	routes := messages.TaskRoute{Task: j.task}
	for rank, id := range []string{"edge", "cloud"} {
		j.put(bus.Placements, id, &messages.Placement{Agent: id, Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1,
			Replicas: []messages.PlacedReplica{{ID: "see/" + id, Task: j.task, Rank: rank}}})
		routes.Replicas = append(routes.Replicas, messages.Route{ID: "see/" + id, Agent: id, Tier: messages.Edge, Site: site, State: messages.ReplicaReady, Rank: rank})
	}
	j.put(bus.RoutesKV, bus.KeyRoutes, &messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1, Tasks: []messages.TaskRoute{routes}})
	j.client = router.NewClient(s.Connect(t), router.Config{Fleet: fleet, Origin: origin, Logger: slog.New(slog.DiscardHandler)})
	j.run(j.client.Run)
	check(t, j.client.Ready(within(t, time.Minute)))
	return j
}

func (j *seeBench) put(b bus.Bucket, key string, m messages.Message) {
	j.t.Helper()
	kv := must[bus.KV](j.t)(j.b.KV(within(j.t, time.Minute), b))
	must[uint64](j.t)(kv.Put(within(j.t, time.Minute), key, must[[]byte](j.t)(messages.Encode(m))))
}

func (j *seeBench) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { gone <- f(ctx) }()
	j.t.Cleanup(func() {
		cancel()
		if err := <-gone; err != nil {
			j.t.Error(err)
		}
	})
}

func (j *seeBench) agent(id string) {
	j.t.Helper()
	a := agent.New(j.s.Connect(j.t), agent.Config{
		Fleet: fleet, Environment: messages.Environment{ID: id, Tier: messages.Edge}, HandoverWait: -1, Logger: slog.New(slog.DiscardHandler),
	}, agent.Func("see", func(ctx context.Context, r *agent.Request) ([]byte, error) {
		j.mu.Lock()
		j.begun[id] = append(j.begun[id], string(r.Body))
		takes, deaf, exits := j.takes[id], j.deaf && id == "edge", j.exits > 0 && string(r.Body) == "exit"
		if exits {
			j.exits--
		}
		j.mu.Unlock()
		if exits {
			runtime.Goexit()
		}
		over, begun := ctx.Done(), time.Now()
		if deaf {
			over = nil
		}
		select {
		case <-over:
			j.mu.Lock()
			j.ended[string(r.Body)] = time.Since(begun)
			j.mu.Unlock()
			return nil, ctx.Err()
		case <-time.After(takes):
			return r.Body, nil
		}
	}))
	j.run(a.Run)
	pass(2 * time.Second)
}

// set changes how long requests take on an agent.
func (j *seeBench) set(id string, takes time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.takes[id] = takes
}

// ask asks and returns who answered after how long, or with what code it failed.
func (j *seeBench) ask(body string, deadline time.Duration) (who string, took time.Duration) {
	j.t.Helper()
	pass(5 * ms) // who answered the last one asks for more
	begun := time.Now()
	a, err := j.client.Infer(within(j.t, time.Minute), router.Inference{Task: "see", Body: []byte(body), Deadline: deadline})
	took = time.Since(begun)
	if err != nil {
		return string(messages.CodeOf(err)), took
	}
	if string(a.Body) != body {
		j.t.Errorf("%s was answered with %q", body, a.Body)
	}
	return a.Agent, took
}

// want asks and checks who answers, between two times.
func (j *seeBench) want(body string, deadline time.Duration, who string, from, to time.Duration) {
	j.t.Helper()
	if got, took := j.ask(body, deadline); got != who || took < from || took > to {
		j.t.Errorf("%s: %s after %v, want %s after %v to %v", body, got, took, who, from, to)
	}
}

// knowsItself lets the edge learn how quick it is.
func (j *seeBench) knowsItself() {
	j.t.Helper()
	for range 8 {
		j.want("quick", 75*ms, "edge", 40*ms, 41*ms)
	}
}

// times counts how often a body was begun on an agent.
func (j *seeBench) times(id, body string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.begun[id] {
		if b == body {
			n++
		}
	}
	return n
}

// A machine becomes slow. The first request that shows it is given back while there is time for
// another to answer it, and only that one: the replica knows from then on. How slow the machine
// was, it remembers.
func TestSlowMachineHandsOver(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, true)
		j.agent("edge")
		j.agent("cloud")
		j.knowsItself()
		// Three times as slow it would miss 75 ms; at 42 ms it shows.
		j.set("edge", 100*ms)
		j.want("first", 75*ms, "cloud", 57*ms, 60*ms)
		if j.times("edge", "first") != 1 || j.times("cloud", "first") != 1 {
			t.Errorf("begun %v", j.begun)
		}
		if at := j.ended["first"]; at < 42*ms || at > 43*ms {
			t.Errorf("handed over after %v, want 42 ms", at)
		}
		// What has more time it serves itself, and learns.
		for range 3 {
			j.want("knows", 75*ms, "cloud", 15*ms, 30*ms)
		}
		if j.times("edge", "knows") != 0 {
			t.Errorf("begun %v", j.begun)
		}
		j.want("learns", time.Second, "edge", 100*ms, 101*ms)
		j.set("edge", 40*ms)
		for range 8 {
			j.want("quick again", time.Second, "edge", 40*ms, 41*ms)
		}
		// 2.5 times as slow it misses 90 ms too, and it knows by now.
		j.set("edge", 100*ms)
		j.want("again", 90*ms, "cloud", 57*ms, 60*ms)
		pass(time.Second)
		if stats := j.client.Stats(); stats.Late != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

// Nothing is begun twice of a task that does not say that it may be. Where a handler goes on
// all the same, whoever is first answers.
func TestHandedOverToNobody(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, false)
		j.agent("edge")
		j.agent("cloud")
		j.knowsItself()
		j.set("edge", 100*ms)
		j.want("first", 75*ms, "deadline_exceeded", 74*ms, 76*ms)
		if j.times("edge", "first") != 1 || j.times("cloud", "first") != 0 {
			t.Errorf("begun %v", j.begun)
		}
	})
	for name, c := range map[string]struct {
		takes    time.Duration // on the edge, whose handler does not heed its context
		who      string
		from, to time.Duration
		late     uint64
	}{
		"the other is first": {100 * ms, "cloud", 57 * ms, 60 * ms, 1},
		"it is first itself": {55 * ms, "edge", 55 * ms, 56 * ms, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
				j := newSeeBench(t, s, b, true)
				j.deaf = true
				j.agent("edge")
				j.agent("cloud")
				j.knowsItself()
				j.set("edge", c.takes)
				j.want("first", 75*ms, c.who, c.from, c.to)
				pass(time.Second)
				if late := j.client.Stats().Late; late != c.late {
					t.Errorf("%d late answers, want %d", late, c.late)
				}
			})
		})
	}
	// Alone it gives back in vain.
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, true)
		j.agent("edge")
		j.knowsItself()
		j.set("edge", 100*ms)
		if who, took := j.ask("first", 75*ms); who != "deadline_exceeded" && who != "busy" || took > 76*ms {
			t.Errorf("%s after %v", who, took)
		}
		j.want("next", time.Second, "edge", 100*ms, 101*ms)
	})
}

// A guess that the machine has become slow is soon over; what was handed over is not begun again
// all the same: not even the machine as it was would have the time.
func TestHandedOverIsNotBegunAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, true)
		j.set("edge", 400*ms)
		j.agent("edge")
		for range 8 {
			j.want("quick", 790*ms, "edge", 400*ms, 401*ms)
		}
		j.set("edge", time.Second)
		j.want("first", 790*ms, "busy", 420*ms, 790*ms)
		if n := j.times("edge", "first"); n != 1 {
			t.Errorf("begun %d times", n)
		}
	})
}

// Where nobody else serves a task, a request stays where it is: it may be in time, and nobody
// would take it.
func TestTheOnlyReplicaHandsNothingOver(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, true, func(t *messages.Task) { t.Replicas = 1 })
		j.agent("edge")
		for range 8 {
			j.want("quick", 75*ms, "edge", 40*ms, 41*ms)
		}
		j.set("edge", 60*ms)
		j.want("hiccup", 75*ms, "edge", 60*ms, 61*ms)
	})
}

// Of requests that a replica serves at once all are handed over when its machine becomes slow.
// It takes that for one reason, not for one each.
func TestSlowMachineHandsOverAllAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, true, func(t *messages.Task) { t.Concurrency = 4 })
		j.agent("edge")
		j.agent("cloud")
		for range 8 {
			j.want("quick", 75*ms, "edge", 40*ms, 41*ms)
		}
		j.set("edge", 100*ms)
		pass(5 * ms)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { j.want("first", 75*ms, "cloud", 57*ms, 66*ms) })
		}
		all.Wait()
		if n := j.times("edge", "first"); n != 4 {
			t.Errorf("%d were begun on the edge, want 4", n)
		}
		// It expects three times the time, and not 81 times.
		j.want("has time enough", 200*ms, "edge", 100*ms, 101*ms)
	})
}

// What an agent has handed over it does not accept straight, for nobody could rely on it.
func TestHandedOverIsNotAcceptedStraight(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, true)
		j.agent("edge")
		for range 8 {
			j.want("quick", 75*ms, "edge", 40*ms, 41*ms)
		}
		j.set("edge", 100*ms)
		var asked sync.WaitGroup
		asked.Go(func() {
			_, err := j.client.Infer(within(t, time.Minute), router.Inference{Task: "see", ID: "handed", Body: []byte("first"), Deadline: 75 * ms})
			if err == nil {
				t.Error("answered in time")
			}
		})
		for _, c := range []struct {
			at         time.Duration
			kind, code string
		}{
			{35 * ms, "accepted", ""},
			{10 * ms, "result", "busy"},
		} {
			pass(c.at)
			do := b.Subject(messages.KindDo, site)
			do.Agent, do.Origin, do.Task = "edge", origin, "see"
			req := messages.Request{ID: "handed", Class: messages.Inference, Task: "see", Origin: origin, Attempt: 2, Left: 500 * ms}
			m := must[*nats.Msg](t)(b.Conn.RequestMsg(&nats.Msg{Subject: do.String(), Header: nats.Header(req.Header())}, time.Second))
			if kind, code := m.Header.Get(messages.HeaderKind), m.Header.Get(messages.HeaderError); kind != c.kind || code != c.code {
				t.Errorf("%v later: %v", c.at, m.Header)
			}
		}
		asked.Wait()
	})
}

// A handler that ends its goroutine is an accident. Its request moves elsewhere, as the agent
// does not claim to hold it, and the slot serves on.
func TestHandlerEndsItsGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, true)
		j.agent("edge")
		for range 2 {
			j.want("quick", 75*ms, "edge", 40*ms, 41*ms)
		}
		for _, only := range []string{"", "edge"} { // out of the queue, and straight
			j.exits = 1
			begun := time.Now()
			a, err := j.client.Infer(within(t, time.Minute), router.Inference{Task: "see", Body: []byte("exit"), Deadline: time.Second, Agent: only, AgentOnly: only != ""})
			if took := time.Since(begun); err != nil || string(a.Body) != "exit" || took > 500*ms {
				t.Errorf("agent %q: %v after %v", only, err, took)
			}
			pass(time.Second)
			j.want("quick", 75*ms, "edge", 40*ms, 41*ms)
		}
	})
}

// A replica that knows it would take longer than a request has gives it back, and in the
// end says so; it does not begin it. A second replica, which is faster, takes it.
func TestHopelessIsNotBegun(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newSeeBench(t, s, b, false)
		j.set("edge", 1200*ms)
		j.agent("edge")
		know := func() {
			t.Helper()
			j.want("long", 5*time.Second, "edge", 1200*ms, 1201*ms)
		}
		know()
		j.want("short", 900*ms, "busy", 0, 900*ms)
		do := b.Subject(messages.KindDo, site)
		do.Agent, do.Origin, do.Task = "edge", origin, "see"
		req := messages.Request{ID: "straight", Class: messages.Inference, Task: "see", Origin: origin, Attempt: 1, Left: 900 * ms}
		m := must[*nats.Msg](t)(b.Conn.RequestMsg(&nats.Msg{Subject: do.String(), Header: nats.Header(req.Header()), Data: []byte("short")}, time.Second))
		if m.Header.Get(messages.HeaderError) != string(messages.CodeBusy) || !strings.Contains(m.Header.Get(messages.HeaderErrorText), "takes about 1200 ms and 900 ms were left") {
			t.Errorf("straight: %v", m.Header)
		}
		j.agent("cloud")
		know()
		// For as long as that is good knowledge: whichever of the two has it first.
		for range 20 {
			j.want("short", 900*ms, "cloud", 15*ms, 30*ms)
		}
		if slices.Contains(j.begun["edge"], "short") {
			t.Errorf("begun %v", j.begun)
		}
	})
}
