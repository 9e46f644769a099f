package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
)

// Leaders die here many times at full length, FLEETBUS_ROUNDS=10, which `make e2e` sets,
// and twice in the tests of every day.
const (
	roundsVariable = "FLEETBUS_ROUNDS"
	fewRounds      = 2
	leaseTTL       = 2 * time.Second // what fleet.coordinator gives
)

// rounds is how often the leader is killed, and whether the test runs at full length.
func rounds(t *testing.T) (n int, full bool) {
	t.Helper()
	text := os.Getenv(roundsVariable)
	if text == "" {
		return fewRounds, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s: found %q, allowed is a whole number from 1", roundsVariable, text)
	}
	return n, n > fewRounds
}

// load asks without a pause, from several sides, until stop, which tells how it went.
func load(f *fleet) (stop func() (asked int64, failed []error)) {
	c := f.client("load", nil)
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var asked atomic.Int64
	var failed []error
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				// Not with ctx: what is under way at the end is to be answered too.
				_, err := c.Infer(context.Background(), router.Inference{Task: "see", Body: []byte("x")})
				asked.Add(1)
				if err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("%s: %w", time.Now().Format("05.000"), err))
					mu.Unlock()
				}
			}
		})
	}
	stop = sync.OnceValues(func() (int64, []error) {
		cancel()
		all.Wait()
		return asked.Load(), failed
	})
	f.t.Cleanup(func() { stop() })
	return stop
}

// reign is a fleet of three coordinators and four edges, two of which serve.
type reign struct {
	*fleet
	b     *bus.Bus
	coord map[string]*process
	edges map[string]*process
}

func newReign(t *testing.T) *reign {
	t.Helper()
	r := &reign{fleet: newFleet(t), coord: make(map[string]*process), edges: make(map[string]*process)}
	for _, id := range []string{"c1", "c2", "c3"} {
		r.coord[id] = r.coordinator(id)
	}
	for _, id := range []string{"edge-1", "edge-2", "edge-3", "edge-4"} {
		r.edges[id] = r.agent(id, messages.Edge)
	}
	r.b = r.bus()
	r.apply(r.b, 2, messages.Task{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 10},
		Work: gflop(5*time.Millisecond, 100), Replicas: 2, Concurrency: 4, Deadline: 10_000})
	r.settled()
	return r
}

// settled waits until everybody is there and nothing is on its way, and returns that.
func (r *reign) settled() messages.State {
	r.t.Helper()
	var s messages.State
	r.until("a fleet at rest", func() error {
		var err error
		if s, err = r.state(); err != nil {
			return err
		}
		for _, a := range s.Agents {
			if a.State != messages.AgentReady || a.Rev != a.Applied {
				return fmt.Errorf("agent %s is %s, revision %d of %d", a.Environment.ID, a.State, a.Applied, a.Rev)
			}
		}
		for _, p := range s.Replicas {
			if p.State != messages.ReplicaReady || p.To != "" {
				return fmt.Errorf("replica %s is %s on %s, to %s", p.ID, p.State, p.Agent, p.To)
			}
		}
		if len(s.Agents) != len(r.edges) || len(s.Replicas) != 2 {
			return fmt.Errorf("%d agents, %d replicas", len(s.Agents), len(s.Replicas))
		}
		return nil
	})
	return s
}

// state asks the leader; nobody waits for one that is dead.
func (r *reign) state() (messages.State, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 100*time.Millisecond)
	defer cancel()
	return coordinator.ReadState(ctx, r.b)
}

// next waits for the leader after the one of a term.
func (r *reign) next(after messages.Term) messages.State {
	r.t.Helper()
	var s messages.State
	r.until("the next leader", func() error {
		var err error
		if s, err = r.state(); err == nil && !after.Before(s.Term) {
			err = fmt.Errorf("term %s still", s.Term)
		}
		return err
	})
	return s
}

// homes is where everything is.
func homes(s messages.State) (list []string) {
	for _, p := range s.Replicas {
		list = append(list, p.ID+" on "+p.Agent)
	}
	return list
}

