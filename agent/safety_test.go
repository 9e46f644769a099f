package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// robot makes an agent a robot's, which reaches the server over a link.
func robot(change func(*agent.Config)) func(*agent.Config) {
	return func(c *agent.Config) {
		c.Environment.Tier = messages.Robot
		if change != nil {
			change(c)
		}
	}
}

// reborn waits for a newer life of an agent.
func (g *rig) reborn(id string, before messages.Incarnation) messages.Incarnation {
	g.t.Helper()
	return g.until("a newer life of "+id, func(h *messages.Heartbeat) bool { return h.Agent == id && before.Before(h.Inc) }).Inc
}

// order gives an order and returns what became of it.
func (g *rig) order(stop bool, o safety.Order, limit time.Duration) safety.Report {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	give := safety.Release
	if stop {
		give = safety.Stop
	}
	r, err := give(ctx, g.nc, fleet, o)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// done is order where it must succeed.
func (g *rig) done(stop bool, o safety.Order) safety.Report {
	g.t.Helper()
	r := g.order(stop, o, patience)
	if !r.Done() {
		g.t.Fatalf("%+v", r)
	}
	return r
}

// acts sends a command until the robot knows what was ordered and has ended what it had
// before, and returns its answer.
func (c *caller) acts(id string, inc messages.Incarnation, episode string, seq uint64, task string) messages.Reply {
	c.t.Helper()
	var r messages.Reply
	natstest.Eventually(c.t, patience, "the robot to know what was ordered", func() bool {
		req := c.command(inc, episode, seq)
		req.Task = task
		r = c.do(id, req, "")
		return r.Err == nil || r.Err.Code != messages.CodeUnavailable && r.Err.Code != messages.CodeBusy
	})
	return r
}

func refusedAs(t *testing.T, r messages.Reply, code messages.Code) {
	t.Helper()
	if messages.CodeOf(asError(r.Err)) != code {
		t.Fatalf("the robot answered %+v, want code %q", r, code)
	}
}

func TestStopCancelsAndLatches(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	if err := g.bus.Stream(g.ctx(), site, messages.Action); err != nil {
		t.Fatal(err)
	}
	gate := newGate()
	g.run("arm", robot(nil), gate.handler("grasp"), echo("see"))
	inc := g.alive("arm")
	g.place("arm", action("grasp"), inference("see"))
	c := g.caller("desk")
	refusedAs(t, c.acts("arm", inc, "e", 1, "grasp"), "")
	gate.in(t)

	r := g.done(true, safety.Order{Robot: "arm", Reason: "somebody is in the cell", By: "test"})
	if len(r.Acks) != 1 || r.Acks[0].Canceled != 1 || !r.Acks[0].Saved || r.Acks[0].Inc != inc || r.Fence.IsZero() || r.Took <= 0 {
		t.Fatalf("%+v", r)
	}
	end := c.result()
	if end.Err == nil || end.Err.Code != messages.CodeUnknownOutcome || !strings.Contains(end.Err.Message, "somebody is in the cell") {
		t.Fatalf("the action ended with %v", end.Err)
	}
	out := g.journal(2)
	if last := out[len(out)-1]; last.State != messages.GoalCanceled || last.Code != messages.CodeUnknownOutcome || !strings.Contains(last.Reason, "somebody is in the cell") {
		t.Fatalf("journaled %+v", last)
	}
	g.until("why it is stopped", func(h *messages.Heartbeat) bool { return strings.Contains(h.Stopped, "somebody is in the cell") })
	refusedAs(t, c.acts("arm", inc, "e", 2, "grasp"), messages.CodeStopped)

	// What is no action goes on.
	q := c.request(messages.Inference, "see")
	c.queue(q, "picture")
	c.result().want(t, "", "picture")

	// Again, and the release of all: it stays stopped, because it was stopped by name.
	if r := g.done(true, safety.Order{Robot: "arm"}); r.Acks[0].Canceled != 0 {
		t.Fatalf("%+v", r)
	}
	if r := g.order(false, safety.Order{}, patience); r.Done() || len(r.Undone()) != 1 || len(r.Missing) != 0 {
		t.Fatalf("%+v", r)
	}
	refusedAs(t, c.acts("arm", inc, "e", 2, "grasp"), messages.CodeStopped)
	g.done(false, safety.Order{Robot: "arm"})
	gate.open <- "held"
	refusedAs(t, c.acts("arm", inc, "e", 2, "grasp"), "")
	c.result().want(t, "", "held")
	g.until("that it is released", func(h *messages.Heartbeat) bool { return h.Stopped == "" })

	// All, and one alone again.
	g.done(true, safety.Order{})
	refusedAs(t, c.acts("arm", inc, "e", 3, "grasp"), messages.CodeStopped)
	g.done(false, safety.Order{Robot: "arm"})
	gate.open <- "held"
	refusedAs(t, c.acts("arm", inc, "e", 3, "grasp"), "")
	c.result().want(t, "", "held")
}

// A stop holds over a restart of the agent: from the bucket alone, and from the file alone.
func TestStopSurvivesRestart(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"bucket", "file", "spoiled file"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			dir := t.TempDir()
			life := func(before messages.Incarnation) (*process, messages.Incarnation) {
				p := g.run("arm", robot(func(c *agent.Config) {
					if kind != "bucket" {
						c.StateDir = dir
					}
				}), echo("grasp"))
				return p, g.reborn("arm", before)
			}
			p, first := life(messages.Incarnation{})
			g.place("arm", action("grasp"))
			g.done(true, safety.Order{Robot: "arm"})
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			if kind != "bucket" {
				if err := g.bus.JS.DeleteKeyValue(g.ctx(), bus.BucketName(fleet, bus.Safety)); err != nil {
					t.Fatal(err)
				}
			}
			if kind == "spoiled file" {
				files, err := filepath.Glob(filepath.Join(dir, fleet, "*.json"))
				if err != nil || len(files) != 1 {
					t.Fatalf("%v, %v", files, err)
				}
				if err := os.WriteFile(files[0], []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, inc := life(first)
			g.place("arm", action("grasp"))
			c := g.caller("desk")
			refusedAs(t, c.acts("arm", inc, "e", 1, "grasp"), messages.CodeStopped)
			g.done(false, safety.Order{Robot: "arm"})
			refusedAs(t, c.acts("arm", inc, "e", 1, "grasp"), "")
		})
	}
}

