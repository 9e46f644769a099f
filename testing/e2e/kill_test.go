package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
)

// holder waits until some agent has accepted a request of the class, and names it.
type holder struct{ c chan string }

func newHolder() holder { return holder{make(chan string, 64)} }

func (h holder) trace(e router.TraceEvent) {
	if e.Kind == router.TraceAccepted {
		select {
		case h.c <- e.Agent:
		default:
		}
	}
}

func (h holder) wait(t *testing.T) string {
	t.Helper()
	select {
	case agent := <-h.c:
		return agent
	case <-time.After(wait):
		t.Fatal("nobody accepted the request")
		return ""
	}
}

// An agent that dies in the middle of an inference, a job or an action: the inference is
// answered by another at once, the job begins again elsewhere, the action's fate is said
// to be unknown and it is not run again.
func TestAgentKilled(t *testing.T) {
	f := newFleet(t)
	f.coordinator("c1")
	agents := map[string]*process{
		"edge-1": f.agent("edge-1", messages.Edge), "edge-2": f.agent("edge-2", messages.Edge),
		"cloud-1": f.agent("cloud-1", messages.Cloud), "cloud-2": f.agent("cloud-2", messages.Cloud),
		"robot-1": f.agent("robot-1", messages.Robot),
	}
	b := f.bus()
	f.apply(b, 5,
		messages.Task{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Work: gflop(300*time.Millisecond, 100), Tiers: []messages.Tier{messages.Edge}, Replicas: 2, Deadline: 10_000},
		messages.Task{Name: "learn", Class: messages.Training, Demand: messages.Resources{Compute: 500}, Work: gflop(time.Second, 1000), Tiers: []messages.Tier{messages.Cloud}, Replicas: 2},
		messages.Task{Name: "move", Class: messages.Action, Demand: messages.Resources{Compute: 1}, Work: gflop(2*time.Second, 10), Per: messages.PerRobot},
	)
	seen := newHolder()
	c := f.client("tester", seen.trace)

	t.Run("inference", func(t *testing.T) {
		type end struct {
			a   *router.Answer
			err error
			at  time.Time
		}
		ended := make(chan end, 1)
		go func() {
			a, err := c.Infer(t.Context(), router.Inference{Task: "see", Body: []byte("x")})
			ended <- end{a, err, time.Now()}
		}()
		victim := seen.wait(t)
		killed := time.Now()
		agents[victim].kill()
		e := <-ended
		if e.err != nil {
			t.Fatalf("after %s died: %v", victim, e.err)
		}
		if e.a.Agent == victim || e.a.Attempt < 2 {
			t.Errorf("answered by %s, attempt %d; %s was killed", e.a.Agent, e.a.Attempt, victim)
		}
		t.Logf("answered by %s %v after SIGKILL, 301 ms of service included", e.a.Agent, e.at.Sub(killed))
		f.agent(victim, messages.Edge)
		f.ready(b, 5)
	})

	t.Run("training", func(t *testing.T) {
		id, err := c.Submit(t.Context(), router.Job{Task: "learn", Body: []byte("epochs=1")})
		if err != nil {
			t.Fatal(err)
		}
		var victim string
		f.until("the job to run", func() error {
			j, err := c.Job(t.Context(), id)
			if err == nil && j.State != messages.GoalExecuting {
				err = errors.New(string(j.State))
			}
			victim = j.Agent
			return err
		})
		agents[victim].kill()
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		j, err := c.Wait(ctx, id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if j.State != messages.GoalSucceeded || j.Agent == victim || j.Attempt != 2 {
			t.Errorf("job ended %s on %s in attempt %d: %s; %s was killed", j.State, j.Agent, j.Attempt, j.Reason, victim)
		}
	})

	t.Run("action", func(t *testing.T) {
		for len(seen.c) > 0 {
			<-seen.c
		}
		ended := make(chan error, 1)
		act := func(seq uint64) error {
			_, err := c.Act(t.Context(), router.Action{Robot: "robot-1", Task: "move", Episode: "e", Seq: seq, Body: []byte("x"), Deadline: 10 * time.Second})
			return err
		}
		go func() { ended <- act(1) }()
		seen.wait(t)
		agents["robot-1"].kill()
		if err := <-ended; messages.CodeOf(err) != messages.CodeUnknownOutcome {
			t.Errorf("the robot died while it moved; the caller was told %v", err)
		}
		if err := act(2); messages.CodeOf(err) != messages.CodeNotConnected {
			t.Errorf("the robot is away; the caller was told %v", err)
		}
	})
}

// The coordinator dies: requests go on, another leads with a higher term and moves
// nothing; an agent that restarts while none lives serves from its own document.
func TestCoordinatorKilled(t *testing.T) {
	f := newFleet(t)
	leader := f.coordinator("c1")
	edge := f.agent("edge-1", messages.Edge)
	f.agent("edge-2", messages.Edge)
	b := f.bus()
	f.apply(b, 2, messages.Task{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Replicas: 2})
	before := f.ready(b, 2)
	c := f.client("tester", nil)

	ask := func() (*router.Answer, error) {
		return c.Infer(t.Context(), router.Inference{Task: "see", Body: []byte("x")})
	}
	leader.kill()
	for range 20 {
		if _, err := ask(); err != nil {
			t.Fatalf("without a coordinator: %v", err)
		}
	}
	edge.kill()
	if a, err := ask(); err != nil || a.Agent != "edge-2" {
		t.Fatalf("without a coordinator and edge-1: %+v, %v", a, err)
	}
	f.agent("edge-1", messages.Edge)
	f.until("edge-1 to serve from its own document", func() error {
		a, err := ask()
		if err == nil && a.Agent != "edge-1" {
			err = fmt.Errorf("%s answered", a.Agent)
		}
		return err
	})
	if _, err := coordinator.ReadState(t.Context(), b); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("with no coordinator its state was answered with %v", err)
	}

	f.coordinator("c2")
	after := f.ready(b, 2)
	if !before.Term.Before(after.Term) {
		t.Errorf("the term went from %v to %v", before.Term, after.Term)
	}
	for i, r := range after.Replicas {
		if was := before.Replicas[i]; r.ID != was.ID || r.Agent != was.Agent {
			t.Errorf("the election moved %s from %s to %s", was.ID, was.Agent, r.Agent)
		}
	}
}

