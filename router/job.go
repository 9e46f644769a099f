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
// all does so in milliseconds. A job that is stored already is not stored again: its
// subject has one, or, where it has ended and was removed since, its id is known to the
// stream and it has a record, see publishJob. submitTime bounds all tries together where ctx does not;
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
	Site        string            // whose queue it goes into; "": the client's where the task is ready there, else the best replica's
	Priority    messages.Priority // "": normal
}

// Submit stores a job and returns its id. When it returns without an error the job is
// stored: it waits until an executor is there, and survives the death of every
// process. With a Key it may be called again, as often as one likes; that is how to go
// on after an error with code unavailable, which leaves open whether it was stored.
func (c *Client) Submit(ctx context.Context, job Job) (string, error) {
	id, err := c.submit(ctx, c.origin, job)
	if err != nil {
		return "", err
	}
	return id, nil
}

// submission is a job that is about to be submitted.
type submission struct {
	req      messages.Request
	site     string
	priority messages.Priority
	body     []byte
}

func (s submission) subject(b *bus.Bus) string {
	at := b.Subject(messages.KindJob, s.site)
	at.Priority, at.Task, at.Origin, at.ID = s.priority, s.req.Task, s.req.Origin, s.req.ID
	return at.String()
}

// prepare checks a job and says where it goes.
func (c *Client) prepare(origin string, job Job) (s submission, bad *messages.Error) {
	r, bad := c.find(job.Task, messages.Training)
	if bad != nil {
		return s, bad
	}
	s = submission{site: job.Site, priority: job.Priority, body: job.Body, req: messages.Request{
		ID: jobID(origin, job.Key), Class: messages.Training, Task: job.Task, Origin: origin, Attempt: 1,
		Left: messages.NoDeadline, Key: job.Key, ContentType: job.ContentType, Traceparent: job.Traceparent,
	}}
	if err := s.req.Check(); err != nil {
		return s, messages.AsError(err, messages.CodeBadRequest)
	}
	if s.priority == "" {
		s.priority = messages.Normal
	}
	if err := s.priority.Check("priority"); err != nil {
		return s, messages.AsError(err, messages.CodeBadRequest)
	}
	if s.site == "" {
		if s.site = route.Site(r, c.cfg.Site); s.site == "" {
			s.site = c.cfg.Site // nobody is ready yet: it waits where it was asked
		}
	} else if err := messages.CheckName("site", s.site); err != nil {
		return s, messages.AsError(err, messages.CodeBadRequest)
	}
	return s, fits(c.nc.MaxPayload(), s.req, len(job.Body))
}

func (c *Client) submit(ctx context.Context, origin string, job Job) (string, *messages.Error) {
	s, bad := c.prepare(origin, job)
	if bad != nil {
		return "", bad
	}
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	if job.Key != "" {
		known, bad := c.repeated(ctx, s)
		if known || bad != nil {
			return s.req.ID, bad
		}
	}
	if bad := c.publishJob(ctx, s, false); bad != nil {
		return "", bad
	}
	c.trace(TraceEvent{Kind: TraceSent, ID: s.req.ID, Class: messages.Training, Task: job.Task, Key: job.Key})
	return s.req.ID, nil
}

// repeated reports whether a job with a key was submitted before: it may have gone to
// another site, or have ended and left the queue.
func (c *Client) repeated(ctx context.Context, s submission) (bool, *messages.Error) {
	known, bad := c.known(ctx, s.req.ID)
	if bad != nil || known == nil {
		return false, bad
	}
	if known.Task != s.req.Task {
		return false, messages.Errorf(messages.CodeConflict, "job key %s: it names a job of task %s already, found task %s; take another key", s.req.Key, known.Task, s.req.Task)
	}
	return true, nil
}

// known returns the record of a job that was submitted before; nil where there is none.
func (c *Client) known(ctx context.Context, id string) (job *messages.Job, bad *messages.Error) {
	return job, c.try(ctx, "look for job "+id, func(ctx context.Context) error {
		found, _, err := c.job(ctx, id)
		switch messages.CodeOf(err) {
		case messages.CodeNotFound:
			return nil
		case "":
			job = &found
		}
		return err
	})
}

// jobID returns a new id, or the one that belongs to the caller's key.
func jobID(origin, key string) string {
	if key == "" {
		return nuid.Next()
	}
	sum := sha256.Sum256([]byte(origin + "." + key)) // neither name has a dot
	return "k" + hex.EncodeToString(sum[:16])
}

// The stream's words on a job that has not its place in the queue yet.
const (
	errInProcess = 10158 // a message of this id is being replicated; the client library has no name for it
	deduped      = 2 * time.Minute
)

// message is what stores a job, on the condition that its subject has none. The stream
// remembers the id of what it has stored for deduped, also where it was removed since.
func (c *Client) message(job submission) *nats.Msg {
	h := nats.Header(new(messages.Headers).Job(&job.req))
	h[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	h[jetstream.MsgIDHeader] = []string{job.req.ID}
	return &nats.Msg{Subject: job.subject(c.bus), Header: h, Data: job.body}
}

// publishJob stores a job, unless it is there already, waiting or running: a subject has
// one message, and it is stored on the condition that there is none. open says that it was
// published before, and that it is not known whether it was stored.
//
// A short job may have ended, and its message be gone, before its submitter has heard that
// it was stored. So nothing is published a second time before its record was looked for;
// and what is stored between the look and the message, the stream knows by its id.
func (c *Client) publishJob(ctx context.Context, job submission, open bool) *messages.Error {
	req, site := job.req, job.site
	m := c.message(job)
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	bad := c.try(ctx, "store job "+req.ID, func(ctx context.Context) error {
		if open {
			known, bad := c.repeated(ctx, job)
			if known {
				return nil
			}
			if bad != nil {
				return bad
			}
		}
		if err := c.bus.Stream(ctx, site, messages.Training); err != nil {
			return err
		}
		ack, err := c.bus.JS.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		if err == nil && ack.Duplicate {
			return c.storedBefore(ctx, job)
		}
		var api *jetstream.APIError
		if errors.As(err, &api) {
			switch api.ErrorCode {
			case jetstream.JSErrCodeStreamWrongLastSequence:
				return nil // it is there
			case jetstream.JSErrCodeStreamWrongLastSequenceConstant, errInProcess:
				open = true // it is being replicated, and may or may not get there
				return messages.Errorf(messages.CodeUnavailable, "store job %s: the same job is being stored already", req.ID)
			}
		}
		if err != nil {
			c.bus.Forget()
			absent := errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrReconnectBufExceeded)
			if !absent && !errors.As(err, &api) {
				open = true // no word in time: it may be stored
			}
		}
		return err
	})
	if bad == nil || !open || bad.Code != messages.CodeUnavailable {
		return bad
	}
	said := *bad
	said.Message += "; it may be stored all the same: ask for it, or submit it again under the same key"
	return &said
}

// storedBefore is called where the stream says that it has stored a job already: it waits,
// runs or has ended. Where neither it nor a record is there, somebody has deleted it.
func (c *Client) storedBefore(ctx context.Context, job submission) error {
	known, bad := c.repeated(ctx, job)
	if bad != nil {
		return bad
	}
	if !known {
		return messages.Errorf(messages.CodeConflict, "store job %s: it was stored before, and somebody has deleted it from its queue; submit it under another key, or %v after it was stored", job.req.ID, deduped)
	}
	return nil
}