// stays reports what an election moved: one replica may be on the agent that died.
func (r *reign) stays(before, after messages.State, dead string) {
	r.t.Helper()
	for i, p := range after.Replicas {
		if was := before.Replicas[i]; was.Agent != dead && (p.Agent != was.Agent || p.To != "") {
			r.t.Errorf("the election moved %s from %s to %s (%s): %s", p.ID, was.Agent, p.Agent, p.To, p.Reason)
		}
	}
}

// Three coordinators, whose leader is killed again and again while requests come; every
// second time an edge that serves dies with it. No request fails, no election moves
// anything, and what was on the edge is served elsewhere within two leases.
func TestLeadersKilledUnderLoad(t *testing.T) {
	n, _ := rounds(t)
	r := newReign(t)
	stop := load(r.fleet)
	var elections, replaced []time.Duration
	for round := range n {
		before := r.settled()
		dead := ""
		r.coord[before.Leader].kill()
		killed := time.Now()
		if round%2 == 1 {
			<-time.After(time.Duration(round) * 50 % 200 * time.Millisecond) // at another moment each time, under 200 ms
			dead = before.Replicas[round/2%2].Agent
			r.edges[dead].kill()
		}
		died := time.Now()
		after := r.next(before.Term)
		elections = append(elections, time.Since(killed))
		r.stays(before, after, dead)
		if dead != "" {
			r.until("what was on "+dead+" to be ready elsewhere", func() error {
				s, err := r.state()
				for _, p := range s.Replicas {
					if p.Agent == dead || p.State != messages.ReplicaReady {
						return fmt.Errorf("%s is %s on %s: %s", p.ID, p.State, p.Agent, p.Reason)
					}
				}
				return err
			})
			took := time.Since(died)
			replaced = append(replaced, took)
			if took > 2*leaseTTL {
				t.Errorf("round %d: what was on %s was ready elsewhere after %v, want %v at most", round, dead, took, 2*leaseTTL)
			}
			r.edges[dead] = r.agent(dead, messages.Edge)
		}
		r.coord[before.Leader] = r.coordinator(before.Leader)
	}
	last := r.settled()
	asked, failed := stop()
	for _, err := range failed {
		t.Errorf("a request failed: %v", err)
	}
	slices.Sort(elections)
	slices.Sort(replaced)
	t.Logf("%d leaders killed, %d edges with them: %d requests, %d failed; led again after %v at most; replaced within %v at most; at the end %v",
		n, len(replaced), asked, len(failed), elections[len(elections)-1], slices.Max(append(replaced, 0)), homes(last))
}

// SIGTERM: the leader hands over, and another leads at once.
func TestLeaderHandsOver(t *testing.T) {
	n, full := rounds(t)
	r := newReign(t)
	subject := r.b.Subject(messages.KindEvent, messages.FleetSite)
	subject.ID = "elected"
	elected, err := r.b.Conn.SubscribeSync(subject.String())
	if err != nil {
		t.Fatal(err)
	}
	stop := load(r.fleet)
	var took []time.Duration
	for range n {
		before := r.settled()
		old := r.coord[before.Leader]
		begin := time.Now()
		if err := old.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		// It says so when it has saved what it took over: it leads since a while.
		if _, err := elected.NextMsg(wait); err != nil {
			t.Fatalf("nobody was elected: %v", err)
		}
		took = append(took, time.Since(begin))
		after := r.next(before.Term)
		r.stays(before, after, "")
		if err := old.stop(t); err != nil {
			t.Errorf("%s ended with %v; it said:\n%s", before.Leader, err, old.out)
		}
		r.coord[before.Leader] = r.coordinator(before.Leader)
	}
	asked, failed := stop()
	for _, err := range failed {
		t.Errorf("a request failed: %v", err)
	}
	// What is promised is measured where nothing else runs. Here a busy machine may take a
	// second; without a hand-over it would be the lease.
	limit := time.Second
	if full {
		limit = 200 * time.Millisecond
	}
	slices.Sort(took)
	if worst := took[len(took)-1]; worst > limit {
		t.Errorf("a hand-over took %v, want %v at most", worst, limit)
	}
	t.Logf("%d hand-overs: median %v, worst %v; %d requests, %d failed", n, took[len(took)/2], took[len(took)-1], asked, len(failed))
}

