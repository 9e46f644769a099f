package stopping

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// Config is what to measure.
type Config struct {
	Robots int
	Rounds int    // how often all are stopped
	Cuts   int    // how often the link of one is cut
	Binary string // of fleetbus; "" builds it
	Fault  string // planted in the executors, to see that it is noticed
}

// Result is what was measured. Times of a stop count from the call, its saving included.
type Result struct {
	Acks     []time.Duration // until a robot's acknowledgement was here; every robot of every round
	All      []time.Duration // until the last one was here; every round
	Ended    []time.Duration // until a robot's handler had returned
	SelfStop []time.Duration // from the cut of a link until that robot's handler had returned
	Requests int64           // inferences answered meanwhile
	Failed   int64           // inferences that were not
	Busy     int64           // commands refused because the robot was busy or stopped
}

// bench is a running fleet.
type bench struct {
	*family
	cfg     Config
	proxies []*proxy
	b       *bus.Bus
	client  *router.Client
	orders  *nats.Conn // carries stops and nothing else

	mu       sync.Mutex
	accepted map[string]chan struct{} // by request
	res      Result
	requests atomic.Int64
	failed   atomic.Int64
	busy     atomic.Int64
}

// Measure starts a fleet, measures, and ends it. An error means that a robot did not
// stop as it must, or that nothing could be measured.
func Measure(ctx context.Context, cfg Config) (res Result, err error) {
	dir, err := os.MkdirTemp("", "fleetbus-stopping-")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	if cfg.Binary == "" {
		if cfg.Binary, err = build(dir); err != nil {
			return res, err
		}
	}
	m := &bench{family: &family{binary: cfg.Binary, dir: dir, fault: cfg.Fault}, cfg: cfg, accepted: make(map[string]chan struct{})}
	defer func() {
		m.kill()
		for _, p := range m.proxies {
			p.close()
		}
		if err != nil {
			m.family.mu.Lock()
			err = fmt.Errorf("%w\nthe processes said:\n%s", err, m.said.Bytes())
			m.family.mu.Unlock()
		}
	}()
	if err := m.raise(ctx); err != nil {
		return res, err
	}
	err = m.run(ctx)
	m.res.Requests, m.res.Failed, m.res.Busy = m.requests.Load(), m.failed.Load(), m.busy.Load()
	return m.res, err
}

func robotName(i int) string { return fmt.Sprintf("robot-%d", i+1) }

// raise starts the processes and returns when every replica is ready.
func (m *bench) raise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	if err := m.server(ctx); err != nil {
		return err
	}
	if err := m.start("coordinator", "--id", "c1", "--server", m.url, "--fleet", fleetName); err != nil {
		return err
	}
	if err := m.agent("edge-1", messages.Edge, "100TFLOPS", m.url); err != nil {
		return err
	}
	for i := range m.cfg.Robots {
		url := m.url
		if i < m.cfg.Cuts {
			p, err := newProxy(m.url)
			if err != nil {
				return err
			}
			m.proxies = append(m.proxies, p)
			url = p.url()
		}
		if err := m.agent(robotName(i), messages.Robot, "10TFLOPS", url); err != nil {
			return err
		}
	}
	nc, err := bus.Connect(m.url, "stopping")
	if err != nil {
		return err
	}
	if m.b, err = bus.New(nc, fleetName, 0); err != nil {
		return err
	}
	if m.orders, err = bus.Connect(m.url, "stopping orders"); err != nil {
		return err
	}
	minute, short := 60_000*10.0, 5*100.0 // GFLOP: a minute on a robot, 5 ms on the edge
	tasks := []messages.Task{
		{Name: "move", Class: messages.Action, Demand: messages.Resources{Compute: 1}, Work: &minute, Per: messages.PerRobot},
		{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Work: &short, Tiers: []messages.Tier{messages.Edge}, Concurrency: 8, Deadline: 5000},
	}
	if _, err := coordinator.Apply(ctx, m.b, tasks, nil); err != nil {
		return err
	}
	return until(ctx, "all replicas to be ready", func() error {
		s, err := coordinator.ReadState(ctx, m.b)
		if err != nil {
			return err
		}
		n := 0
		for _, r := range s.Replicas {
			if r.State == messages.ReplicaReady {
				n++
			}
		}
		if n != m.cfg.Robots+1 {
			return fmt.Errorf("%d of %d are", n, m.cfg.Robots+1)
		}
		return nil
	})
}

// run measures under load.
func (m *bench) run(ctx context.Context) error {
	nc, err := bus.Connect(m.url, "stopping client")
	if err != nil {
		return err
	}
	defer nc.Close()
	defer m.orders.Close()
	defer m.b.Conn.Close()
	m.client = router.NewClient(nc, router.Config{Fleet: fleetName, Origin: "bench", Trace: m.trace})
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() { _ = m.client.Run(ctx) }) // it ends with ctx; what fails before is seen by Ready
	defer parts.Wait()
	defer cancel()
	if err := m.client.Ready(ctx); err != nil {
		return err
	}
	for range loaders {
		parts.Go(func() { m.infer(ctx) })
	}
	parts.Go(func() { m.disturb(ctx) })
	all := make([]int, m.cfg.Robots)
	for i := range all {
		all[i] = i
	}
	for round := range m.cfg.Rounds {
		if err := m.stopAll(ctx, all); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	for i := range m.cfg.Cuts {
		if err := m.cutOne(ctx, i); err != nil {
			return fmt.Errorf("cut %d: %w", i+1, err)
		}
	}
	return nil
}

