package coordinator

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// Version is one of the last ten states of a task in the desired bucket.
type Version struct {
	Revision uint64        `json:"revision"`
	Time     time.Time     `json:"time"` // when it was written, on the server's clock
	Deleted  bool          `json:"deleted,omitempty"`
	Task     messages.Task `json:"task"`
}

// Versions returns what a task was, the oldest first. The error has code not_found where
// there never was one of that name, or all of it is forgotten.
func Versions(ctx context.Context, b *bus.Bus, task string) ([]Version, error) {
	h, err := versions(ctx, b, task)
	return h.list, err
}

// history is what is kept of one task.
type history struct {
	kv   bus.KV
	list []Version // that can be read, the oldest first
	last uint64    // the newest revision, whether it can be read or not
}

func versions(ctx context.Context, b *bus.Bus, task string) (h history, err error) {
	if err := messages.CheckName("task", task); err != nil {
		return h, err
	}
	if h.kv, err = b.KV(ctx, bus.Desired); err != nil {
		return h, err
	}
	entries, err := h.kv.History(ctx, bus.KeyTask+task)
	if errors.Is(err, jetstream.ErrKeyNotFound) || err == nil && len(entries) == 0 {
		return h, messages.Errorf(messages.CodeNotFound, "no task %q, now or of late; `fleetbus tasks` lists them", task)
	}
	if err != nil {
		return h, bus.Explain(err, "read the versions of "+task)
	}
	for _, e := range entries {
		h.last = e.Revision()
		v := Version{Revision: e.Revision(), Time: e.Created(), Deleted: e.Operation() != jetstream.KeyValuePut}
		if !v.Deleted {
			var entry messages.TaskEntry
			if err := messages.Decode(e.Value(), &entry); err != nil {
				continue // somebody wrote nonsense, which nobody took
			}
			v.Task = entry.Task
			v.Task.Revision = v.Revision
		}
		h.list = append(h.list, v)
	}
	return h, nil
}

// Rollback makes a task again what it was at a revision: 0 for what it was before it was
// changed, or deleted, last. It is a new version that is equal to an old one, and is rolled
// out like any other. Where what is there now cannot be read, the one before is what it was,
// and from has that revision and no task. It fails with code conflict if somebody changes the task meanwhile,
// and with not_found where no such version is kept.
func Rollback(ctx context.Context, b *bus.Bus, task string, to uint64) (from, target Version, err error) {
	h, err := versions(ctx, b, task)
	if err != nil {
		return from, target, err
	}
	list := h.list
	if len(list) == 0 {
		return from, target, messages.Errorf(messages.CodeNotFound, "task %q: none of its versions can be read", task)
	}
	from = list[len(list)-1]
	data := func(v Version) ([]byte, error) {
		v.Task.Revision = 0
		return messages.Encode(&messages.TaskEntry{Task: v.Task})
	}
	var now []byte // nil where nothing can be equal to it
	if from.Revision != h.last {
		from = Version{Revision: h.last}
	} else if now, err = data(from); err != nil {
		return from, target, err
	}
	for i := len(list) - 1; i >= 0; i-- {
		v := list[i]
		if v.Deleted || to != 0 && v.Revision != to {
			continue
		}
		was, err := data(v)
		if err != nil {
			return from, target, err
		}
		if !from.Deleted && bytes.Equal(was, now) {
			if to != 0 {
				return from, v, messages.Errorf(messages.CodeBadRequest, "task %s is what it was at revision %d: there is nothing to change", task, to)
			}
			continue
		}
		if _, err := h.kv.Update(ctx, bus.KeyTask+task, was, h.last); err != nil {
			return from, v, bus.Explain(err, "write task "+task)
		}
		return from, v, nil
	}
	if to != 0 {
		return from, target, messages.Errorf(messages.CodeNotFound, "task %s: no version of revision %d is kept; `fleetbus versions %s` lists the last ten", task, to, task)
	}
	return from, target, messages.Errorf(messages.CodeNotFound, "task %s: no other version of it is kept", task)
}
