package router

import (
	"context"
	"errors"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// actTries is how often the record of a job is read and written again that somebody else
// has changed in between.
const actTries = 5

// Cancel ends a job: one that waits is CANCELED when Cancel returns; one that runs is
// CANCELING, its handler is told, and Wait tells how it ended. A job that has ended
// otherwise is an error with code conflict, beside its record.
func (c *Client) Cancel(ctx context.Context, id string) (messages.Job, error) {
	job, err := c.change(ctx, id, func(job *messages.Job) error {
		switch job.State {
		case messages.GoalExecuting, messages.GoalCanceling:
			job.State = messages.GoalCanceling
			return nil
		case messages.GoalCanceled:
			return errUnchanged
		case messages.GoalSucceeded, messages.GoalAborted:
			return messages.Errorf(messages.CodeConflict, "job %s has ended already: it is %s", id, job.State)
		}
		job.State, job.Code, job.Reason, job.Pause = messages.GoalCanceled, messages.CodeCanceled, "canceled while it waited", 0
		return nil
	})
	if err != nil {
		return job, err
	}
	switch job.State {
	case messages.GoalCanceling:
		// It finds the record, too, within the time of a report of its lease.
		c.cancelAt(job.Site, job.Agent, c.origin, id)
	case messages.GoalCanceled:
		// Persist, then remove: where this fails a sweeper does it.
		ctx, cancel := context.WithTimeout(ctx, jobTry)
		defer cancel()
		w, err := c.work(ctx, workOf(job))
		if err == nil {
			err = c.bus.Remove(ctx, w)
		}
		if err != nil && messages.CodeOf(err) != messages.CodeNotFound {
			c.cfg.Logger.Debug("a canceled job still stands in its queue", "job", id, "error", err)
		}
	}
	return job, nil
}

// Redrive takes a job out of the dead letters: it is begun again, with as many attempts as
// it had at first, from its last checkpoint. The code is conflict for a job that is not
// ABORTED, not_found where its body is not kept any more.
func (c *Client) Redrive(ctx context.Context, id string) (messages.Job, error) {
	var w bus.Work
	wrote := 0
	job, err := c.change(ctx, id, func(job *messages.Job) (err error) {
		if err := redrivable(*job, wrote); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, jobTry)
		defer cancel()
		if w, err = c.work(limit, workOf(*job)); err != nil {
			if messages.CodeOf(err) == messages.CodeNotFound {
				return messages.Errorf(messages.CodeNotFound, "the body of job %s is not kept any more; submit it again under another key", id)
			}
			return err
		}
		job.State, job.Code, job.Reason, job.Pause = messages.GoalAccepted, "", "", 0
		job.Free, job.Redriven = job.Attempt, job.Redriven+1
		wrote = job.Redriven
		return nil
	})
	if err != nil {
		return job, err
	}
	// Persist, then send: a job that waits by its record and is in no queue is put there by
	// a sweeper. Whoever was first, its message is a newer one, and this one is refused.
	bad := c.try(ctx, "queue job "+id+" again", func(ctx context.Context) error { return c.bus.Renew(ctx, w, job.Attempt+1) })
	if bad != nil && bad.Code != messages.CodeConflict { // else a sweeper was first
		return job, bad
	}
	return job, nil
}

// redrivable returns nil where a job is to be redriven, and errUnchanged where it has been
// already: this call has tried to write so (wrote, how often it was redriven then), has
// heard nothing, and its write was stored, or somebody else's was. It is pure.
func redrivable(job messages.Job, wrote int) error {
	switch {
	case wrote > 0 && job.Redriven >= wrote:
		return errUnchanged
	case !job.Dead():
		return messages.Errorf(messages.CodeConflict, "job %s is %s; only jobs that are ABORTED can be redriven", job.ID, job.State)
	}
	return nil
}

// errUnchanged says that a record is as it should be.
var errUnchanged = errors.New("unchanged")

// change reads the record of a job and writes it as f leaves it, by compare-and-set.
func (c *Client) change(ctx context.Context, id string, f func(*messages.Job) error) (job messages.Job, err error) {
	if c.err != nil {
		return job, c.err
	}
	if err := messages.CheckName("job", id); err != nil {
		return job, err
	}
	limit, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	for n := 0; ; n++ {
		var rev uint64
		if bad := c.try(limit, "read job "+id, func(ctx context.Context) (err error) {
			job, rev, err = c.job(ctx, id)
			return err
		}); bad != nil {
			return job, bad
		}
		before := job
		if err := f(&job); err != nil {
			if errors.Is(err, errUnchanged) {
				err = nil
			}
			return before, err
		}
		bad := c.try(limit, "write job "+id, func(ctx context.Context) error {
			kv, err := c.bus.KV(ctx, bus.Jobs)
			if err != nil {
				return err
			}
			data, err := messages.Encode(&job)
			if err != nil {
				return err
			}
			_, err = kv.Update(ctx, id, data, rev)
			return err
		})
		if bad == nil {
			return job, nil
		}
		if bad.Code != messages.CodeConflict || n >= actTries {
			return before, bad
		}
	}
}

// workOf is where a job stands in its stream.
func workOf(job messages.Job) messages.Subject {
	return messages.Subject{Site: job.Site, Priority: job.Level(), Task: job.Task, Origin: job.Origin, ID: job.ID}
}
