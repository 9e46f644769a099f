package stopping

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nuid"
)

// The load beside the stops: inferences of the size of a small camera frame, as fast as
// loaders × 1/loadEvery, and commands to robots that have one already and answer busy.
const (
	loaders   = 4
	loadEvery = 10 * time.Millisecond
	loadBytes = 64 << 10
)

func (m *bench) trace(e router.TraceEvent) {
	if e.Kind != router.TraceAccepted || e.Class != messages.Action {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ch := m.accepted[e.ID]; ch != nil {
		close(ch)
		delete(m.accepted, e.ID)
	}
}

// infer keeps inferences coming.
func (m *bench) infer(ctx context.Context) {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	body := make([]byte, loadBytes)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := m.client.Infer(ctx, router.Inference{Task: "see", Body: body})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.failed.Add(1)
		default:
			m.requests.Add(1)
		}
	}
}

// disturb commands robots that have something to do already.
func (m *bench) disturb(ctx context.Context) {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Robots whose link is cut would hold it up.
		robot := robotName(m.cfg.Cuts + i%max(1, m.cfg.Robots-m.cfg.Cuts))
		_, err := m.client.Act(ctx, router.Action{Robot: robot, Task: "move", Episode: nuid.Next(), Seq: 1, Body: []byte("x"), Deadline: 5 * time.Millisecond})
		if messages.CodeOf(err) == messages.CodeBusy || messages.CodeOf(err) == messages.CodeStopped {
			m.busy.Add(1)
		}
	}
}