// A robot that was away when it was stopped is stopped when it comes back, and the order
// names it as one that did not answer.
func TestStopWhileAway(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("arm", robot(nil), echo("grasp"))
	first := g.alive("arm")
	g.place("arm", action("grasp"))
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	// It waits for the robot as long as it may; what else it asks may take a while here.
	var r safety.Report
	for limit := 300 * time.Millisecond; limit < patience; limit *= 2 {
		if r = g.order(true, safety.Order{}, limit); r.SaveError == nil && r.Unlisted == nil {
			break
		}
	}
	if r.Done() || len(r.Missing) != 1 || r.Missing[0] != "arm" || r.Fence.IsZero() {
		t.Fatalf("%+v", r)
	}
	state, err := safety.Read(g.ctx(), g.bus)
	if err != nil {
		t.Fatal(err)
	}
	if why, confirmed := state.Why("arm"); why == "" || confirmed {
		t.Fatalf("%q, confirmed %v", why, confirmed)
	}
	g.run("arm", robot(nil), echo("grasp"))
	inc := g.reborn("arm", first)
	g.place("arm", action("grasp"))
	refusedAs(t, g.caller("desk").acts("arm", inc, "e", 1, "grasp"), messages.CodeStopped)
	natstest.Eventually(t, patience, "the robot to show it", func() bool {
		state, err := safety.Read(g.ctx(), g.bus)
		if err != nil {
			t.Fatal(err)
		}
		why, confirmed := state.Why("arm")
		return why != "" && confirmed
	})
}

// A command that was on its way when the robot was stopped does not run after the release.
func TestReleaseRunsNothingOld(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	data := g.s.Link("data")
	ran := make(chan uint64, 10)
	grasp := agent.Func("grasp", func(_ context.Context, r *agent.Request) ([]byte, error) {
		ran <- r.Seq
		return nil, nil
	})
	cfg := agent.Config{Fleet: fleet, Environment: environment("arm"), HandoverWait: -1, Logger: quiet(), SafetyConn: g.s.Connect(t), BeatConn: g.s.Connect(t)}
	cfg.Environment.Tier = messages.Robot
	ctx, cancel := context.WithCancel(context.Background())
	a := agent.New(g.s.Connect(t, data.Dial()), cfg, grasp)
	gone := make(chan error, 1)
	go func() { gone <- a.Run(ctx) }()
	t.Cleanup(func() {
		data.Mend()
		cancel()
		if err := <-gone; err != nil {
			t.Error(err)
		}
	})
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	refusedAs(t, c.acts("arm", inc, "e", 1, "grasp"), "")
	<-ran

	data.Cut()
	s := g.bus.Subject(messages.KindDo, site)
	s.Agent, s.Origin, s.Task = "arm", c.origin, "grasp"
	if err := g.nc.PublishMsg(&nats.Msg{Subject: s.String(), Header: nats.Header(c.command(inc, "e", 2).Header())}); err != nil {
		t.Fatal(err)
	}
	// The stop comes, because it does not come that way.
	if r := g.done(true, safety.Order{Robot: "arm"}); len(r.Acks) != 1 {
		t.Fatalf("%+v", r)
	}
	data.Mend()
	g.done(false, safety.Order{Robot: "arm"})
	refusedAs(t, c.acts("arm", inc, "e", 3, "grasp"), "")
	if seq := <-ran; seq != 3 {
		t.Fatalf("command %d of before the stop ran after the release", seq)
	}
}

