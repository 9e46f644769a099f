package coordinator

import (
	"context"
	"fmt"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// Many documents are saved and sent at once, and none is sent before it is saved, whatever
// else is under way; all of them are given out again by the next leader, in the same order.
func TestSavedBeforeSent(t *testing.T) {
	t.Parallel()
	const agents = 40
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	kv, err := b.KV(t.Context(), bus.Placements)
	if err != nil {
		t.Fatal(err)
	}
	first := run(t, s.Connect(t), "coordinator-1")
	old := first.awaitLead(t)
	robots := make([]*agentOf, agents)
	for i := range robots {
		env := edge(fmt.Sprintf("robot-%02d", i))
		env.Tier = messages.Robot
		robots[i] = startAgent(t, s.Connect(t), env, func(a *agentOf) {
			a.sees = func(doc messages.Placement) {
				e, err := kv.Get(context.Background(), doc.Agent)
				if err != nil {
					t.Errorf("%s was sent a document, and none is saved: %v", doc.Agent, err)
					return
				}
				var saved messages.Placement
				if err := messages.Decode(e.Value(), &saved); err != nil || doc.Newer(saved.Term, saved.Rev) {
					t.Errorf("%s was sent term %s revision %d, saved is term %s revision %d (%v)", doc.Agent, doc.Term, doc.Rev, saved.Term, saved.Rev, err)
				}
			}
		})
	}
	each := detect()
	each.Per = messages.PerRobot
	apply(t, b, each)
	confirmed := func(after messages.Term) func() bool {
		return func() bool {
			st, err := ReadState(context.Background(), b)
			if err != nil || !after.Before(st.Term) || len(st.Replicas) != agents {
				return false
			}
			for _, a := range st.Agents {
				if a.Rev == 0 || a.Applied != a.Rev {
					return false
				}
			}
			for _, r := range st.Replicas {
				if r.State != messages.ReplicaReady {
					return false
				}
			}
			return true
		}
	}
	natstest.Eventually(t, within, "all to run the task", confirmed(messages.Term{}))
	first.stop()
	run(t, s.Connect(t), "coordinator-2")
	natstest.Eventually(t, within, "all to have their documents of the next term", confirmed(old))
	for _, a := range robots {
		a.mu.Lock()
		for _, d := range a.docs {
			if len(d.Replicas) != 1 || d.Replicas[0].Drain {
				t.Errorf("%s: document %+v", a.env.ID, d)
			}
		}
		a.mu.Unlock()
	}
}
