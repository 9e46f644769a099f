package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// pointTries is how often the record is written with a new checkpoint before the
// checkpoint counts as not stored; the handler goes on and stores the next one.
const pointTries = 5

// log keeps a line for whoever watches the job. It is what a handler calls.
func (e *execution) log(line string) {
	if e.job != nil {
		e.job.lines.add(strings.TrimRight(line, "\n"))
	}
}

// checkpoint stores what a job has done so far. It is what a handler calls.
//
// Persist, then name: the bytes are stored under a name of their own, then the record is
// made to name them, by compare-and-set. An attempt that has lost the job cannot.
func (e *execution) checkpoint(ctx context.Context, r io.Reader) error {
	j := e.job
	if j == nil {
		return messages.Errorf(messages.CodeBadRequest, "a checkpoint of request %s: only jobs have checkpoints, this one is of class %s", e.req.ID, e.req.Class)
	}
	if why := j.lost.Load(); why != nil {
		return why
	}
	j.pointing.Lock()
	defer j.pointing.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)() // what was canceled, or lost, stores nothing more
	store, err := j.a.jobs.checkpoints(ctx)
	if err != nil {
		return err
	}
	j.points++
	name := e.req.ID + "." + strconv.Itoa(e.req.Attempt) + "." + strconv.Itoa(j.points)
	info, err := store.Put(ctx, jetstream.ObjectMeta{Name: name}, r)
	if err != nil {
		return bus.Explain(err, "store a checkpoint of job "+e.req.ID)
	}
	old, err := j.point(ctx, messages.Checkpoint{Name: name, Attempt: e.req.Attempt, Size: info.Size, Digest: info.Digest})
	switch {
	case err != nil:
		j.dropPoint(name)
	case old != nil:
		j.dropPoint(old.Name)
	}
	return err
}

// point makes the record name a checkpoint and returns the one that it named before.
func (j *jobRun) point(ctx context.Context, p messages.Checkpoint) (old *messages.Checkpoint, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for range pointTries {
		if why := j.lost.Load(); why != nil {
			return nil, why
		}
		next := j.job
		old, p.Number = next.Checkpoint, 1
		if old != nil {
			p.Number = old.Number + 1
		}
		next.Checkpoint = &p
		if err = j.put(ctx, next); err == nil {
			return old, nil
		}
		fate, _, readErr := j.settle(ctx)
		if readErr == nil && (fate == fateLost || fate == fateOver) {
			j.lose(messages.Errorf(messages.CodeConflict, "another attempt has taken the job over, or it has ended"))
		}
		if ctx.Err() != nil {
			break
		}
		if readErr != nil {
			sleep(ctx, storePause, j.a.reconnected.next())
		}
	}
	return nil, err
}

// dropPoint removes a checkpoint that nothing names. What is left behind goes with its age.
func (j *jobRun) dropPoint(name string) {
	ctx, cancel := j.a.apiContext(context.WithoutCancel(j.a.work), apiTime)
	defer cancel()
	store, err := j.a.jobs.checkpoints(ctx)
	if err == nil {
		err = store.Delete(ctx, name)
	}
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		j.a.cfg.Logger.Debug("an old checkpoint was not removed", "checkpoint", name, "error", err)
	}
}

// restore returns the newest checkpoint of the job; nil where it begins from nothing.
func (e *execution) restore(ctx context.Context) (io.ReadCloser, error) {
	j := e.job
	if j == nil {
		return nil, nil
	}
	j.mu.Lock()
	p := j.job.Checkpoint
	j.mu.Unlock()
	if p == nil {
		return nil, nil
	}
	store, err := j.a.jobs.checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	got, err := store.Get(ctx, p.Name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		// Its bucket was lost. To fail for ever would lose the job too.
		text := fmt.Sprintf("checkpoint %d of job %s (%d bytes, attempt %d) is gone; the job begins from nothing", p.Number, e.req.ID, p.Size, p.Attempt)
		j.a.cfg.Logger.Warn(text)
		e.log(text)
		return nil, nil
	}
	if err != nil {
		return nil, bus.Explain(err, "read checkpoint "+p.Name)
	}
	return got, nil
}
