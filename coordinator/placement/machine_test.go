package placement

import (
	"fmt"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// fleet is n robots with one replica each, on one world.
func fleet(t *testing.T, n int) *world {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	for i := range n {
		w.add(environment(fmt.Sprintf("robot-%02d", i), messages.Robot, 10, 10, 1))
	}
	w.desire(messages.Task{Name: "grip", Class: messages.Action, Per: messages.PerRobot, Demand: messages.Resources{Compute: 1}})
	w.elect()
	w.run(3 * time.Second)
	return w
}

func (w *world) states() map[messages.AgentState]int {
	out := make(map[messages.AgentState]int)
	for _, a := range w.m.agents {
		out[a.state]++
	}
	return out
}

func (w *world) home(id string) string {
	r := w.m.replicas[id]
	if r == nil || r.home == nil {
		return ""
	}
	return r.home.agent.id
}

func TestBlindnessGate(t *testing.T) {
	w := fleet(t, 2)
	w.step(LinkDown{})
	w.frozen = true // nothing reaches the coordinator
	w.run(time.Minute)
	w.frozen = false
	w.agents["robot-01"].kill()
	w.step(LinkUp{})
	w.run(w.m.calm.LostAfter - 100*time.Millisecond)
	if n := w.states()[messages.AgentLost]; n != 0 {
		t.Fatalf("%d agents are lost before the link was up for a window", n)
	}
	w.run(time.Second)
	if n := w.states()[messages.AgentLost]; n != 1 {
		t.Fatalf("%d agents are lost, want the dead one", n)
	}
}

func TestFrozenCoordinatorEvictsNobodyThatBeats(t *testing.T) {
	w := fleet(t, 5)
	w.frozen = true
	w.run(20 * time.Second)
	w.frozen = false
	w.step(Tick{})
	w.run(10 * time.Second)
	if s := w.states(); s[messages.AgentReady] != 5 {
		t.Fatalf("states after the freeze: %v", s)
	}
}

func TestMassLossSuspectsItself(t *testing.T) {
	w := fleet(t, 6)
	w.run(10 * time.Second)
	for i := range 4 {
		w.agents[fmt.Sprintf("robot-%02d", i)].cut = true
	}
	w.run(w.m.calm.LostAfter + 500*time.Millisecond)
	if n := w.states()[messages.AgentLost]; n != 0 {
		t.Fatalf("%d agents are lost within the first window", n)
	}
	w.agents["robot-00"].cut = false
	w.run(w.m.calm.LostAfter)
	if n := w.states()[messages.AgentLost]; n != 3 {
		t.Fatalf("%d agents are lost after the second window, want the 3 that are silent", n)
	}
	// Half of the fleet is not most of it, and two are no mass.
	w = fleet(t, 4)
	w.run(10 * time.Second)
	w.agents["robot-00"].kill()
	w.agents["robot-01"].kill()
	w.run(w.m.calm.LostAfter + 200*time.Millisecond)
	if n := w.states()[messages.AgentLost]; n != 2 {
		t.Fatalf("%d agents are lost, want 2 without delay", n)
	}
}

func TestLateBeatsAreDropped(t *testing.T) {
	w := fleet(t, 1)
	a := w.agents["robot-00"]
	a.kill()
	before := a.seq
	beat := messages.Heartbeat{Agent: a.id, Inc: a.inc, Seq: before, State: messages.AgentDraining}
	w.step(Heartbeat{beat}) // the same sequence again
	if got := w.m.agents[a.id]; got.state != messages.AgentReady {
		t.Fatalf("an old beat was folded: %s", got.state)
	}
	a.start()
	w.run(2 * time.Second)
	w.effects = 0
	sent := w.m.docs[a.id].sentAt
	beat.Seq = before + 100
	w.step(Heartbeat{beat}) // the older process still runs
	if got := w.m.agents[a.id]; got.state != messages.AgentReady || !w.m.docs[a.id].sentAt.After(sent) {
		t.Fatalf("a beat of an older incarnation: state %s; the document that stops it was not sent again", got.state)
	}
}

func TestStaleAgentIsLeft(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.agents["edge-1"].dataAge = 5000
	w.run(1500 * time.Millisecond)
	if s := w.m.agents["edge-1"].state; s != messages.AgentStale || w.home("inference/0") != "edge-1" {
		t.Fatalf("edge-1 is %s, home %s", s, w.home("inference/0"))
	}
	w.run(6 * time.Second)
	if w.home("inference/0") != "edge-2" {
		t.Fatalf("home is %s", w.home("inference/0"))
	}
}

// hotEdge is an inference on edge-1 whose load is about to grow.
func hotEdge(t *testing.T, mode messages.Mode) *world {
	w := newWorld(t, 1)
	w.desired.Settings.Mode = mode
	w.step(LinkUp{})
	w.add(environment("cloud", messages.Cloud, 1000, 1000, 50))
	w.add(environment("edge-1", messages.Edge, 100, 1000, 10))
	a, b := inference(), inference()
	a.Name, b.Name = "a", "b"
	a.Demand.Compute, b.Demand.Compute = 40, 40
	w.desire(a, b)
	w.elect()
	w.run(20 * time.Second)
	if w.home("a/0") != "edge-1" || w.home("b/0") != "edge-1" {
		t.Fatalf("a is on %s, b on %s", w.home("a/0"), w.home("b/0"))
	}
	return w
}

func (w *world) load(id string, tflops float64) {
	for _, a := range w.agents {
		t := w.m.replicas[id].spec.Task
		a.rate[id] = tflops * 1000 / t.WorkGFLOP()
	}
}

func TestLoadMovesAndComesBackLate(t *testing.T) {
	w := hotEdge(t, messages.Dynamic)
	w.load("a/0", 42) // one change of load of 5 %
	w.load("b/0", 38)
	w.run(time.Minute)
	if w.moves != 0 {
		t.Fatal("a change of 5 % moved something")
	}
	w.load("a/0", 80) // doubled: 80 + 40 declared are over 100
	w.run(4 * time.Second)
	if w.moves != 0 {
		t.Fatal("it moved before the load was high for 5 s")
	}
	w.run(6 * time.Second)
	onEdge := 0
	for _, id := range []string{"a/0", "b/0"} {
		if w.home(id) == "edge-1" {
			onEdge++
		}
	}
	if onEdge != 1 || w.moves != 1 {
		t.Fatalf("%d replicas are left on edge-1 after %d moves", onEdge, w.moves)
	}
	w.load("a/0", 60)
	w.run(2 * time.Minute)
	if w.moves != 1 {
		t.Fatal("it came back although the load is not under 65 %")
	}
	w.load("a/0", 40)
	w.run(25 * time.Second)
	if w.moves != 1 {
		t.Fatal("it came back before the load was low for 30 s")
	}
	w.run(30 * time.Second)
	if w.moves != 2 || w.home("a/0") != "edge-1" || w.home("b/0") != "edge-1" {
		t.Fatalf("%d moves, a is on %s, b on %s", w.moves, w.home("a/0"), w.home("b/0"))
	}
}

func TestStaticNeverMovesWhatLives(t *testing.T) {
	w := hotEdge(t, messages.Static)
	w.load("a/0", 90)
	w.add(environment("edge-0", messages.Edge, 1000, 1000, 1)) // better in every way
	w.run(3 * time.Minute)
	if w.moves != 0 {
		t.Fatalf("static mode: %d moves", w.moves)
	}
	w.agents["edge-1"].kill()
	w.run(10 * time.Second)
	if w.home("a/0") != "edge-0" {
		t.Fatalf("what was lost is placed anew in static mode too, but a is on %q", w.home("a/0"))
	}
}

func TestForeignUseTakesRoom(t *testing.T) {
	w := hotEdge(t, messages.Dynamic)
	w.agents["edge-1"].foreign = messages.Resources{Compute: 50}
	w.load("a/0", 40)
	w.load("b/0", 40)
	w.run(12 * time.Second)
	if w.moves != 1 {
		t.Fatalf("%d moves: 50 of 100 TFLOPS are gone, one of the two must go", w.moves)
	}
	w.agents["edge-1"].foreign = messages.Resources{}
	w.run(time.Minute)
	if w.moves != 2 {
		t.Fatalf("%d moves: the room is back, and so should it be", w.moves)
	}
}

func TestElectionMovesNothing(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.run(20 * time.Second)
	for range 5 {
		w.depose()
		m := New(Calm{})
		w.m, w.wake = m, w.wake+1 // another process
		w.step(LinkUp{})
		for _, id := range sorted(w.agents) {
			w.step(Registered{messages.Registration{Environment: w.agents[id].env}, w.agents[id].inc})
		}
		w.step(w.desired)
		w.run(500 * time.Millisecond)
		w.elect()
		w.run(15 * time.Second)
	}
	if w.moves != 0 || w.home("inference/0") != "edge-1" || w.m.docs["edge-1"].doc.Term.Revision != 6 || !w.m.docs["edge-1"].confirmed() {
		t.Fatalf("%d moves, home %s, document %s", w.moves, w.home("inference/0"), docString(w.m.docs["edge-1"].doc))
	}
}

func TestElectionInTheMiddleOfAMove(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.agents["cloud"].load, w.agents["edge-2"].load = 5*time.Second, 5*time.Second
	w.desired.Drains = []messages.DrainEntry{{Agent: "edge-1"}}
	w.step(w.desired)
	w.run(time.Second)
	if w.m.replicas["inference/0"].next == nil {
		t.Fatal("it does not move")
	}
	w.depose()
	w.elect()
	if r := w.m.replicas["inference/0"]; r.home.agent.id != "edge-1" || r.next == nil || r.next.agent.id != "edge-2" {
		t.Fatalf("home %s, next %v", w.home("inference/0"), r.next)
	}
	w.run(10 * time.Second)
	if w.home("inference/0") != "edge-2" || len(w.agents["edge-1"].reps) == 0 {
		t.Fatalf("the move did not end: home %s", w.home("inference/0"))
	}
}

// The placements bucket was lost: what the agents say that they serve stays there.
func TestLostPlacementsAreAdoptedFromBeats(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.depose()
	clear(w.store)
	w.routes = nil
	w.run(2 * time.Second)
	w.elect()
	w.run(20 * time.Second)
	if w.moves != 0 || w.home("inference/0") != "edge-1" || !w.m.docs["edge-1"].confirmed() {
		t.Fatalf("%d moves, home %s", w.moves, w.home("inference/0"))
	}
}

// An agent has a newer document of this term than the store: the next one is newer
// still, and is accepted.
func TestOutrunRevisionIsHealed(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	w.agents["edge-1"].rev += 5
	w.run(5 * time.Second)
	if d := w.m.docs["edge-1"]; !d.confirmed() || d.doc.Rev <= 6 {
		t.Fatalf("document rev %d, applied %d", d.doc.Rev, d.applied)
	}
}

func TestMovesAreBudgeted(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	w.add(environment("cloud", messages.Cloud, 1000, 1000, 50))
	many := inference()
	many.Replicas, many.Colocate = 12, true
	many.Demand.Network = 1
	w.desire(many)
	w.elect()
	w.run(20 * time.Second)
	w.add(environment("edge-1", messages.Edge, 1000, 1000, 10))
	w.run(9 * time.Second)
	if w.moves > w.m.calm.Moves {
		t.Fatalf("%d moves in one cycle", w.moves)
	}
	w.run(time.Minute)
	if w.moves != 12 {
		t.Fatalf("%d moves in the end", w.moves)
	}
}

func TestState(t *testing.T) {
	w := newWorld(t, 1)
	twoEdges(w)
	s := w.m.State()
	if len(s.Agents) != 3 || len(s.Replicas) != 1 || len(s.Tasks) != 1 {
		t.Fatalf("%+v", s)
	}
	if r := s.Replicas[0]; r.Agent != "edge-1" || r.State != messages.ReplicaReady || r.Tier != messages.Edge || r.Reason == "" || r.Delay != 10.2 {
		t.Fatalf("%+v", r)
	}
	if a := s.Agents[1]; a.State != messages.AgentReady || a.Planned.Compute != 10 || a.Rev != 1 || a.Applied != 1 {
		t.Fatalf("%+v", a)
	}
	if _, err := messages.Encode(&s); err != nil {
		t.Fatal(err)
	}
}

// A document that nobody confirms is sent again after 1 s, doubling, until its agent is
// lost; an agent that refuses it is not asked each second.
func TestResend(t *testing.T) {
	m := New(Calm{})
	env := environment("edge-1", messages.Edge, 100, 100, 10)
	inc := messages.Incarnation{Epoch: 1, Revision: 1}
	at := func(d time.Duration, ev Event) (sent int) {
		for _, e := range m.Step(begin.Add(d), ev) {
			if _, ok := e.(SendPlacement); ok {
				sent++
			}
		}
		return sent
	}
	at(0, LinkUp{})
	at(0, Registered{messages.Registration{Environment: env}, inc})
	at(0, Heartbeat{messages.Heartbeat{Agent: "edge-1", Inc: inc, Seq: 1, State: messages.AgentReady}})
	at(0, TasksChanged{Tasks: []messages.Task{inference()}, Settings: messages.DefaultSettings()})
	term := messages.Term{Epoch: 1, Revision: 1}
	at(0, Elected{term})
	if at(0, Saved{Agent: "edge-1", Term: term, Rev: 1}) != 1 {
		t.Fatal("what is saved is not sent")
	}
	var sent []time.Duration
	for d := 100 * time.Millisecond; d < 6*time.Second; d += 100 * time.Millisecond {
		if at(d, Tick{}) > 0 {
			sent = append(sent, d)
		}
	}
	if len(sent) != 2 || sent[0] != time.Second || sent[1] != 3*time.Second {
		t.Errorf("sent again at %v", sent)
	}
	if at(10*time.Second, Heartbeat{messages.Heartbeat{Agent: "edge-1", Inc: inc, Seq: 2, State: messages.AgentReady}}) != 1 {
		t.Error("an agent that is back with an older document does not get the newest at once")
	}
	at(10*time.Second, Ack{messages.PlacementAck{Agent: "edge-1", Inc: inc, Error: "no"}})
	if at(11*time.Second+100*time.Millisecond, Heartbeat{messages.Heartbeat{Agent: "edge-1", Inc: inc, Seq: 3, State: messages.AgentReady}}) != 0 {
		t.Error("an agent that refuses a document gets it with every beat")
	}
}
