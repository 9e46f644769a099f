package coordinator

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// Desired is what the fleet is to run, as the desired bucket has it.
type Desired struct {
	Tasks    []messages.Task // sorted by name
	Settings messages.Settings
	Drains   []messages.DrainEntry // sorted by agent
}

// Applied says what Apply changed, by task name, sorted.
type Applied struct {
	Created   []string `json:"created"`
	Updated   []string `json:"updated"`
	Unchanged []string `json:"unchanged"`
	Settings  bool     `json:"settings"` // the settings were changed
}

// Apply makes the tasks what the fleet is to run, and sets the settings where they are
// given. Tasks that are not in the list stay as they are. Everything is checked before
// anything is written. An entry that is equal to what is there is not written, so
// applying a file twice changes nothing. The errors are *messages.Error.
func Apply(ctx context.Context, b *bus.Bus, tasks []messages.Task, settings *messages.Settings) (Applied, error) {
	if err := checkApply(tasks, settings); err != nil {
		return Applied{}, err
	}
	kv, err := b.KV(ctx, bus.Desired)
	if err != nil {
		return Applied{}, err
	}
	out := Applied{Created: []string{}, Updated: []string{}, Unchanged: []string{}}
	// The settings first: a leader plans after every entry, and what waits only because of
	// the old settings should not.
	if settings != nil {
		s := *settings
		if _, out.Settings, err = put(ctx, kv, bus.KeySettings, &s); err != nil {
			return out, err
		}
	}
	for _, t := range tasks {
		t.Revision = 0 // it is the entry's own, and known only when it is read
		was, changed, err := put(ctx, kv, bus.KeyTask+t.Name, &messages.TaskEntry{Task: t})
		switch {
		case err != nil:
			return out, err
		case !changed:
			out.Unchanged = append(out.Unchanged, t.Name)
		case was:
			out.Updated = append(out.Updated, t.Name)
		default:
			out.Created = append(out.Created, t.Name)
		}
	}
	for _, list := range [][]string{out.Created, out.Updated, out.Unchanged} {
		slices.Sort(list)
	}
	return out, nil
}

func checkApply(tasks []messages.Task, settings *messages.Settings) error {
	seen := make(map[string]bool)
	for _, t := range tasks {
		if err := t.Check("task " + t.Name + ": "); err != nil {
			return err
		}
		if seen[t.Name] {
			return messages.Errorf(messages.CodeBadRequest, "task %s: found twice; a name stands for one task", t.Name)
		}
		seen[t.Name] = true
	}
	if settings != nil {
		return settings.Check("settings.")
	}
	return nil
}

// put writes a message under a key unless it is there already. was says that the key
// existed.
func put(ctx context.Context, kv bus.KV, key string, m messages.Message) (was, changed bool, err error) {
	data, err := messages.Encode(m)
	if err != nil {
		return false, false, err
	}
	e, err := kv.Get(ctx, key)
	switch {
	case err == nil && bytes.Equal(e.Value(), data):
		return true, false, nil
	case err != nil && !errors.Is(err, jetstream.ErrKeyNotFound):
		return false, false, bus.Explain(err, "read "+key)
	}
	was = err == nil
	if _, err := kv.Put(ctx, key, data); err != nil {
		return was, false, bus.Explain(err, "write "+key)
	}
	return was, true, nil
}

// DeleteTask removes a task. The error has code not_found where there is none.
func DeleteTask(ctx context.Context, b *bus.Bus, name string) error {
	return remove(ctx, b, bus.KeyTask, "task", name, "`fleetbus tasks` lists them")
}

// Drain asks for an agent to be emptied: nothing new is placed there, and what is there
// moves elsewhere. It needs not be there yet.
func Drain(ctx context.Context, b *bus.Bus, agent, reason string) error {
	if err := messages.CheckName("agent", agent); err != nil {
		return err
	}
	kv, err := b.KV(ctx, bus.Desired)
	if err != nil {
		return err
	}
	_, _, err = put(ctx, kv, bus.KeyDrain+agent, &messages.DrainEntry{Agent: agent, Reason: reason})
	return err
}

// Undrain takes a Drain back. The error has code not_found where there is none.
func Undrain(ctx context.Context, b *bus.Bus, agent string) error {
	return remove(ctx, b, bus.KeyDrain, "drain of agent", agent, "`fleetbus agents` shows which drain")
}