// A leader that is stopped (SIGSTOP) and wakes: another leads meanwhile, and what the old
// one says is refused.
func TestLeaderSleeps(t *testing.T) {
	_, full := rounds(t)
	sleep := 2 * leaseTTL
	if full {
		sleep = 20 * time.Second
	}
	r := newReign(t)
	stop := load(r.fleet)
	before := r.settled()
	agent := before.Replicas[0].Agent
	old, err := r.document(agent)
	if err != nil {
		t.Fatal(err)
	}
	sleeper := r.coord[before.Leader].cmd.Process
	if err := sleeper.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	slept := time.Now()
	after := r.next(before.Term)
	r.stays(before, after, "")
	r.until("the document of the new term", func() error {
		d, err := r.document(agent)
		if err == nil && d.Term != after.Term {
			err = fmt.Errorf("it is of term %s", d.Term)
		}
		return err
	})
	<-time.After(time.Until(slept.Add(sleep)))
	if err := sleeper.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// It is awake when it follows: it can be elected again only by outliving the others.
	r.until("the old leader to say that it follows", func() error {
		if !strings.Contains(r.coord[before.Leader].out.String(), "leads no more") {
			return fmt.Errorf("it says nothing of it")
		}
		return nil
	})
	old.Rev += 1000 // as if it had sent many more
	subject := r.b.Subject(messages.KindPlace, messages.DefaultSite)
	subject.Agent = agent
	data, err := messages.Encode(&old)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.b.Conn.Request(subject.String(), data, wait)
	if err != nil {
		t.Fatal(err)
	}
	var ack messages.PlacementAck
	if err := messages.Decode(m.Data, &ack); err != nil {
		t.Fatal(err)
	}
	if ack.Error == "" || ack.Term != after.Term {
		t.Errorf("a document of the old leader's was answered with %+v, want a refusal", ack)
	}
	now := r.settled()
	if now.Term != after.Term {
		t.Errorf("term %s after the old leader woke, want %s", now.Term, after.Term)
	}
	r.stays(before, now, "")
	asked, failed := stop()
	for _, err := range failed {
		t.Errorf("a request failed: %v", err)
	}
	t.Logf("a leader slept for %v: %d requests, %d failed", sleep, asked, len(failed))
}

// document is the saved document of an agent.
func (r *reign) document(agent string) (messages.Placement, error) {
	var doc messages.Placement
	kv, err := r.b.KV(r.t.Context(), bus.Placements)
	if err != nil {
		return doc, err
	}
	e, err := kv.Get(r.t.Context(), agent)
	if err != nil {
		return doc, err
	}
	return doc, messages.Decode(e.Value(), &doc)
}

// An edge that serves is killed under load, with a leader there: what clients find out is
// told, so that it is placed anew before it has missed three beats.
func TestEdgeKilledUnderLoad(t *testing.T) {
	r := newReign(t)
	stop := load(r.fleet)
	before := r.settled()
	dead := before.Replicas[0].Agent
	// The leader has to have heard the fleet for as long as it takes to lose somebody,
	// before it believes that somebody is lost.
	<-time.After(4 * time.Second)
	r.edges[dead].kill()
	killed := time.Now()
	why := ""
	r.until("what was on "+dead+" to be ready elsewhere", func() error {
		s, err := r.state()
		for _, p := range s.Replicas {
			if p.Agent == dead || p.State != messages.ReplicaReady {
				return fmt.Errorf("%s is %s on %s: %s", p.ID, p.State, p.Agent, p.Reason)
			}
			if p.ID == before.Replicas[0].ID {
				why = p.Reason
			}
		}
		return err
	})
	took := time.Since(killed)
	// By its silence it takes 2.5 to 3.5 s, by what is told of it 1.2 to 2.7; a busy machine
	// blurs that, so what counts is what the leader says.
	if !strings.Contains(why, "nobody answers there") {
		t.Errorf("replaced after %v because %s; want that somebody found nobody there", took, why)
	}
	asked, failed := stop()
	for _, err := range failed {
		t.Errorf("a request failed: %v", err)
	}
	t.Logf("an edge killed: its replica ready elsewhere after %v (%s); %d requests, %d failed", took, why, asked, len(failed))
}
