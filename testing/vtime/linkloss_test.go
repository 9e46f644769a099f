package vtime_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// outcomes reads how actions ended, by task.
func (r *robotBench) outcomes() map[string]messages.Outcome {
	r.t.Helper()
	journal := must[jetstream.Stream](r.t)(r.b.JS.Stream(within(r.t, time.Minute), bus.StreamName(fleet, site, messages.Action)))
	all := make(map[string]messages.Outcome)
	for seq := uint64(1); seq <= journal.CachedInfo().State.LastSeq; seq++ {
		m := must[*jetstream.RawStreamMsg](r.t)(journal.GetMsg(within(r.t, time.Minute), seq))
		var o messages.Outcome
		check(r.t, messages.Decode(m.Data, &o))
		if o.State.Ended() {
			all[o.Task] = o
		}
	}
	return all
}

// A link that is cut: the robot stops what is bound to it and runs the hook, what goes on
// without a link is not harmed, the outcomes are kept for the journal, and the robot waits
// for a release.
func TestLostLinkHookAndRelease(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		bound, goesOn := move, move
		bound.OnLinkLoss = "retract"
		goesOn.Name, goesOn.OnLinkLoss = "blink", messages.LinkContinue
		r := newRobotBench(t, s, b, 0, bound, goesOn)
		if one, other := r.actOn("move"), r.actOn("blink"); one+other != "" {
			t.Fatalf("refused: %q, %q", one, other)
		}
		if took := r.cut(); took > 600*time.Millisecond {
			t.Errorf("the action went on for %v", took)
		}
		if l := <-r.hooked; l.Task.Name != "move" || l.Robot != "r1" || !strings.Contains(l.Reason, "pings") {
			t.Errorf("the hook was told %+v", l)
		}
		close(r.blinked)
		pass(time.Second)
		r.link.Mend()
		pass(10 * time.Second)
		ended := r.outcomes()
		if o := ended["move"]; o.State != messages.GoalCanceled || !strings.Contains(o.Reason, "pings") {
			t.Errorf("move ended %+v", o)
		}
		if o := ended["blink"]; o.State != messages.GoalSucceeded {
			t.Errorf("blink ended %+v", o)
		}
		if one, other := r.actOn("move"), r.actOn("blink"); one != messages.CodeStopped || other != "" {
			t.Errorf("after the link is back: %q, %q", one, other)
		}
		report, err := safety.Release(within(t, time.Minute), b.Conn, fleet, safety.Order{})
		if err != nil || !report.Done() {
			t.Fatalf("%+v, %v", report, err)
		}
		if code := r.actOn("move"); code != "" {
			t.Errorf("after the release: %q", code)
		}
		if len(r.hooked) != 0 {
			t.Error("the hook ran twice")
		}
	})
}
