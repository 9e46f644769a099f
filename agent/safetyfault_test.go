package agent_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// errorsOf is a log that passes on the errors of its warnings.
type errorsOf chan string

func (errorsOf) Enabled(context.Context, slog.Level) bool { return true }
func (l errorsOf) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l errorsOf) WithGroup(string) slog.Handler          { return l }
func (l errorsOf) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" && r.Level >= slog.LevelWarn {
			select {
			case l <- a.Value.String():
			default:
			}
		}
		return true
	})
	return nil
}

// A release that the robot only reads waits for the data connection like one that it
// hears: a command of before it does not run.
func TestReleaseThatIsReadRunsNothingOld(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	data, orders := g.s.Link("data"), g.s.Connect(t)
	ran := make(chan uint64, 10)
	log := make(errorsOf, 100)
	cfg := agent.Config{Fleet: fleet, Environment: environment("arm"), HandoverWait: -1, Logger: slog.New(log), SafetyConn: orders, BeatConn: g.s.Connect(t)}
	cfg.Environment.Tier = messages.Robot
	ctx, cancel := context.WithCancel(context.Background())
	a := agent.New(g.s.Connect(t, data.Dial()), cfg, agent.Func("grasp", func(_ context.Context, r *agent.Request) ([]byte, error) {
		ran <- r.Seq
		return nil, nil
	}))
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
	// By hand, because a stop that is slow to be saved is also one without a number, which
	// only a release that is heard ends.
	kv, err := g.bus.KV(g.ctx(), bus.Safety)
	if err != nil {
		t.Fatal(err)
	}
	stop := messages.StopOrder{Agent: "arm", Stop: true}
	stop.Fence = messages.Fence{Epoch: kv.Epoch, Revision: g.put(bus.Safety, bus.KeyRobot+"arm", &stop)}
	order, err := messages.Encode(&stop)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.nc.RequestWithContext(g.ctx(), "fb."+fleet+"._fleet.stop.arm", order); err != nil {
		t.Fatal(err)
	}
	g.put(bus.Safety, bus.KeyRobot+"arm", &messages.StopOrder{Agent: "arm"}) // saved, and not sent
	if err := orders.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	over := time.After(patience)
	for err := ""; !strings.Contains(err, "data connection"); {
		select {
		case err = <-log:
		case <-over:
			t.Fatal("the release did not wait for the data connection")
		}
	}
	data.Mend()
	natstest.Eventually(t, patience, "the release that was read", func() bool { return c.acts("arm", inc, "e", 3, "grasp").Err == nil })
	if seq := <-ran; seq != 3 {
		t.Fatalf("command %d of before the stop ran after the release", seq)
	}
}

// A disk that takes nothing costs the state file, and nothing else: the robot stops, says
// so, and shows it.
func TestStopWithAFullDisk(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := t.TempDir()
	p := g.run("arm", robot(func(c *agent.Config) { c.StateDir = dir }), echo("grasp"))
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	// Nothing can be written where a file is in the place of the directory.
	path := filepath.Join(dir, fleet)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.done(true, safety.Order{Robot: "arm", Reason: "why"})
	if p.a.Counts()["latch"] == 0 {
		t.Error("it was written all the same")
	}
	refusedAs(t, g.caller("desk").acts("arm", inc, "e", 1, "grasp"), messages.CodeStopped)
	natstest.Eventually(t, patience, "the robot to show it", func() bool {
		state, err := safety.Read(g.ctx(), g.bus)
		return err == nil && state.Latches["arm"].Own.On
	})
}
