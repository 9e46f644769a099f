package coordinator

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// A coordinator whose own link stalls loses nobody for it, in the smallest fleet.
func TestOwnStallLosesNobody(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	link := s.Link("coordinator")
	c := run(t, s.Connect(t, link.Dial()), "coordinator-1", func(c *Coordinator) { c.calm, c.cfg.LeaseTTL = slow, time.Minute })
	c.awaitLead(t)
	up := time.Now()
	apply(t, b, detect())
	startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	natstest.Eventually(t, within, "the window of the gate to be over", func() bool { return time.Since(up) > slow.LostAfter })
	link.Cut()
	cut := time.Now()
	natstest.Eventually(t, within, "the window to pass", func() bool {
		var st messages.State
		c.look(t.Context(), func(m *placement.Machine) { st = m.State() })
		if st.Agents[0].State == messages.AgentLost {
			t.Fatal("an agent is lost, and it is the coordinator's own link")
		}
		return time.Since(cut) > slow.LostAfter+time.Second
	})
	link.Mend()
	second := detect()
	second.Name = "second"
	apply(t, b, second)
	routed(t, b, "second", "edge-1")
}
