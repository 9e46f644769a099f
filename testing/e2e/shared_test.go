package e2e

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// What others use of the 100 TFLOPS of edge-1. Beside the four tasks, which declare 10
// each, there is room for othersBefore and for one of them beside twice that. Requests take
// 2.5 of each 10, so that othersBetween makes 73 %: over the lower threshold, under the
// upper.
const (
	othersBefore  = 44
	othersBetween = 70
)

// modelLoads is how long every model loads: some requests of each task come meanwhile.
const modelLoads = 2 * time.Second

// shared is a fleet of an edge that others use too, a small edge and a cloud, with four
// tasks that all run best on the first.
type shared struct {
	*fleet
	b     *bus.Bus
	use   string // the file that says what others use of edge-1
	tasks []messages.Task

	mu     sync.Mutex
	events []messages.Event
}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{fleet: newFleet(t)}
	s.use = filepath.Join(s.dir, "use.yaml")
	s.others(othersBefore)
	s.coordinator("c1")
	exec := modelExec(t, "model", modelLoads)
	for id, more := range map[string][]string{
		"edge-1":  {"--foreign-use", s.use},
		"edge-2":  {"--compute", "15TFLOPS", "--latency", "3ms"}, // room for one, slower
		"cloud-1": {"--latency", "20ms"},
	} {
		tier, _, _ := strings.Cut(id, "-")
		s.agent(id, messages.Tier(tier), append(more, "--exec", exec, "--history", s.history(id))...)
	}
	s.b = s.bus()
	s.listen()
	s.until("three agents", func() error {
		state, err := coordinator.ReadState(t.Context(), s.b)
		if err == nil && len(state.Agents) != 3 {
			err = fmt.Errorf("%d are there", len(state.Agents))
		}
		return err
	})
	for name, work := range map[string]float64{"tiny": 50, "small": 100, "large": 400, "huge": 800} {
		s.tasks = append(s.tasks, messages.Task{Name: name, Class: messages.Inference, Handler: "model",
			Demand: messages.Resources{Compute: 10}, Work: &work, Deadline: 10_000})
	}
	s.apply(s.b, len(s.tasks), s.tasks...)
	return s
}

func (s *shared) history(who string) string { return filepath.Join(s.dir, "history-"+who+".jsonl") }

// others says what others use of edge-1, as docs/operations.md shows it.
func (s *shared) others(tflops float64) {
	s.t.Helper()
	if err := os.WriteFile(s.use+".new", fmt.Appendf(nil, "compute: %vTFLOPS\n", tflops), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.use+".new", s.use); err != nil {
		s.t.Fatal(err)
	}
}

// listen keeps what the leader says that it does, in its order.
func (s *shared) listen() {
	s.t.Helper()
	if _, err := s.b.Conn.Subscribe(s.b.Subject(messages.KindEvent, messages.FleetSite).String(), func(m *nats.Msg) {
		var e messages.Event
		if err := messages.Decode(m.Data, &e); err != nil {
			s.t.Errorf("an event: %v", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.b.Conn.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// told returns what the leader has said since the first n events.
func (s *shared) told(n int) []messages.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events[n:])
}

// moves are those that have begun since the first n events.
func (s *shared) moves(n int) (list []messages.Event) {
	for _, e := range s.told(n) {
		if e.Kind == "replica_moving" {
			list = append(list, e)
		}
	}
	return list
}

// ask asks for every task, again and again until stop.
func (s *shared) ask() (stop func()) {
	s.t.Helper()
	c := s.client("tester", nil)
	w, err := history.Open(s.history("tester"), "tester")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, task := range s.tasks {
		// Work · rate = 2.5 TFLOPS, a quarter of what each declares.
		every := messages.Millis(*task.Work / 2.5)
		all.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				s.one(c, w, task.Name)
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
		if err := w.Close(); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

// one asks once, and writes down what came of it. What is under way at the end is to be
// answered too.
func (s *shared) one(c *router.Client, w *history.Writer, task string) {
	body := []byte("observation " + nuid.Next())
	r := history.Record{Kind: history.Sent, ID: nuid.Next(), Class: messages.Inference, Task: task, Origin: "tester", Sum: crc32.ChecksumIEEE(body)}
	w.Write(r)
	a, err := c.Infer(context.Background(), router.Inference{ID: r.ID, Task: task, Body: body})
	if err != nil {
		e := messages.AsError(err, messages.CodeInternal)
		r.Kind, r.Code, r.Text = history.Refused, e.Code, e.Message
	} else {
		r.Kind, r.Agent, r.Attempt = history.Answered, a.Agent, a.Attempt
	}
	w.Write(r)
}

// homes is where every replica is, once nothing is on its way.
func (s *shared) homes() (map[string]string, error) {
	state, err := coordinator.ReadState(s.t.Context(), s.b)
	if err != nil {
		return nil, err
	}
	at := make(map[string]string)
	for _, r := range state.Replicas {
		if r.State != messages.ReplicaReady || r.To != "" {
			return nil, fmt.Errorf("replica %s is %s on %s, to %q", r.ID, r.State, r.Agent, r.To)
		}
		at[r.ID] = r.Agent
	}
	return at, nil
}

// best is what the planner says, all by itself, with others using so much of edge-1.
func (s *shared) best(tflops float64, at map[string]string) map[string]string {
	s.t.Helper()
	state, err := coordinator.ReadState(s.t.Context(), s.b)
	if err != nil {
		s.t.Fatal(err)
	}
	calm := placement.DefaultCalm()
	p := alloc.Problem{Settings: state.Settings, Current: at, MovePrice: alloc.Score(state.Settings, calm.MoveDelay, calm.MoveCost)}
	envs := make([]messages.Environment, 0, len(state.Agents))
	for _, a := range state.Agents {
		e := alloc.Environment{Environment: a.Environment}
		if e.ID == "edge-1" {
			e.Foreign.Compute = tflops
		}
		p.Environments = append(p.Environments, e)
		envs = append(envs, a.Environment)
	}
	p.Replicas = alloc.Expand(s.tasks, envs)
	plan, err := alloc.Solve(p)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(plan.Waiting) > 0 {
		s.t.Fatalf("the planner leaves %+v without a place", plan.Waiting)
	}
	best := make(map[string]string)
	for _, a := range plan.Assignments {
		best[a.Replica] = a.Environment
	}
	return best
}