// outcome is how an action ended.
type outcome struct {
	robot int
	id    string
	err   error
}

// begin begins an action on every robot of a list and returns when all have accepted it:
// their ids, and how they end.
func (m *bench) begin(ctx context.Context, robots []int) (ids []string, _ <-chan outcome, _ error) {
	ends := make(chan outcome, len(robots))
	for _, i := range robots {
		// A command of disturb may have the robot for a moment.
		err := until(ctx, "the robot to accept an action", func() error {
			id, taken := nuid.Next(), make(chan struct{})
			m.mu.Lock()
			m.accepted[id] = taken
			m.mu.Unlock()
			ended := make(chan error, 1)
			go func() {
				_, err := m.client.Act(ctx, router.Action{ID: id, Robot: robotName(i), Task: "move", Episode: id, Seq: 1, Body: []byte("x"), Deadline: 2 * time.Minute})
				ended <- err
			}()
			select {
			case <-taken:
				go func() { ends <- outcome{i, id, <-ended} }()
				ids = append(ids, id)
				return nil
			case err := <-ended:
				if err == nil {
					err = errors.New("it ended at once")
				}
				return err
			}
		})
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", robotName(i), err)
		}
	}
	return ids, ends, nil
}

// stopAll stops all robots while each has an action that runs, and releases them.
func (m *bench) stopAll(ctx context.Context, robots []int) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	_, ends, err := m.begin(ctx, robots)
	if err != nil {
		return err
	}
	start := time.Now()
	r, err := safety.Stop(ctx, m.orders, fleetName, safety.Order{Reason: "measured"})
	if err != nil {
		return err
	}
	if !r.Done() || len(r.Acks) != len(robots) {
		return fmt.Errorf("not all have acknowledged: %+v", r)
	}
	m.res.All = append(m.res.All, r.Took)
	for _, a := range r.Acks {
		if a.Canceled != 1 {
			return fmt.Errorf("%s canceled %d actions, one ran", a.Agent, a.Canceled)
		}
		m.res.Acks = append(m.res.Acks, a.Took)
	}
	for range robots {
		at, err := m.ended(ctx, ends)
		if err != nil {
			return err
		}
		m.res.Ended = append(m.res.Ended, at.Sub(start))
	}
	return m.release(ctx, "")
}

// ended waits for the end of an action and returns when its handler had returned.
func (m *bench) ended(ctx context.Context, ends <-chan outcome) (time.Time, error) {
	var o outcome
	select {
	case o = <-ends:
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("waiting for the end of an action: %w", ctx.Err())
	}
	if code := messages.CodeOf(o.err); code != messages.CodeUnknownOutcome {
		return time.Time{}, fmt.Errorf("%s: its action was to be cut off and ended with %w", robotName(o.robot), o.err)
	}
	return m.returned(ctx, o.robot, o.id)
}

// returned reads in the history of a robot when the handler of a request had returned.
func (m *bench) returned(ctx context.Context, robot int, id string) (at time.Time, err error) {
	err = until(ctx, "the end in the robot's history", func() error {
		list, err := history.Read(m.history(robotName(robot)))
		if err != nil {
			return err
		}
		for _, r := range list {
			if r.ID == id && r.Kind == history.End {
				at = r.At
				return nil
			}
		}
		return errors.New("it is not there")
	})
	return at, err
}

func (m *bench) release(ctx context.Context, robot string) error {
	r, err := safety.Release(ctx, m.orders, fleetName, safety.Order{Robot: robot})
	if err == nil && !r.Done() {
		err = fmt.Errorf("not released: %+v", r)
	}
	return err
}

// cutOne cuts the link of a robot at a random moment while it acts, and measures until
// its handler has returned.
func (m *bench) cutOne(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	robot := i % m.cfg.Robots
	ids, ends, err := m.begin(ctx, []int{robot})
	if err != nil {
		return err
	}
	// Anywhere between two pings of the robot.
	select {
	case <-time.After(time.Duration(rand.Int64N(int64(250 * time.Millisecond)))):
	case <-ctx.Done():
		return ctx.Err()
	}
	start := time.Now()
	m.proxies[robot].set(true)
	// What the robot itself wrote down: nothing else gets out of there.
	at, err := m.returned(ctx, robot, ids[0])
	if err != nil {
		return fmt.Errorf("%s does not stop: %w", robotName(robot), err)
	}
	m.res.SelfStop = append(m.res.SelfStop, at.Sub(start))
	m.proxies[robot].set(false)
	if _, err := m.ended(ctx, ends); err != nil {
		return err
	}
	// It stays stopped, although the link is well, until somebody releases it.
	if err := until(ctx, "the robot to be back and refuse", func() error {
		_, err := m.client.Act(ctx, router.Action{Robot: robotName(robot), Task: "move", Episode: nuid.Next(), Seq: 1, Body: []byte("x"), Deadline: time.Second})
		if messages.CodeOf(err) == messages.CodeStopped {
			return nil
		}
		return fmt.Errorf("it answers %w", err)
	}); err != nil {
		return err
	}
	return m.release(ctx, robotName(robot))
}