func TestLinkHookMustBeThere(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("arm", robot(nil), echo("grasp"))
	g.alive("arm")
	task := action("grasp")
	task.OnLinkLoss = "retract"
	if ack := g.send(g.document("arm", placed(task))); ack.Error != "" {
		t.Fatal(ack.Error)
	}
	r := g.replicaIs("arm", "grasp/0", messages.ReplicaFailed)
	if !strings.Contains(r.Reason, `hook "retract"`) {
		t.Error(r.Reason)
	}
}

// Garbage on the subjects of stops is counted and changes nothing; a plain empty message
// stops.
func TestStopGarbageAndPlainStop(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("arm", robot(nil), echo("grasp"))
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	root := "fb." + fleet + "._fleet."
	release, err := messages.Encode(&messages.StopOrder{Agent: "arm", Fence: messages.Fence{Epoch: 1, Revision: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		to   string
		data []byte
	}{{"stop", []byte("rubbish")}, {"release", nil}, {"release.arm", []byte{0x80}}, {"stop.arm", release}, {"stop", release}, {"release", release}} {
		if err := g.nc.Publish(root+m.to, m.data); err != nil {
			t.Fatal(err)
		}
	}
	natstest.Eventually(t, patience, "the garbage to be counted", func() bool {
		n := p.a.Counts()
		return n["stop"]+n["stopall"]+n["release"]+n["releaseall"] == 6
	})
	refusedAs(t, c.acts("arm", inc, "e", 1, "grasp"), "")
	m, err := g.nc.RequestWithContext(g.ctx(), root+"stop", nil)
	if err != nil {
		t.Fatal(err)
	}
	var ack messages.StopAck
	if err := messages.Decode(m.Data, &ack); err != nil || ack.Stopped == "" || ack.Saved {
		t.Fatalf("%+v, %v", ack, err)
	}
	refusedAs(t, c.acts("arm", inc, "e", 2, "grasp"), messages.CodeStopped)
	g.done(false, safety.Order{Robot: "arm"})
	refusedAs(t, c.acts("arm", inc, "e", 2, "grasp"), "")
}

// Whenever a stop falls among commands: a handler that is called after it was
// acknowledged finds its context ended.
func TestNothingBeginsWhileStopped(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	if err := g.bus.Stream(g.ctx(), site, messages.Action); err != nil {
		t.Fatal(err)
	}
	var stopped, ran atomic.Bool
	grasp := agent.Func("grasp", func(ctx context.Context, _ *agent.Request) ([]byte, error) {
		if stopped.Load() && ctx.Err() == nil {
			t.Error("an action began on a robot that was stopped")
		}
		ran.Store(true)
		return nil, ctx.Err()
	})
	g.run("arm", robot(nil), grasp)
	inc := g.alive("arm")
	task := action("grasp")
	task.Concurrency = 8
	g.place("arm", task)
	c := g.caller("desk")
	quit := make(chan struct{})
	var senders sync.WaitGroup
	for i := range 4 {
		senders.Go(func() {
			s := g.bus.Subject(messages.KindDo, site)
			s.Agent, s.Origin, s.Task = "arm", "desk", "grasp"
			for n := 0; ; n++ {
				select {
				case <-quit:
					return
				case <-time.After(time.Millisecond): // a pace, not a wait for anything
				}
				req := c.command(inc, fmt.Sprintf("e%d-%d", i, n), 1)
				_ = g.nc.PublishMsg(&nats.Msg{Subject: s.String(), Header: nats.Header(req.Header())}) // the connection is the server's own
			}
		})
	}
	for range 20 {
		ran.Store(false)
		natstest.Eventually(t, patience, "actions to run", ran.Load)
		g.done(true, safety.Order{Robot: "arm"})
		stopped.Store(true)
		refusedAs(t, c.acts("arm", inc, nuid.Next(), 1, "grasp"), messages.CodeStopped)
		stopped.Store(false)
		g.done(false, safety.Order{Robot: "arm"})
	}
	close(quit)
	senders.Wait()
}

// The server has lost all that it stored: a robot that was stopped stays so, and shows it
// again.
func TestStopSurvivesLostStorage(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("arm", robot(nil), echo("grasp"))
	g.alive("arm")
	g.place("arm", action("grasp"))
	g.done(true, safety.Order{Robot: "arm", Reason: "why"})
	shows := func() bool {
		state, err := safety.Read(g.ctx(), g.bus)
		return err == nil && state.Latches["arm"].Own.On
	}
	natstest.Eventually(t, patience, "the robot to show it", shows)
	if err := g.bus.JS.DeleteKeyValue(g.ctx(), bus.BucketName(fleet, bus.Safety)); err != nil {
		t.Fatal(err)
	}
	g.s.Restart(t)
	natstest.Eventually(t, patience, "the robot to show it again", shows)
	g.done(false, safety.Order{Robot: "arm"})
}
