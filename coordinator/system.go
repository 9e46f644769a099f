package coordinator

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// disconnects is where the server tells of a connection that was closed, 1 ms after its
// process was killed. Only the system account hears it, and whoever imports it from there
// (docs/operations.md). Where nobody does, nothing comes, and agents are found lost by
// their silence, or by the word of whoever asks them something.
const disconnects = "$SYS.ACCOUNT.*.DISCONNECT"

// lives holds the newest incarnation of every agent, for evidence that names none, and its
// site, for questions.
type lives struct {
	mu     sync.Mutex
	list   map[string]life
	unread map[string]bool // registrations that are there, and cannot be read
}

type life struct {
	inc  messages.Incarnation
	site string
}

func newLives() lives { return lives{list: make(map[string]life), unread: make(map[string]bool)} }

func (l *lives) begin(agent, site string, inc messages.Incarnation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unread, agent)
	if l.list[agent].inc.Before(inc) {
		l.list[agent] = life{inc, site}
	}
}

func (l *lives) end(agent string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.list, agent)
	delete(l.unread, agent)
}

func (l *lives) unreadable(agent string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unread[agent] = true
}

// unknown reports whether an agent has a registration and never had one that could be read.
func (l *lives) unknown(agent string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.list[agent]
	return l.unread[agent] && !ok
}

func (l *lives) of(agent string) (inc messages.Incarnation, site string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.list[agent]
	return v.inc, v.site, ok
}

// hearSystem listens to the server. A reconnection looks like a death, and so does the end
// of an agent's former life after the next has begun: the Machine gives an agent the time
// of a beat to show that it lives.
func (c *Coordinator) hearSystem(ctx context.Context) (*nats.Subscription, error) {
	sub, err := c.nc.Subscribe(disconnects, func(m *nats.Msg) {
		var ev struct {
			Client struct {
				Name string `json:"name"`
			} `json:"client"`
		}
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			c.garbage.Note(c.log, "disconnect", messages.Errorf(messages.CodeBadRequest, "an event of the server that is no JSON object: %v", err))
			return
		}
		fleet, agent, ok := bus.AgentOf(ev.Client.Name)
		if !ok || fleet != c.cfg.Fleet {
			return
		}
		if inc, _, ok := c.lives.of(agent); ok {
			c.feed(ctx, placement.ConnClosed{Agent: agent, Inc: inc})
			c.doubts.put(agent, time.Now()) // it may be back: then it answers
		}
	})
	return sub, bus.Explain(err, "subscribe to "+disconnects)
}
