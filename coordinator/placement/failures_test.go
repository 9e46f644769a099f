package placement

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// What loads for ever is tried elsewhere; where there is no other place it goes on, and
// says so.
func TestLoadsForever(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	w.add(environment("edge-0", messages.Edge, 100, 100, 10)).load = 100 * time.Hour
	w.desire(inference())
	w.elect()
	w.run(20 * time.Minute)
	r := w.m.replicas["inference/0"]
	if w.home(r.id) != "edge-0" || !strings.Contains(r.why, "it fits nowhere") {
		t.Errorf("it is on %q: %s", w.home(r.id), r.why)
	}
	before := w.effects
	w.run(10 * time.Minute)
	if n := w.effects - before; n > 10 {
		t.Errorf("%d effects in ten minutes", n)
	}
	w.add(environment("edge-1", messages.Edge, 100, 100, 11))
	w.run(2 * time.Minute)
	if w.home(r.id) != "edge-1" || !r.home.serves() {
		t.Errorf("it is on %s, %s: %s", w.home(r.id), r.home.state, r.why)
	}
}

// One that takes long and gets ready is left where it is.
func TestLoadsLong(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	w.desire()
	w.run(5 * time.Second)
	for _, a := range w.agents {
		a.load = DefaultCalm().LoadFor - 10*time.Second
	}
	w.desire(inference())
	w.run(5 * time.Second)
	on := w.home("inference/0")
	w.run(30 * time.Minute)
	if r := w.m.replicas["inference/0"]; w.home(r.id) != on || !r.home.serves() {
		t.Errorf("it is on %s, %s: %s", w.home(r.id), r.home.state, r.why)
	}
}

// One that fetches for longer than a replica may load is not late while what it fetches
// is coming, and is when it comes no more.
func TestFetchesForLong(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	w.desire()
	w.run(5 * time.Second)
	for _, a := range w.agents {
		a.load, a.slow = 5*DefaultCalm().LoadFor, true
	}
	w.desire(inference())
	w.run(5 * time.Second)
	r := w.m.replicas["inference/0"]
	on := r.home.agent.id
	w.run(4 * DefaultCalm().LoadFor)
	if r.home.agent.id != on || r.home.late || r.home.state != messages.ReplicaLoading {
		t.Errorf("it is on %s, late %v, %s: %s", r.home.agent.id, r.home.late, r.home.state, r.why)
	}
	w.agents[on].slow = false
	w.agents[on].load = 100 * time.Hour
	w.run(DefaultCalm().LoadFor / 2)
	if w.run(2 * DefaultCalm().LoadFor); r.home.agent.id == on && !r.home.serves() && !r.home.late {
		t.Errorf("nothing comes any more, and it is on %s, %s: %s", on, r.home.state, r.why)
	}
}

// An agent that beats and never answers its documents is told of.
func TestDeafAgentIsToldOf(t *testing.T) {
	w := newWorld(t, 1)
	w.log = new(strings.Builder)
	w.step(LinkUp{})
	a := w.add(environment("edge-0", messages.Edge, 100, 100, 10))
	a.deaf = true
	w.desire(inference())
	w.elect()
	w.run(time.Minute)
	why := w.m.State().Replicas[0].Reason
	if n := strings.Count(w.log.String(), "record placement_unanswered edge-0"); n != 1 || !strings.Contains(why, "nobody listens") && !strings.Contains(why, "has not answered revision") {
		t.Fatalf("it was told %d times: %s", n, why)
	}
	a.deaf = false
	w.run(15 * time.Second)
	if got := w.m.State().Replicas[0]; got.State != messages.ReplicaReady || strings.Contains(got.Reason, "answered") {
		t.Errorf("it is %s: %s", got.State, got.Reason)
	}
}
