package placement

import (
	"fmt"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// quiet is a fleet of n robots at rest, and what lets the next of them beat.
func quiet(b *testing.B, n int) (m *Machine, beat func(i int) time.Time) {
	m, now := New(Calm{}), begin
	m.Step(now, LinkUp{})
	m.Step(now, TasksChanged{Settings: messages.DefaultSettings(), Tasks: []messages.Task{
		{Name: "grip", Class: messages.Action, Per: messages.PerRobot, Demand: messages.Resources{Compute: 1}}}})
	beats := make([]messages.Heartbeat, n)
	for i := range beats {
		env := environment(fmt.Sprintf("robot-%05d", i), messages.Robot, 10, 10, 1)
		inc := messages.Incarnation{Epoch: 1, Revision: uint64(i + 1)}
		m.Step(now, Registered{messages.Registration{Environment: env}, inc})
		beats[i] = messages.Heartbeat{Agent: env.ID, Inc: inc, State: messages.AgentReady, Seq: 1}
		m.Step(now, Heartbeat{beats[i]})
	}
	var docs []SavePlacement
	for _, e := range m.Step(now, Elected{messages.Term{Epoch: 1, Revision: 1}}) {
		if s, ok := e.(SavePlacement); ok {
			docs = append(docs, s)
		}
	}
	if len(docs) != n {
		b.Fatalf("%d documents", len(docs))
	}
	for i, d := range docs {
		m.Step(now, Saved{Agent: d.Doc.Agent, Term: d.Doc.Term, Rev: d.Doc.Rev})
		beats[i].Term, beats[i].Rev = d.Doc.Term, d.Doc.Rev
		beats[i].Replicas = []messages.ReplicaStatus{{ID: d.Doc.Replicas[0].ID, State: messages.ReplicaReady}}
	}
	m.Step(now, RoutesSaved{Term: m.term, Rev: 1})
	beat = func(i int) time.Time {
		hb := &beats[i%n]
		hb.Seq++
		now = now.Add(time.Second / time.Duration(n))
		m.Step(now, Heartbeat{*hb})
		return now
	}
	for i := range 20 * n { // what began with them is over
		beat(i)
	}
	return m, beat
}

// BenchmarkHeartbeat folds the beats of a fleet that is at rest, one second of it after
// the other, sweeps included: what a coordinator does all day.
func BenchmarkHeartbeat(b *testing.B) {
	for _, n := range []int{1_000, 50_000} {
		b.Run(fmt.Sprint("agents=", n), func(b *testing.B) {
			_, beat := quiet(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				beat(i)
			}
		})
	}
}

// BenchmarkSweep looks at everything once: what the Machine does at most once a second.
func BenchmarkSweep(b *testing.B) {
	for _, n := range []int{1_000, 50_000} {
		b.Run(fmt.Sprint("agents=", n), func(b *testing.B) {
			m, beat := quiet(b, n)
			now := beat(0)
			b.ReportAllocs()
			for b.Loop() {
				m.Step(now, Tick{})
			}
		})
	}
}