// The server dies and comes back: agents reconnect and announce themselves again, the
// memory stream is made again, a job that was accepted before is finished.
func TestServerRestart(t *testing.T) {
	f := newFleet(t)
	f.coordinator("c1")
	f.agent("edge-1", messages.Edge)
	f.agent("cloud-1", messages.Cloud)
	b := f.bus()
	f.apply(b, 2,
		messages.Task{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Tiers: []messages.Tier{messages.Edge}},
		messages.Task{Name: "learn", Class: messages.Training, Demand: messages.Resources{Compute: 500}, Work: gflop(time.Second, 1000), Tiers: []messages.Tier{messages.Cloud}},
	)
	c := f.client("tester", nil)
	ask := func() error {
		_, err := c.Infer(t.Context(), router.Inference{Task: "see", Body: []byte("x"), Deadline: time.Second})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	id, err := c.Submit(t.Context(), router.Job{Task: "learn", Body: []byte("epochs=1")})
	if err != nil {
		t.Fatal(err)
	}
	address := f.hostPort()
	f.procs["server"].kill()
	if err := ask(); messages.CodeOf(err) != messages.CodeUnavailable && messages.CodeOf(err) != messages.CodeDeadline {
		t.Errorf("without a server the caller was told %v", err)
	}
	f.startServer(address)
	f.until("an answer after the restart", ask)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	j, err := c.Wait(ctx, id, nil)
	if err != nil || j.State != messages.GoalSucceeded {
		t.Errorf("the job that was accepted before the restart: %+v, %v", j, err)
	}
	f.ready(b, 2)
}

// SIGTERM: an agent finishes what it has, answers it, and ends with status 0.
func TestAgentDrains(t *testing.T) {
	f := newFleet(t)
	f.coordinator("c1")
	edge := f.agent("edge-1", messages.Edge)
	b := f.bus()
	f.apply(b, 1, messages.Task{Name: "see", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Work: gflop(time.Second, 100), Deadline: 20_000})
	seen := newHolder()
	c := f.client("tester", seen.trace)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Infer(t.Context(), router.Inference{Task: "see", Body: []byte("x")})
		ended <- err
	}()
	seen.wait(t)
	if err := edge.stop(t); err != nil {
		t.Errorf("the agent ended with %v; it said:\n%s", err, edge.out)
	}
	if err := <-ended; err != nil {
		t.Errorf("the request that ran while it drained: %v", err)
	}
}
