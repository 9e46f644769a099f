package placement

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// spread makes a fleet of equal edges that are billed whole, with one replica of each task
// at home where homes says, and no price of its own for the rest.
func spread(t *testing.T, mode messages.Mode, edges int, homes ...string) (*Machine, []*replica) {
	t.Helper()
	m := New(Calm{})
	m.settings = messages.DefaultSettings()
	m.settings.Mode, m.now = mode, time.Unix(1000, 0)
	for i := range edges {
		e := environment("edge-"+string(rune('0'+i)), messages.Edge, 100, 100, 10)
		e.Price, e.Billing = 5, messages.Whole
		a := &agent{id: e.ID, env: e.Normal(), hosted: make(map[string]*hosting)}
		m.addAgent(a)
	}
	var list []*replica
	for i, id := range homes {
		work := 2000.0 // 20 ms
		task := messages.Task{Name: "task-" + string(rune('a'+i)), Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Work: &work}.Normal()
		r := &replica{id: task.Name + "/0", wanted: true}
		r.spec.ID, r.spec.Task = r.id, task
		m.addReplica(r)
		h := &hosting{replica: r, agent: m.agents[id], task: task, state: messages.ReplicaReady}
		r.home = h
		m.agents[id].add(h)
		list = append(list, r)
	}
	return m, list
}

func (m *Machine) moveOf(r *replica, to string) move {
	a := m.agents[to]
	return move{r: r, to: a, gain: m.score(r, r.home.agent, m.besides(r.home.agent, r)) - m.score(r, a, m.besides(a, r))}
}

// A move to an equal place comes along with one that is worth it, and is left out; the last
// two that empty a machine which is paid whole are worth it together.
func TestWorthLeavesOutWhatGainsNothing(t *testing.T) {
	m, r := spread(t, messages.Dynamic, 4, "edge-0", "edge-0", "edge-1", "edge-1", "edge-2")
	gains := m.moveOf(r[4], "edge-1") // empties edge-2
	rider := m.moveOf(r[0], "edge-1")
	kept, ok := m.worth([]move{gains, rider})
	if !ok || len(kept) != 1 || kept[0].r != r[4] {
		t.Errorf("kept %+v, %v", kept, ok)
	}
	if kept, ok := m.worth([]move{rider}); ok || len(kept) > 0 {
		t.Errorf("a move for nothing is kept: %+v", kept)
	}
	if kept, ok := m.worth([]move{m.moveOf(r[2], "edge-0"), m.moveOf(r[3], "edge-0")}); !ok || len(kept) != 2 || kept[0].why == "the score is better by 0" {
		t.Errorf("two that empty a machine: %+v, %v", kept, ok)
	}
	if kept, ok := m.worth(nil); ok || kept != nil {
		t.Error("nothing is worth something")
	}
}

// Four that crowd each other do not all go to the same empty machine: the first that
// has left makes room for the others. In mode dynamic nobody knows of crowds.
func TestWorthDoesNotMoveTheCrowd(t *testing.T) {
	for mode, want := range map[messages.Mode]bool{messages.Adaptive: true, messages.Dynamic: false} {
		m, r := spread(t, mode, 2, "edge-0", "edge-0", "edge-0", "edge-0")
		var moves []move
		for _, r := range r {
			r.rate = 12 // of 20 ms each: 24 % of the time
		}
		for _, r := range r {
			moves = append(moves, m.moveOf(r, "edge-1"))
		}
		kept, ok := m.worth(moves)
		if ok != want || want && (len(kept) == 0 || len(kept) > 2) {
			t.Errorf("mode %s: %d move, %v", mode, len(kept), ok)
		}
		if !want {
			continue
		}
		for _, v := range kept {
			if v.gain <= 0 {
				t.Errorf("%s moves for %v", v.r.id, v.gain)
			}
			m.agents["edge-0"].drop(v.r.home)
			v.r.home = &hosting{replica: v.r, agent: v.to, task: v.r.spec.Task, state: messages.ReplicaReady}
			v.to.add(v.r.home)
		}
		// And there it ends: nothing is better off back where it was.
		for _, v := range kept {
			if again, ok := m.worth([]move{m.moveOf(v.r, "edge-0")}); ok {
				t.Errorf("back again: %+v", again)
			}
		}
	}
}
