package agent

import (
	"context"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// serveControl handles documents, claims, probes and cancellations. Nothing that it
// calls waits: a probe must be answered within a few milliseconds, or its sender counts
// this agent as hung.
func (a *Agent) serveControl(ctx context.Context, msgs <-chan *nats.Msg) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-msgs:
			s, err := messages.ParseSubject(m.Subject)
			if err != nil {
				a.garbage.Note(a.cfg.Logger, "control", err)
				continue
			}
			switch s.Kind {
			case messages.KindPlace:
				a.place(m)
			case messages.KindClaim:
				a.claimed(m)
			case messages.KindWake:
				nudge(a.queued.wake)
			case messages.KindProbe:
				a.answerIDs(m, "probe", a.flight.holds)
			case messages.KindCancel:
				a.answerIDs(m, "cancel", a.flight.cancel)
			}
		}
	}
}

// answerIDs answers a probe or a cancellation with the ids that pick returns. The ids
// of requests are random: who knows one may ask for it, whatever its origin, because
// the router service asks for others.
func (a *Agent) answerIDs(m *nats.Msg, kind string, pick func([]string) []string) {
	var p messages.Probe
	if err := messages.Decode(m.Data, &p); err != nil {
		a.garbage.Note(a.cfg.Logger, kind, err)
		return
	}
	ids := pick(p.IDs)
	if m.Reply == "" {
		return
	}
	data, err := messages.Encode(&messages.Probe{Inc: a.incarnation(), IDs: ids})
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		a.cfg.Logger.Debug("no answer sent", "kind", kind, "error", err)
	}
}
