package coordinator

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// restoreTimeout bounds writing the desired state again. It is a few hundred small
// entries at most; the watcher's resync (30 s) tries again.
const restoreTimeout = 10 * time.Second

// restoreDesired writes entries of the desired state into a bucket that was made again
// after a server lost its storage. Were it taken for what is wanted, the fleet would be
// told to stop everything. Only missing entries are written, so several coordinators may
// do it at once, and what an operator applied meanwhile stands.
func (c *Coordinator) restoreDesired(ctx context.Context, d *desired, keys []string) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	kv, err := c.bus.KV(ctx, bus.Desired)
	if err != nil {
		return err
	}
	c.log.Warn("the desired state was lost with its bucket; writing it again", "entries", len(keys))
	for _, key := range keys {
		data, err := messages.Encode(d.entry(key))
		if err != nil {
			return err
		}
		if _, err := kv.Create(ctx, key, data); err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return bus.Explain(err, "write "+key)
		}
	}
	return nil
}

// inherit takes over from what was known before whatever the keys that were seen do not
// speak of, and returns the keys of that. A key that was deleted was seen too.
func (d *desired) inherit(from *desired, seen map[string]bool) (missing []string) {
	was := from.value()
	keys := []string{bus.KeySettings} // the settings first, as in Apply
	for _, t := range was.Tasks {
		keys = append(keys, bus.KeyTask+t.Name)
	}
	for _, e := range was.Drains {
		keys = append(keys, bus.KeyDrain+e.Agent)
	}
	for _, key := range keys {
		if !seen[key] {
			d.keep(key, from)
			missing = append(missing, key)
		}
	}
	return missing
}

// keep takes one entry over, if it is there.
func (d *desired) keep(key string, from *desired) {
	if name, ok := strings.CutPrefix(key, bus.KeyTask); ok {
		if t, ok := from.tasks[name]; ok {
			d.tasks[name] = t
		}
	} else if name, ok := strings.CutPrefix(key, bus.KeyDrain); ok {
		if e, ok := from.drains[name]; ok {
			d.drains[name] = e
		}
	} else if key == bus.KeySettings {
		d.settings = from.settings
	}
}

// entry is what stands under a key of ours in the bucket.
func (d *desired) entry(key string) messages.Message {
	if name, ok := strings.CutPrefix(key, bus.KeyTask); ok {
		t := d.tasks[name]
		t.Revision = 0 // it is the entry's own
		return &messages.TaskEntry{Task: t}
	}
	if name, ok := strings.CutPrefix(key, bus.KeyDrain); ok {
		e := d.drains[name]
		return &e
	}
	s := d.settings
	return &s
}
