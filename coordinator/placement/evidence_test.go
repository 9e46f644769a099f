package placement

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// A link that died and has not noticed yet takes nobody away, also where there are too
// few agents to suspect that it is not they who died.
func TestDeadLinkEvictsNobody(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	a := w.add(environment("edge-0", messages.Edge, 100, 100, 10))
	w.desire(inference())
	w.elect()
	answers := true
	var ping func()
	ping = func() {
		if answers {
			w.step(LinkHeard{})
		}
		w.in(time.Second, ping)
	}
	ping()
	w.run(20 * time.Second)
	answers, a.cut = false, true // the link is cut; it takes the client library 5 s to notice
	w.run(5 * time.Second)
	if st := w.m.agents[a.id].state; st != messages.AgentReady {
		t.Fatalf("while the link is dead %s is %s: %s", a.id, st, w.m.agents[a.id].why)
	}
	w.step(LinkDown{})
	w.run(5 * time.Second)
	answers, a.cut = true, false
	w.step(LinkUp{})
	w.run(20 * time.Second)
	if st := w.m.agents[a.id].state; st != messages.AgentReady || w.home("inference/0") != a.id {
		t.Fatalf("%s is %s", a.id, st)
	}
	a.kill()
	gone := w.now
	for w.m.agents[a.id].state != messages.AgentLost {
		if w.run(100 * time.Millisecond); w.now.Sub(gone) > w.m.calm.LostAfter+100*time.Millisecond {
			t.Fatalf("it died %v ago, and the link answers", w.now.Sub(gone))
		}
	}
}

// Evidence counts only if the link has answered since.
func TestEvidenceOverADeadLink(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.step(LinkHeard{})
	w.run(20 * time.Second)
	for _, a := range w.agents {
		a.cut = true // the own link, in truth
	}
	w.run(50 * time.Millisecond) // what was under way is there
	one := w.agents["edge-1"]
	w.step(Unreached{Agent: one.id, Inc: one.inc, By: "router-1"})
	w.run(2 * time.Second) // longer, and so many are silent that it is held against the link anyway
	if st := w.m.agents[one.id].state; st != messages.AgentReady {
		t.Fatalf("it is %s, by a link that has not answered", st)
	}
	w.step(LinkHeard{})
	if st := w.m.agents[one.id].state; st != messages.AgentLost {
		t.Fatalf("the link answers, and it is %s", st)
	}
}
