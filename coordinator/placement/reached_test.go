package placement

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// An answer ends the evidence against an agent, and is no beat.
func TestReached(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(5 * time.Second)
	a := w.agents["edge-1"]
	a.kill() // no beat comes any more
	w.step(Unreached{Agent: a.id, Inc: a.inc, By: "coordinator-1"})
	w.step(Reached{Agent: a.id, Inc: a.inc})
	w.run(2 * time.Second)
	if s := w.m.agents["edge-1"].state; s == messages.AgentLost {
		t.Error("an agent that answered is lost for what was said before")
	}
	w.run(2 * time.Second)
	if s := w.m.agents["edge-1"].state; s != messages.AgentLost {
		t.Errorf("an agent that does not beat is %s", s)
	}
	w.step(Reached{Agent: "nobody", Inc: a.inc})
}
