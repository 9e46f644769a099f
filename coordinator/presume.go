package coordinator

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// What is there and cannot be read (somebody wrote nonsense over it, or a newer program
// wrote it) is not gone. A coordinator that was there before goes on with what it remembers;
// one that was not looks up here what there was. Else it would stop a task that nobody took
// back, and place anew what an agent that lives still runs.

// readBefore puts the newest value of a key that can be read into d; nothing where the key
// was deleted since. For a task of which no such value is kept, it is what the routes say.
func (c *Coordinator) readBefore(ctx context.Context, d *desired, key string) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	kv, err := c.bus.KV(ctx, bus.Desired)
	if err != nil {
		return err
	}
	entries, err := kv.History(ctx, key)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return bus.Explain(err, "read what "+key+" was before")
	}
	for _, e := range slices.Backward(entries) {
		if d.put(e) == nil {
			if e.Operation() == jetstream.KeyValuePut {
				c.log.Warn("an entry cannot be read; what it was before goes on", "key", key, "revision", e.Revision())
			}
			return nil
		}
	}
	name, ok := strings.CutPrefix(key, bus.KeyTask)
	if !ok {
		c.log.Warn("an entry cannot be read, and nothing is known of it", "key", key)
		return nil
	}
	kv, err = c.bus.KV(ctx, bus.RoutesKV)
	if err != nil {
		return err
	}
	e, err := c.newest(ctx, bus.RoutesKV, kv, bus.KeyRoutes)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return bus.Explain(err, "read the routes")
	}
	var routes messages.Routes
	if err == nil && messages.Decode(e.Value(), &routes) == nil {
		if t, ok := routes.Find(name); ok {
			c.log.Warn("a task cannot be read; it goes on as the routes have it", "task", name)
			d.tasks[name] = t.Task
			return nil
		}
	}
	c.log.Warn("a task cannot be read, and nothing is known of it: it is not run", "task", name)
	return nil
}

// presumedRoom is how many times what its replicas are planned to use such an agent is taken
// to have: it has room for them beside the reserve (0.3 at most) and what others use there,
// and serves them about as fast as a machine that is not full.
const presumedRoom = 4

// presumed makes registrations for agents whose own cannot be read and never could be by
// this coordinator, out of their documents and the routes: agents with the handlers and the
// labels of their replicas alone, so that these stay and hardly anything else comes. Those
// that have no document run nothing.
func (c *Coordinator) presumed(saved placement.PlacementsLoaded) (list []placement.Registered) {
	routes := make(map[string]messages.Route) // by agent
	if saved.Routes != nil {
		for _, t := range saved.Routes.Tasks {
			for _, r := range t.Replicas {
				routes[r.Agent] = r
			}
		}
	}
	for _, doc := range saved.Docs {
		if !c.lives.unknown(doc.Agent) || doc.Inc.IsZero() {
			continue
		}
		env := messages.Environment{ID: doc.Agent, Tier: messages.Edge, Labels: make(map[string]string)}
		if r, ok := routes[doc.Agent]; ok {
			env.Tier, env.Site = r.Tier, r.Site
		}
		for _, r := range doc.Replicas {
			env.Capacity = env.Capacity.Add(r.Task.Demand.Scale(presumedRoom))
			if r.Task.Run != nil {
				env.Runs = true
			} else {
				env.Handlers = append(env.Handlers, r.Task.HandlerName())
			}
			maps.Copy(env.Labels, r.Task.Labels)
			if _, ok := routes[doc.Agent]; !ok && (r.Task.Per == messages.PerRobot || r.Task.Robot != "" || r.Task.Class == messages.Action) {
				env.Tier = messages.Robot
			}
		}
		env = env.Normal()
		c.log.Warn("the registration of an agent cannot be read; it keeps what its document says until it registers again", "agent", doc.Agent)
		c.lives.begin(doc.Agent, env.Site, doc.Inc)
		list = append(list, placement.Registered{Registration: messages.Registration{Environment: env}, Inc: doc.Inc})
	}
	return list
}
