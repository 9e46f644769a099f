package coordinator

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// Whoever asks is told why something is where it is, why not elsewhere, why it waits, and
// how it came to that.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	if _, err := Explain(t.Context(), b, "detect"); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("nobody leads: %v", err)
	}
	c := run(t, s.Connect(t), "coordinator-1")
	term := c.awaitLead(t)
	large := detect()
	large.Name, large.Demand.Compute = "large", 1000
	apply(t, b, detect(), large)
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	startAgent(t, s.Connect(t), edge("edge-2"))
	natstest.Eventually(t, within, "both agents to be known", func() bool {
		st, err := ReadState(t.Context(), b)
		return err == nil && len(st.Agents) == 2 && st.Agents[1].State == messages.AgentReady
	})

	for _, name := range []string{"detect", "detect/0"} {
		e, err := Explain(t.Context(), b, name)
		if err != nil || e.Leader != "coordinator-1" || e.Term != term || len(e.Replicas) != 1 || e.Agent != "" {
			t.Fatalf("%s: %+v, %v", name, e, err)
		}
		r := e.Replicas[0]
		if r.Info.Agent != "edge-1" || r.Info.Reason == "" || len(r.Verdicts) != 2 || !r.Verdicts[0].Chosen || r.Verdicts[0].Agent != "edge-1" ||
			r.Verdicts[1].Agent != "edge-2" || !r.Verdicts[1].Fits || r.Verdicts[1].Text == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if !slices.ContainsFunc(r.History, func(e messages.Event) bool { return e.Kind == "replica_placed" && e.Reason != "" }) {
			t.Errorf("%s: history %+v", name, r.History)
		}
	}

	e, err := Explain(t.Context(), b, "large")
	if err != nil || len(e.Replicas) != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	for _, v := range e.Replicas[0].Verdicts {
		if v.Fits || v.Chosen || !strings.Contains(v.Text, "TFLOPS") {
			t.Errorf("a task of 1000 TFLOPS: %+v", v)
		}
	}

	e, err = Explain(t.Context(), b, "edge-1")
	if err != nil || e.Agent != "edge-1" || e.State != messages.AgentReady || len(e.Replicas) != 1 || e.Replicas[0].Info.ID != "detect/0" || len(e.History) == 0 {
		t.Errorf("%+v, %v", e, err)
	}
	// A task of robots in a fleet that has none is to run, and has no replica.
	none := detect()
	none.Name, none.Per = "none", messages.PerRobot
	apply(t, b, none)
	natstest.Eventually(t, within, "the task without a replica", func() bool {
		e, err := Explain(t.Context(), b, "none")
		return err == nil && e.Task == "none" && len(e.Replicas) == 0
	})
	one.stop()
	routed(t, b, "detect", "edge-2")
	e, err = Explain(t.Context(), b, "detect")
	if err != nil || len(e.Replicas) != 1 || e.Replicas[0].History[len(e.Replicas[0].History)-1].Agent != "edge-2" {
		t.Errorf("after a move: %+v, %v", e, err)
	}

	if _, err := Explain(t.Context(), b, "nobody"); messages.CodeOf(err) != messages.CodeNotFound {
		t.Errorf("a name that nothing has: %v", err)
	}
	for _, name := range []string{"a b", "", "*", "a/b/c", "detect/*"} {
		if _, err := Explain(t.Context(), b, name); messages.CodeOf(err) != messages.CodeBadRequest {
			t.Errorf("%q, which is no name: %v", name, err)
		}
	}
}

// The Machine goes on with its work between two replicas, and an answer that takes too long
// is given in part.
func TestExplainInSteps(t *testing.T) {
	t.Parallel()
	m := placement.New(placement.Calm{})
	now := time.Now()
	many := detect()
	many.Replicas = explainReplicas + 5
	m.Step(now, placement.LinkUp{})
	m.Step(now, placement.TasksChanged{Settings: messages.DefaultSettings(), Tasks: []messages.Task{many}})
	m.Step(now, placement.Elected{Term: messages.Term{Epoch: 1, Revision: 1}})
	for left, want := range map[int]int{-1: explainReplicas, 0: 1, 3: 4} {
		looks := 0
		e, ok := explain("detect", func(f func(*placement.Machine)) bool { looks++; f(m); return true }, func() bool { left--; return left != -1 })
		if !ok || len(e.Replicas) != want || e.More != many.Replicas-want || looks != 1+want || e.Task != "detect" {
			t.Errorf("%d replicas and %d more in %d looks, want %d replicas", len(e.Replicas), e.More, looks, want)
		}
	}
	if _, ok := explain("detect", func(func(*placement.Machine)) bool { return false }, nil); ok {
		t.Error("explained by nobody")
	}
}

// A leader that does not answer is not one that is not there.
func TestExplainUnanswered(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	nc := s.Connect(t)
	if _, err := nc.Subscribe(explainSubject("test"), func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Explain(ctx, newBus(t, s.Connect(t)), "detect"); messages.CodeOf(err) != messages.CodeUnavailable || !strings.Contains(err.Error(), "in time") {
		t.Errorf("%v", err)
	}
}
