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

// How often it is tried, storePause apart, to have to do with a checkpoint.
//
//   - pointTries: to make the record name a new one, before it counts as not stored; the
//     handler goes on and stores the next one.
//   - restoreTries: to read the newest one, 10 s: longer than the election of a leader
//     (4 to 9 s), and than a server that was away needs to catch up, as a rule.
const (
	pointTries   = 5
	restoreTries = 20
)

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
	old, named, err := j.point(ctx, messages.Checkpoint{Name: name, Attempt: e.req.Attempt, Size: info.Size, Digest: info.Digest})
	switch {
	case err != nil && named:
		j.loose = append(j.loose, name)
	case err != nil:
		j.dropPoint(name)
	default:
		// The record is newer than every write of before, so none of these can come to be
		// named any more.
		for _, loose := range j.loose {
			j.dropPoint(loose)
		}
		j.loose = nil
		if old != nil {
			j.dropPoint(old.Name)
		}
	}
	return err
}

// point makes the record name a checkpoint and returns the one that it named before. After
// an error, named says that the record may name the new one all the same, now or when a
// write is carried out whose answer did not come: to remove it would lose the job's work.
func (j *jobRun) point(ctx context.Context, p messages.Checkpoint) (old *messages.Checkpoint, named bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for try := range pointTries {
		if try > 0 {
			j.mu.Unlock() // whether the job is still ours is looked up meanwhile
			sleep(ctx, storePause, j.a.reconnected.next())
			j.mu.Lock()
		}
		if why := j.lost.Load(); why != nil {
			return nil, named, why
		}
		if j.job.State.Ended() || j.e.returned.Load() {
			return nil, named, messages.Errorf(messages.CodeConflict, "a checkpoint of job %s: its handler has returned", j.job.ID)
		}
		if try > 0 && ctx.Err() != nil {
			break
		}
		next := j.job
		old, p.Number = next.Checkpoint, 1
		if old != nil {
			p.Number = old.Number + 1
		}
		next.Checkpoint = &p
		named = true
		if err = j.put(ctx, next); err == nil {
			return old, true, nil
		}
		fate, now, readErr := j.settle(ctx)
		if readErr != nil {
			continue
		}
		var isNamed bool
		if fate, isNamed = judgePoint(fate, now, p.Name); fate == fateMine && isNamed {
			j.job.Checkpoint = now.Checkpoint // the write was carried out, and its answer lost
			return old, true, nil
		}
		if fate == fateLost {
			named = isNamed
			j.lose(messages.Errorf(messages.CodeConflict, "another attempt has taken the job over, or it has ended"))
			return nil, named, j.lost.Load()
		}
	}
	return nil, named, err
}

// judgePoint decides, of the record as it was read after a write that should have made it
// name a checkpoint, to whom the job belongs, which is fateLost also where it is over, and
// whether it names the checkpoint: who has taken the job over has taken that over too. It
// is pure.
func judgePoint(fate jobFate, now *messages.Job, name string) (jobFate, bool) {
	if fate == fateOver {
		fate = fateLost
	}
	return fate, now != nil && now.Checkpoint != nil && now.Checkpoint.Name == name
}

// dropPoints removes the checkpoint of a job that nobody begins again, and what was left of
// others.
func (j *jobRun) dropPoints(p *messages.Checkpoint) {
	j.pointing.Lock()
	loose := j.loose
	j.loose = nil
	j.pointing.Unlock()
	for _, name := range loose {
		j.dropPoint(name)
	}
	j.dropPoint(p.Name)
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
//
// What cannot be read now is no fault of the job's: the attempt ends, does not count, and
// the job is begun again, here or elsewhere.
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
	got, err := pointReader{
		get: func() (io.ReadCloser, error) {
			store, err := j.a.jobs.checkpoints(ctx)
			if err != nil {
				return nil, err
			}
			got, err := openPoint(ctx, store, p.Name)
			if err != nil {
				j.a.jobs.forgetCheckpoints() // its bucket may have been deleted: it is made again
				return nil, err
			}
			return got, nil
		},
		there: func() (bool, error) {
			limit, cancel := j.a.apiContext(ctx, apiTime)
			defer cancel()
			return j.a.bus.CheckpointThere(limit, p.Name)
		},
		pause: func() { sleep(ctx, storePause, j.a.reconnected.next()) },
	}.read(ctx)
	switch {
	case err != nil:
		bad := messages.Errorf(messages.CodeUnavailable, "checkpoint %d of job %s (%d bytes, attempt %d) cannot be read: %v", p.Number, e.req.ID, p.Size, p.Attempt, err)
		if ctx.Err() == nil {
			j.lose(bad)
		}
		return nil, bad
	case got == nil:
		// Its bucket was lost. To fail for ever would lose the job too.
		text := fmt.Sprintf("checkpoint %d of job %s (%d bytes, attempt %d) is gone; the job begins from nothing", p.Number, e.req.ID, p.Size, p.Attempt)
		j.a.cfg.Logger.Warn(text)
		e.log(text)
		return nil, nil
	}
	return got, nil
}

// pointReader reads a checkpoint. Its fields act; what it decides is pure.
type pointReader struct {
	get   func() (io.ReadCloser, error) // from whatever server has a copy
	there func() (bool, error)          // whether the leader has it
	pause func()
}

// read returns the checkpoint; nil where it is gone. That a server does not have it says
// nothing: it may be behind. Only the leader's word counts; without it, and without a copy,
// the error is the last one.
func (r pointReader) read(ctx context.Context) (io.ReadCloser, error) {
	var last error
	for try := 0; try < restoreTries && ctx.Err() == nil; try++ {
		if try > 0 {
			r.pause()
		}
		got, err := r.get()
		if err == nil {
			return got, nil
		}
		last = err
		there, err := r.there()
		if err == nil && !there {
			return nil, nil
		}
		if err != nil {
			last = err
		}
	}
	if last == nil {
		last = ctx.Err()
	}
	return nil, last
}
