package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// restoreTimeout bounds writing the desired state again. It is a few hundred small
// entries at most; the watcher's resync (30 s) tries again.
const restoreTimeout = 10 * time.Second

// restoreDesired writes the desired state into a bucket that was made again after a
// server lost its storage. Were it taken for empty, the fleet would be told to stop
// everything. Only missing entries are written, so several coordinators may do it at
// once, and what an operator applied meanwhile stands.
func (c *Coordinator) restoreDesired(ctx context.Context, d Desired) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	kv, err := c.bus.KV(ctx, bus.Desired)
	if err != nil {
		return err
	}
	c.log.Warn("the desired state was lost with its bucket; writing it again", "tasks", len(d.Tasks), "drains", len(d.Drains))
	create := func(key string, m messages.Message) error {
		data, err := messages.Encode(m)
		if err != nil {
			return err
		}
		if _, err := kv.Create(ctx, key, data); err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return bus.Explain(err, "write "+key)
		}
		return nil
	}
	settings := d.Settings
	if err := create(bus.KeySettings, &settings); err != nil {
		return err
	}
	for _, t := range d.Tasks {
		t.Revision = 0 // it is the entry's own
		if err := create(bus.KeyTask+t.Name, &messages.TaskEntry{Task: t}); err != nil {
			return err
		}
	}
	for _, e := range d.Drains {
		if err := create(bus.KeyDrain+e.Agent, &e); err != nil {
			return err
		}
	}
	return nil
}
