package router

import (
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// reportEvery is how often a client tells coordinators of the same agent. A dead one with
// requests under way is found absent every 20 ms; one word is enough, and a second one a
// second later is for a coordinator that was just being replaced.
const reportEvery = time.Second

// reports remembers what was told to coordinators.
type reports struct {
	mu   sync.Mutex
	last map[string]time.Time // by agent; those that routes have named, so the fleet bounds it
}

func (r *reports) init() { r.last = make(map[string]time.Time) }

// due reports whether an agent is to be spoken of again, and notes that it is.
func (r *reports) due(agent string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last[agent]; ok && now.Sub(last) < reportEvery {
		return false
	}
	r.last[agent] = now
	return true
}

// unreached tells the coordinators that nobody listens at an agent, so that it is placed
// anew before it has missed its beats. The incarnation is that of the routes: of an older
// one nobody needs to hear.
func (c *Client) unreached(agent string) {
	if !c.reports.due(agent, time.Now()) {
		return
	}
	r, ok := c.routeTo(agent)
	if !ok {
		return // it is in no route any more: everybody knows
	}
	s := c.bus.Subject(messages.KindUnreached, r.Site)
	s.Agent, s.Origin = agent, c.cfg.Origin
	data, err := messages.Encode(&messages.Unreached{Agent: agent, Inc: r.Inc})
	if err == nil {
		err = c.nc.Publish(s.String(), data)
	}
	if err != nil {
		c.cfg.Logger.Debug("an agent that is away was not reported", "agent", agent, "error", err)
	}
}

// routeTo finds some route to an agent.
func (c *Client) routeTo(agent string) (messages.Route, bool) {
	t := c.table.load()
	if t == nil {
		return messages.Route{}, false
	}
	for _, task := range t.routes.Tasks {
		for _, r := range task.Replicas {
			if r.Agent == agent {
				return r, true
			}
		}
	}
	return messages.Route{}, false
}
