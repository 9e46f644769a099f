package placement

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// The word of a save that came after the Machine had given it up counts: the document is
// stored, and is sent.
func TestLateWordOfASave(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	m := New(Calm{})
	term := messages.Term{Epoch: 1, Revision: 1}
	inc := messages.Incarnation{Epoch: 1, Revision: 1}
	env := messages.Environment{ID: "edge-1", Tier: messages.Edge, Latency: 1, Handlers: []string{messages.AnyHandler}, Capacity: messages.Resources{Compute: 10, Storage: 10, Network: 10}}
	seq := uint64(0)
	beat := func() []Effect {
		seq++
		return m.Step(now, Heartbeat{messages.Heartbeat{Agent: env.ID, Inc: inc, Seq: seq, State: messages.AgentReady, Capacity: env.Capacity}})
	}
	m.Step(now, LinkUp{})
	m.Step(now, TasksChanged{Settings: messages.DefaultSettings(), Tasks: []messages.Task{{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: 1}}}})
	m.Step(now, Registered{Registration: messages.Registration{Environment: env}, Inc: inc})
	beat()
	var asked []SavePlacement
	collect := func(effects []Effect) {
		for _, e := range effects {
			if s, ok := e.(SavePlacement); ok {
				asked = append(asked, s)
			}
		}
	}
	collect(m.Step(now, Elected{Term: term}))
	for end := now.Add(DefaultCalm().SaveLost); now.Before(end); {
		now = now.Add(500 * time.Millisecond)
		collect(m.Step(now, Tick{}))
		collect(beat())
	}
	if len(asked) != 1 {
		t.Fatalf("asked to save %v, want one", asked)
	}
	sent := false
	for _, e := range m.Step(now, Saved{Agent: env.ID, Term: term, Rev: asked[0].Doc.Rev}) {
		_, ok := e.(SendPlacement)
		sent = sent || ok
	}
	if !sent {
		t.Error("a document that is stored is not sent")
	}
}
