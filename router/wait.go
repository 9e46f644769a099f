package router

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jobPoll is how often Wait reads the record itself. A watcher tells sooner; but its
// channel can close with a lost connection, and a server has room for only so many. A
// job takes seconds at least.
const jobPoll = time.Second

// Wait returns the record of a job when it has ended; see State, Code and Reason in it
// for how. Where ctx ends before, it returns what is known and an error; not_found says
// that there is no such job. Lost connections are waited out.
//
// onProgress, which may be nil, is called with the newest report of the job, by the
// goroutine that calls Wait; reports that come while it runs are skipped.
func (c *Client) Wait(ctx context.Context, id string, onProgress func(messages.Progress)) (messages.Job, error) {
	job, err := c.Job(ctx, id)
	if job.State.Ended() || err != nil && messages.CodeOf(err) != messages.CodeUnavailable {
		return job, err
	}
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	var changes <-chan jetstream.KeyValueEntry
	if w := c.watchJob(watching, unwatch, id); w != nil {
		defer func() { _ = w.Stop() }() // it fails only where the watcher is gone already
		changes = w.Updates()
	}
	return c.follow(ctx, id, onProgress, job, changes)
}

// follow waits for the end of a job: for a change of its record or the next look.
func (c *Client) follow(ctx context.Context, id string, onProgress func(messages.Progress), job messages.Job, changes <-chan jetstream.KeyValueEntry) (messages.Job, error) {
	reports, stop, err := c.progress(id, onProgress != nil)
	if err != nil {
		return job, err
	}
	defer stop()
	poll := time.NewTicker(jobPoll)
	defer poll.Stop()
	for {
		select {
		case p := <-reports:
			onProgress(p)
			continue
		case e, ok := <-changes:
			if !ok {
				changes = nil // the poll goes on
				continue
			}
			if e == nil {
				continue // all that was there has been told
			}
		case <-poll.C:
		case <-ctx.Done():
			return job, waited(ctx, id, job)
		case <-c.stopped:
			return job, c.ended()
		}
		now, err := c.Job(ctx, id)
		switch {
		case err == nil:
			if job = now; job.State.Ended() {
				return job, nil
			}
		case ctx.Err() != nil:
			return job, waited(ctx, id, job)
		case messages.CodeOf(err) != messages.CodeUnavailable:
			return job, err
		}
	}
}

func waited(ctx context.Context, id string, job messages.Job) *messages.Error {
	code := messages.CodeCanceled
	if ctx.Err() == context.DeadlineExceeded {
		code = messages.CodeDeadline
	}
	state := job.State
	if state == "" {
		state = messages.GoalUnknown
	}
	return messages.Errorf(code, "job %s is %s, attempt %d; it goes on: wait for it again", id, state, job.Attempt)
}

// progress subscribes to the reports of a job.
func (c *Client) progress(id string, wanted bool) (<-chan messages.Progress, func(), error) {
	if !wanted {
		return nil, func() {}, nil
	}
	s := c.bus.Subject(messages.KindProgress, "")
	s.ID = id
	reports := make(chan messages.Progress, 1)
	var subs subscriptions
	subs.add(c.nc, s.String(), func(m *nats.Msg) {
		var p messages.Progress
		if err := messages.Decode(m.Data, &p); err != nil {
			c.note("job", err)
			return
		}
		select {
		case <-reports: // the older one, which nobody has taken
		default:
		}
		reports <- p // this handler is the only writer, so there is room
	})
	if subs.err != nil {
		return nil, nil, bus.Explain(subs.err, "subscribe to the progress of job "+id)
	}
	return reports, subs.close, nil
}

// watchJob watches the record of a job until ctx ends; nil where that cannot be set up
// in time. giveUp ends ctx: a request whose answer got lost with a connection would hold
// Wait up, and the poll with it.
func (c *Client) watchJob(ctx context.Context, giveUp func(), id string) jetstream.KeyWatcher {
	timer := time.AfterFunc(jobTry, giveUp)
	defer timer.Stop()
	kv, err := c.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return nil
	}
	w, err := kv.Watch(ctx, id)
	if err != nil {
		return nil
	}
	return w
}
