package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

func action(name string) messages.Task {
	t := inference(name)
	t.Class = messages.Action
	// On a busy machine half a second without the answer to a ping proves nothing; what a
	// lost link does is tested in virtual time (testing/vtime).
	t.OnLinkLoss = messages.LinkContinue
	return t
}

// command is an action request of an episode.
func (c *caller) command(inc messages.Incarnation, episode string, seq uint64) messages.Request {
	req := c.request(messages.Action, "grasp")
	req.Episode, req.Seq, req.Inc = episode, seq, inc
	return req
}

// journal returns all outcomes in the journal, the oldest first, once there are n.
func (g *rig) journal(n int) []messages.Outcome {
	g.t.Helper()
	var s jetstream.Stream
	natstest.Eventually(g.t, patience, "the journal", func() bool {
		var err error
		s, err = g.bus.JS.Stream(g.ctx(), bus.StreamName(fleet, site, messages.Action))
		return err == nil && s.CachedInfo().State.Msgs >= uint64(n)
	})
	var list []messages.Outcome
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(g.ctx(), seq)
		if err != nil {
			g.t.Fatal(err)
		}
		var o messages.Outcome
		if err := messages.Decode(m.Data, &o); err != nil {
			g.t.Fatal(err)
		}
		list = append(list, o)
	}
	return list
}

func TestActionRunsAtMostOnce(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	if err := g.bus.Stream(g.ctx(), site, messages.Action); err != nil {
		t.Fatal(err)
	}
	ran := make(chan uint64, 100)
	grasp := agent.Func("grasp", func(_ context.Context, r *agent.Request) ([]byte, error) {
		ran <- r.Seq
		if string(r.Body) == "slip" {
			return nil, messages.Errorf(messages.CodeBackendFailed, "slipped")
		}
		return []byte("held"), nil
	})
	g.run("arm", nil, grasp)
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	former := messages.Incarnation{Epoch: inc.Epoch, Revision: inc.Revision + 1}
	for i, s := range []struct {
		inc     messages.Incarnation
		episode string
		seq     uint64
		body    string
		refused messages.Code
		code    messages.Code
	}{
		{inc, "e1", 1, "", "", ""},
		{inc, "e1", 1, "", messages.CodeStale, ""},
		{inc, "e1", 2, "slip", "", messages.CodeBackendFailed},
		{inc, "e1", 2, "", messages.CodeStale, ""}, // it ran, though badly
		{former, "e1", 3, "", messages.CodeStale, ""},
		{messages.Incarnation{}, "e1", 3, "", messages.CodeBadRequest, ""},
		{inc, "e2", 1, "", "", ""},
		{inc, "e1", 3, "", messages.CodeStale, ""},
	} {
		r := c.do("arm", c.command(s.inc, s.episode, s.seq), s.body)
		if messages.CodeOf(asError(r.Err)) != s.refused {
			t.Fatalf("step %d: %+v", i, r)
		}
		if s.refused != "" {
			continue
		}
		if r.Kind != messages.ReplyAccepted {
			t.Fatalf("step %d: %+v", i, r)
		}
		body := "held"
		if s.code != "" {
			body = ""
		}
		c.result().want(t, s.code, body)
	}
	if len(ran) != 3 {
		t.Errorf("%d ran, want 3", len(ran))
	}
	var states []messages.GoalState
	for _, o := range g.journal(6) {
		states = append(states, o.State)
		if o.Agent != "arm" || o.Inc != inc || o.Task != "grasp" || o.Seq == 0 || o.Episode == "" {
			t.Errorf("%+v", o)
		}
	}
	want := []messages.GoalState{messages.GoalAccepted, messages.GoalSucceeded, messages.GoalAccepted, messages.GoalAborted, messages.GoalAccepted, messages.GoalSucceeded}
	if len(states) != len(want) {
		t.Fatalf("journal: %v, want %v", states, want)
	}
	for i := range want {
		if states[i] != want[i] {
			t.Fatalf("journal: %v, want %v", states, want)
		}
	}
}

// TestBusyDoesNotUseUpASequence: a command that found no slot did not run, so it may be
// sent again.
func TestBusyDoesNotUseUpASequence(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	g.run("arm", nil, at.handler("grasp"))
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	c.do("arm", c.command(inc, "e", 1), "")
	at.in(t)
	if r := c.do("arm", c.command(inc, "e", 2), ""); messages.CodeOf(asError(r.Err)) != messages.CodeBusy {
		t.Fatalf("%+v", r)
	}
	at.open <- "one"
	c.result().want(t, "", "one")
	// The slot was free before the answer was sent.
	if r := c.do("arm", c.command(inc, "e", 2), ""); r.Kind != messages.ReplyAccepted {
		t.Fatalf("%+v", r)
	}
	at.open <- "two"
	c.result().want(t, "", "two")
}

// TestOutcomeMakesTheJournal: the journal is missing, and the outcome is in it before
// the answer all the same.
func TestOutcomeMakesTheJournal(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("arm", nil, echo("grasp"))
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	c.do("arm", c.command(inc, "e", 1), "ok")
	c.result().want(t, "", "ok")
	if list := g.journal(1); list[len(list)-1].State != messages.GoalSucceeded {
		t.Errorf("%+v", list)
	}
}

func TestCanceledActionSaysSo(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	if err := g.bus.Stream(g.ctx(), site, messages.Action); err != nil {
		t.Fatal(err)
	}
	at := newGate()
	p := g.run("arm", func(c *agent.Config) { c.DrainTimeout = 2 * time.Second }, at.handler("grasp"))
	inc := g.alive("arm")
	task := action("grasp")
	task.Concurrency = 2
	g.place("arm", task)
	c := g.caller("desk")
	first := c.command(inc, "e", 1)
	c.do("arm", first, "")
	c.do("arm", c.command(inc, "e", 2), "")
	at.in(t)
	at.in(t)
	s := g.bus.Subject(messages.KindCancel, site)
	s.Agent, s.Origin = "arm", "desk"
	data, err := messages.Encode(&messages.Probe{IDs: []string{first.ID}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.nc.Publish(s.String(), data); err != nil { // nobody need wait for the answer
		t.Fatal(err)
	}
	c.result().want(t, messages.CodeUnknownOutcome, "") // canceled would promise that it did not run
	// The agent leaves while the other one runs: nobody can say how far it came.
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	c.result().want(t, messages.CodeUnknownOutcome, "")
	var ended []messages.GoalState
	for _, o := range g.journal(4) {
		if o.State.Ended() {
			ended = append(ended, o.State)
		}
	}
	if len(ended) != 2 || ended[0] != messages.GoalCanceled || ended[1] != messages.GoalAborted {
		t.Errorf("journal: %v", ended)
	}
}

// An action that its deadline cuts off had begun: deadline_exceeded would promise that
// nothing was done.
func TestCutOffActionIsUnknown(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	if err := g.bus.Stream(g.ctx(), site, messages.Action); err != nil {
		t.Fatal(err)
	}
	grasp := agent.Func("grasp", func(ctx context.Context, _ *agent.Request) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	g.run("arm", nil, grasp)
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	req := c.command(inc, "e", 1)
	req.Left = 50 * time.Millisecond
	if r := c.do("arm", req, ""); r.Err != nil {
		t.Fatal(r.Err)
	}
	c.result().want(t, messages.CodeUnknownOutcome, "")
	if o := g.journal(2)[1]; o.State != messages.GoalAborted || o.Code != messages.CodeUnknownOutcome {
		t.Errorf("journaled as %s, %s", o.State, o.Code)
	}
}
