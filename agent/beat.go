package agent

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/agent/monitor"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// Heartbeats come every beatEvery, a tenth more or less, so that the beats of a fleet
// that was started at once spread. A coordinator misses an agent after three, and after one
// where there was evidence that it is gone: so one that could not be sent, because its
// connection was down, is tried again after beatRetry, and is one tenth of a beat late.
const (
	beatEvery = time.Second
	beatSplay = 0.1
	beatRetry = beatEvery / 10
)

// beatNow asks for a heartbeat at once; what changes before it is sent rides along.
func (a *Agent) beatNow() { nudge(a.beat) }

// beats sends heartbeats, on a goroutine of its own and where possible on a connection
// of its own, so that nothing the agent serves holds them up.
func (a *Agent) beats(ctx context.Context) {
	subject := a.subject(messages.KindHeartbeat).String()
	var changed <-chan struct{} // nil, for ever: nothing is read
	if m := a.cfg.Monitor; m != nil {
		changed = m.Changed()
		defer m.Watch(a.ours)()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for seq := uint64(1); ; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.beat:
		case <-changed: // others use much more of the machine, or much less
		}
		timer.Reset(nextBeat(a.sendBeat(subject, seq), rand.Float64()))
	}
}

// nextBeat is the time to the next beat after one that was sent, or not; r is random, from 0
// to 1.
func nextBeat(sent bool, r float64) time.Duration {
	if !sent {
		return beatRetry
	}
	return time.Duration(float64(beatEvery) * (1 + beatSplay*(2*r-1)))
}

// sendBeat reports whether the beat is on its way.
func (a *Agent) sendBeat(subject string, seq uint64) bool {
	// A client library may be set to buffer while there is no connection, and a beat
	// that comes out of a buffer would be a lie.
	if !a.beatConn.IsConnected() {
		return false
	}
	data, err := messages.Encode(a.heartbeat(seq, time.Now()))
	if err == nil {
		err = a.beatConn.Publish(subject, data)
	}
	if err != nil {
		a.cfg.Logger.Debug("heartbeat not sent", "error", err)
	}
	return err == nil
}

func (a *Agent) heartbeat(seq uint64, now time.Time) *messages.Heartbeat {
	age, rtt := a.link.figures(now)
	h := &messages.Heartbeat{
		Agent: a.id, Inc: a.incarnation(), Seq: seq, State: messages.AgentReady,
		Capacity: a.cfg.Environment.Capacity, Foreign: a.cfg.Foreign(),
		DataAge: millis(age), RTT: millis(rtt),
	}
	h.Stopped = a.safety.why()
	if m := a.cfg.Monitor; m != nil {
		h.Readings, h.Foreign = m.Readings(), h.Foreign.Max(m.Foreign())
	}
	if near := a.link.least.Load(); a.cfg.MeasureLatency && near > 0 {
		if h.Readings == nil {
			h.Readings = new(messages.Readings)
		}
		h.Readings.Latency = millis(time.Duration(near))
	}
	if a.draining.Load() {
		h.State = messages.AgentDraining
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.doc != nil {
		h.Term, h.Rev = a.doc.Term, a.doc.Rev
	}
	h.Replicas = a.statuses(now)
	return h
}

// ours is what this agent does, for who reads the machine.
func (a *Agent) ours() (o monitor.Ours) {
	conns := []*nats.Conn{a.nc}
	if a.beatConn != a.nc {
		conns = append(conns, a.beatConn)
	}
	for _, nc := range conns {
		s := nc.Stats()
		o.In, o.Out = o.In+s.InBytes, o.Out+s.OutBytes
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.replicas {
		work, storage := r.doing()
		o.Work += work
		o.Storage += storage
		if slices.Contains(a.cfg.Outside, r.task.HandlerName()) {
			o.Outside += work
		}
	}
	return o
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
