package router

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// How a job is stored and read. One request to JetStream is given up after jobTry and
// made again: a reply that was lost with a connection never comes, and what answers at
// all does so in milliseconds. What is stored twice by that is dropped: records by their
// key, work by its message id. submitTime bounds all tries together where ctx does not;
// it outlasts the election of a new leader (4 to 9 s).
const (
	jobTry     = 2 * time.Second
	submitTime = 15 * time.Second
)

// try calls f, each time with jobTry at most, until it succeeds, fails for a reason
// that does not pass, or ctx or the client ends. It returns f's last error.
func (c *Client) try(ctx context.Context, what string, f func(context.Context) error) *messages.Error {
	for {
		once, done := context.WithTimeout(ctx, jobTry)
		err := f(once)
		done()
		var api *jetstream.APIError
		refused := errors.As(err, &api) && api.Code != 503
		bad := messages.AsError(bus.Explain(err, what), messages.CodeUnavailable)
		if bad == nil || refused || bad.Code != messages.CodeUnavailable {
			return bad
		}
		select {
		case <-ctx.Done():
			return bad
		case <-c.stopped:
			return c.ended()
		case <-time.After(routesRetry):
		}
	}
}

// Job is a piece of training. Task and Body are needed.
type Job struct {
	Task        string
	Body        []byte // passed on byte for byte
	Key         string // the caller's own name of the job: submitting it again is the same job; "": each is a new one
	ContentType string
	Traceparent string
	Site        string // whose queue it goes into; "": the client's where the task is ready there, else the best replica's
}

// Submit stores a job and returns its id. When it returns without an error the job is
// on disk: it waits until an executor is there, and survives the death of every
// process. With a Key it may be called again, as often as one likes; that is how to go
// on after an error with code unavailable, which leaves open whether it was stored.
func (c *Client) Submit(ctx context.Context, job Job) (string, error) {
	id, err := c.submit(ctx, c.origin, job)
	if err != nil {
		return "", err
	}
	return id, nil
}

func (c *Client) submit(ctx context.Context, origin string, job Job) (string, *messages.Error) {
	r, bad := c.find(job.Task, messages.Training)
	if bad != nil {
		return "", bad
	}
	req := messages.Request{
		ID: jobID(origin, job.Key), Class: messages.Training, Task: job.Task, Origin: origin, Attempt: 1,
		Left: messages.NoDeadline, Key: job.Key, ContentType: job.ContentType, Traceparent: job.Traceparent,
	}
	if err := req.Check(); err != nil {
		return "", messages.AsError(err, messages.CodeBadRequest)
	}
	site := job.Site
	if site == "" {
		if site = route.Site(r, c.cfg.Site); site == "" {
			site = c.cfg.Site // nobody is ready yet: it waits where it was asked
		}
	} else if err := messages.CheckName("site", site); err != nil {
		return "", messages.AsError(err, messages.CodeBadRequest)
	}
	if bad := fits(c.nc.MaxPayload(), req, len(job.Body)); bad != nil {
		return "", bad
	}
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	var kv bus.KV
	var rev uint64
	fresh := false
	rec := messages.Job{ID: req.ID, Task: job.Task, Origin: origin, Site: site, State: messages.GoalAccepted, Created: time.Now().UTC()}
	if bad := c.try(ctx, "write the record of job "+rec.ID, func(ctx context.Context) (err error) {
		if kv, err = c.bus.KV(ctx, bus.Jobs); err == nil {
			rec, rev, fresh, err = record(ctx, kv, rec)
		}
		return err
	}); bad != nil {
		return "", bad
	}
	if rec.Task != job.Task {
		return "", messages.Errorf(messages.CodeConflict, "job key %s: it names a job of task %s already, found task %s; take another key", job.Key, rec.Task, job.Task)
	}
	if !fresh && (rec.State != messages.GoalAccepted || rec.Attempt > 0) {
		return rec.ID, nil // it runs, or has ended
	}
	// Persist the record, then the work. A record that waits may have lost its work (its
	// submitter died in between), so it is published in any case: the stream drops what
	// it has.
	certain, bad := c.publishJob(ctx, rec.Site, req, job.Body)
	if bad != nil {
		if certain && fresh {
			undo, done := context.WithTimeout(context.WithoutCancel(ctx), jobTry)
			defer done()
			if err := kv.Delete(undo, rec.ID, jetstream.LastRevision(rev)); err != nil {
				c.cfg.Logger.Warn("the record of a job that was not queued could not be removed", "job", rec.ID, "error", err)
			}
		}
		return "", bad
	}
	c.trace(TraceEvent{Kind: TraceSent, ID: rec.ID, Class: messages.Training, Task: job.Task, Key: job.Key})
	return rec.ID, nil
}

