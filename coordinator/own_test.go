package coordinator

import (
	"log/slog"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// A beat that has come is heard before anybody is judged by its silence, whatever wakes the
// Machine first.
func TestBeatsBeforeJudgement(t *testing.T) {
	t.Parallel()
	for name, ev := range map[string]placement.Event{"tick": placement.Tick{}, "event": placement.Unreached{Agent: "nobody"}} {
		c := New(&nats.Conn{}, Config{Fleet: "test", ID: "one", Logger: slog.New(slog.DiscardHandler)})
		c.quiet = newQuiet(c.calm)
		o := newOwner(c)
		calm := placement.DefaultCalm()
		at := time.Now().Add(-2*calm.LostAfter - 10*time.Millisecond)
		inc := messages.Incarnation{Epoch: 1, Revision: 1}
		until := func(end time.Time) {
			for ; at.Before(end); at = at.Add(500 * time.Millisecond) {
				o.step(at, placement.Tick{})
			}
		}
		beat := messages.Heartbeat{Agent: "edge-1", Inc: inc, Seq: 1, State: messages.AgentReady}
		o.step(at, placement.LinkUp{})
		until(at.Add(calm.LostAfter))
		o.step(at, placement.Registered{Registration: messages.Registration{Environment: edge("edge-1")}, Inc: inc})
		o.step(at, placement.Heartbeat{Heartbeat: beat})
		until(time.Now().Add(-time.Millisecond))
		beat.Seq++
		c.beats.put(&beat)
		o.take(ev)
		if s := o.m.State().Agents[0].State; s != messages.AgentReady {
			t.Errorf("%s: an agent that beats is %s", name, s)
		}
		o.timer.Stop()
	}
}