// Forget removes an agent for good: its registration and its document. It is meant for
// one that is gone: one that still runs is not seen any more until it reconnects or is
// started again, so ask [ReadState] first. The error has code not_found where there is
// none.
func Forget(ctx context.Context, b *bus.Bus, agent string) error {
	if err := messages.CheckName("agent", agent); err != nil {
		return err
	}
	agents, err := b.KV(ctx, bus.Agents)
	if err != nil {
		return err
	}
	if _, err := agents.Get(ctx, agent); errors.Is(err, jetstream.ErrKeyNotFound) {
		return messages.Errorf(messages.CodeNotFound, "no agent %q is registered; `fleetbus agents` lists them", agent)
	} else if err != nil {
		return bus.Explain(err, "read the registration of "+agent)
	}
	if err := agents.Delete(ctx, agent); err != nil {
		return bus.Explain(err, "delete the registration of "+agent)
	}
	placements, err := b.KV(ctx, bus.Placements)
	if err != nil {
		return err
	}
	return bus.Explain(placements.Delete(ctx, agent), "delete the placement of "+agent)
}

func remove(ctx context.Context, b *bus.Bus, prefix, what, name, hint string) error {
	if err := messages.CheckName(what, name); err != nil {
		return err
	}
	kv, err := b.KV(ctx, bus.Desired)
	if err != nil {
		return err
	}
	if _, err := kv.Get(ctx, prefix+name); errors.Is(err, jetstream.ErrKeyNotFound) {
		return messages.Errorf(messages.CodeNotFound, "no %s %q; %s", what, name, hint)
	} else if err != nil {
		return bus.Explain(err, "read "+prefix+name)
	}
	return bus.Explain(kv.Delete(ctx, prefix+name), "delete "+prefix+name)
}

// ReadDesired reads what the fleet is to run. Where nothing was ever applied it is empty,
// with the default settings.
func ReadDesired(ctx context.Context, b *bus.Bus) (Desired, error) {
	d := newDesired()
	err := each(ctx, b, bus.Desired, func(e jetstream.KeyValueEntry) error { return d.put(e) })
	return d.value(), err
}

// Registrations returns the environments that are registered, by the agents' ids.
func Registrations(ctx context.Context, b *bus.Bus) (map[string]messages.Registration, error) {
	out := make(map[string]messages.Registration)
	err := each(ctx, b, bus.Agents, func(e jetstream.KeyValueEntry) error {
		var r messages.Registration
		if err := messages.Decode(e.Value(), &r); err != nil {
			return err
		}
		out[e.Key()] = r
		return nil
	})
	return out, err
}

// each calls f with every entry of a bucket. One that f cannot read is skipped: it is the
// business of whoever wrote it, and must not hide the others.
func each(ctx context.Context, b *bus.Bus, bucket bus.Bucket, f func(jetstream.KeyValueEntry) error) error {
	kv, err := b.KV(ctx, bucket)
	if err != nil {
		return err
	}
	keys, err := kv.ListKeys(ctx)
	if err != nil {
		return bus.Explain(err, "list bucket "+string(bucket))
	}
	defer keys.Stop()
	for key := range keys.Keys() {
		e, err := kv.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return bus.Explain(err, "read "+key)
		}
		_ = f(e)
	}
	return nil
}

// desired collects the entries of the desired bucket.
type desired struct {
	tasks    map[string]messages.Task
	drains   map[string]messages.DrainEntry
	settings messages.Settings
}

func newDesired() *desired {
	return &desired{tasks: make(map[string]messages.Task), drains: make(map[string]messages.DrainEntry), settings: messages.DefaultSettings()}
}

// put takes an entry, or the mark that its key was deleted.
func (d *desired) put(e jetstream.KeyValueEntry) error {
	gone := e.Operation() != jetstream.KeyValuePut
	if name, ok := strings.CutPrefix(e.Key(), bus.KeyTask); ok {
		if gone {
			delete(d.tasks, name)
			return nil
		}
		var t messages.TaskEntry
		if err := messages.Decode(e.Value(), &t); err != nil {
			return err
		}
		t.Task.Revision = e.Revision()
		d.tasks[name] = t.Task
		return nil
	}
	if name, ok := strings.CutPrefix(e.Key(), bus.KeyDrain); ok {
		if gone {
			delete(d.drains, name)
			return nil
		}
		var v messages.DrainEntry
		if err := messages.Decode(e.Value(), &v); err != nil {
			return err
		}
		d.drains[name] = v
		return nil
	}
	if e.Key() != bus.KeySettings {
		return nil // a newer program's
	}
	if gone {
		d.settings = messages.DefaultSettings()
		return nil
	}
	var s messages.Settings
	if err := messages.Decode(e.Value(), &s); err != nil {
		return err
	}
	d.settings = s
	return nil
}

func (d *desired) value() Desired {
	out := Desired{Settings: d.settings}
	for _, t := range d.tasks {
		out.Tasks = append(out.Tasks, t)
	}
	slices.SortFunc(out.Tasks, func(a, b messages.Task) int { return strings.Compare(a.Name, b.Name) })
	for _, v := range d.drains {
		out.Drains = append(out.Drains, v)
	}
	slices.SortFunc(out.Drains, func(a, b messages.DrainEntry) int { return strings.Compare(a.Agent, b.Agent) })
	return out
}
