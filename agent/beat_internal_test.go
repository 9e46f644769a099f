package agent

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A beat that could not be sent is not made up for a whole second later.
func TestUnsentBeatIsTriedSoon(t *testing.T) {
	t.Parallel()
	a := &Agent{beatConn: &nats.Conn{}} // which is not connected
	sent := a.sendBeat("fb.f.main.hb.edge-1", 1)
	if sent {
		t.Error("sent over no connection")
	}
	if d := nextBeat(sent, 1); d > 100*time.Millisecond {
		t.Errorf("tried again after %v", d)
	}
	for r, want := range map[float64]time.Duration{0: 900 * time.Millisecond, 0.5: time.Second, 1: 1100 * time.Millisecond} {
		if d := nextBeat(true, r); d.Round(time.Millisecond) != want {
			t.Errorf("the next beat comes after %v, want %v", d, want)
		}
	}
}
