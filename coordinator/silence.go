package coordinator

import (
	"context"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Who misses one beat is asked whether it is there. If nobody listens at its subject the
// server says so at once, and that is evidence: an agent that died while nobody asked
// anything of it is found by it a beat sooner than by its silence. An answer is no news: it
// lives and does not beat, and its beats will tell.
//
// lookSilent is how often it is looked for those, a fraction of a beat. askAtOnce bounds
// what is asked in one look: when the whole fleet is silent it is we who are deaf.
const (
	lookSilent = 250 * time.Millisecond
	askAtOnce  = 256
)

// quiet knows when each agent was heard. It is pure, and owned by the Machine's goroutine.
type quiet struct {
	after time.Duration        // the longest time between two beats of an agent that is well
	last  map[string]time.Time // of those that were heard and not asked since
}

func newQuiet(c placement.Calm) quiet {
	after := c.Beat
	if after == 0 {
		after = placement.DefaultCalm().Beat
	}
	return quiet{after: after, last: make(map[string]time.Time)}
}

func (q *quiet) heard(agent string, now time.Time) { q.last[agent] = now }

// due returns who is to be asked, each once until it is heard again.
func (q *quiet) due(now time.Time) (list []string) {
	for agent, last := range q.last {
		if now.Sub(last) < q.after {
			continue
		}
		if len(list) == askAtOnce {
			break
		}
		delete(q.last, agent)
		list = append(list, agent)
	}
	return list
}

// beating returns which of these agents were heard within the time of a beat.
func (q *quiet) beating(agents []string, now time.Time) map[string]bool {
	out := make(map[string]bool)
	for _, agent := range agents {
		if last, ok := q.last[agent]; ok && now.Sub(last) < q.after {
			out[agent] = true
		}
	}
	return out
}

// beating asks the Machine's goroutine.
func (c *Coordinator) beating(ctx context.Context, agents []string) (out map[string]bool) {
	if len(agents) > 0 {
		c.look(ctx, func(*placement.Machine) { out = c.quiet.beating(agents, time.Now()) })
	}
	return out
}

// askSilent asks agents whether they are there. It does not wait.
func (c *Coordinator) askSilent(list []string) {
	if len(list) == 0 || !c.nc.IsConnected() {
		return
	}
	data, err := messages.Encode(&messages.Probe{})
	if err != nil {
		c.log.Error("a probe could not be encoded", "error", err)
		return
	}
	for _, agent := range list {
		_, site, ok := c.lives.of(agent)
		if !ok {
			continue // it is not registered any more
		}
		s := c.bus.Subject(messages.KindProbe, site)
		s.Agent, s.Origin = agent, c.cfg.ID
		if err := c.nc.PublishRequest(s.String(), c.replies+agent, data); err != nil {
			c.log.Debug("not asked", "agent", agent, "error", err)
		}
	}
}

// hearSilent takes in the answers.
func (c *Coordinator) hearSilent(ctx context.Context) (*nats.Subscription, error) {
	pattern := c.replies + "*"
	sub, err := c.nc.Subscribe(pattern, func(m *nats.Msg) {
		agent := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		inc, _, ok := c.lives.of(agent)
		switch {
		case !ok:
		case len(m.Data) > 0:
			c.doubts.end(agent)
			c.feed(ctx, placement.Reached{Agent: agent, Inc: inc})
		case m.Header.Get("Status") == "503":
			c.doubts.put(agent, time.Now())
			c.feed(ctx, placement.Unreached{Agent: agent, Inc: inc, By: c.cfg.ID})
		}
	})
	return sub, bus.Explain(err, "subscribe to answers")
}