// jobID returns a new id, or the one that belongs to the caller's key.
func jobID(origin, key string) string {
	if key == "" {
		return nuid.Next()
	}
	sum := sha256.Sum256([]byte(origin + "." + key)) // neither name has a dot
	return "k" + hex.EncodeToString(sum[:16])
}

// record makes the record of a job, or returns the one that is there.
func record(ctx context.Context, kv bus.KV, job messages.Job) (messages.Job, uint64, bool, error) {
	data, err := messages.Encode(&job)
	if err != nil {
		return job, 0, false, err
	}
	rev, err := kv.Create(ctx, job.ID, data)
	if err == nil {
		return job, rev, true, nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return job, 0, false, err
	}
	old, err := readJob(ctx, kv, job.ID)
	if err != nil {
		return job, 0, false, err
	}
	return old, 0, false, nil
}

// publishJob puts the work into the queue, unless it is there already, waiting or
// running: the stream drops a second copy by its id for a while only, and by its subject
// for as long as the first is there. A job that waits for days may be submitted again
// every hour, and copies would be begun beside one another until its attempts are used up.
// certain says that after an error the queue certainly does not have it.
func (c *Client) publishJob(ctx context.Context, site string, req messages.Request, body []byte) (certain bool, bad *messages.Error) {
	s := c.bus.Subject(messages.KindWork, site)
	s.Class, s.Task, s.Origin, s.ID = messages.Training, req.Task, req.Origin, req.ID
	m := &nats.Msg{Subject: s.String(), Header: nats.Header(req.Header()), Data: body}
	m.Header[messages.HeaderMsgID] = []string{req.ID}
	certain = true
	bad = c.try(ctx, "queue job "+req.ID, func(ctx context.Context) error {
		if err := c.bus.Stream(ctx, site, messages.Training); err != nil {
			return err
		}
		_, err := c.bus.JS.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0), jetstream.WithExpectLastSequencePerSubject(0))
		var api *jetstream.APIError
		if errors.As(err, &api) {
			switch api.ErrorCode {
			case jetstream.JSErrCodeStreamWrongLastSequence:
				return nil // it is there
			case jetstream.JSErrCodeStreamWrongLastSequenceConstant:
				certain = false // it is being replicated, and may or may not get there
				return messages.Errorf(messages.CodeUnavailable, "queue job %s: the same job is being stored already", req.ID)
			}
		}
		if err != nil {
			c.bus.Forget()
			absent := errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrReconnectBufExceeded)
			if !absent && !errors.As(err, &api) {
				certain = false // no word in time: it may be stored
			}
		}
		return err
	})
	if bad == nil || certain {
		return certain, bad
	}
	open := *bad
	open.Message += "; it may be stored all the same: ask for it, or submit it again under the same key"
	return false, &open
}

func readJob(ctx context.Context, kv jetstream.KeyValue, id string) (messages.Job, error) {
	var job messages.Job
	entry, err := kv.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return job, messages.Errorf(messages.CodeNotFound, "job %s is not known; records are kept for 30 days after their last change", id)
	}
	if err != nil {
		return job, bus.Explain(err, "read job "+id)
	}
	if err := messages.Decode(entry.Value(), &job); err != nil {
		return job, messages.Errorf(messages.CodeInternal, "job %s: its record cannot be read: %v", id, err)
	}
	return job, nil
}

// Job returns the record of a job; code not_found where there is none, unavailable
// where it could not be read within two seconds.
func (c *Client) Job(ctx context.Context, id string) (messages.Job, error) {
	if c.err != nil {
		return messages.Job{}, c.err
	}
	if err := messages.CheckName("job", id); err != nil {
		return messages.Job{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, jobTry)
	defer cancel()
	kv, err := c.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return messages.Job{}, err
	}
	return readJob(ctx, kv, id)
}
