package router

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Do submits a job and waits for its end, see [Client.Submit] and [Client.Wait]. Its
// executor tells this client of the end, so it takes no more messages than it must; where
// that word is lost, the record tells. Of a job that succeeded that way the record that is
// returned has no Created, Priority and History.
func (c *Client) Do(ctx context.Context, job Job, onProgress func(messages.Progress)) (messages.Job, error) {
	s, bad := c.prepare(c.origin, job)
	if bad != nil {
		return messages.Job{}, bad
	}
	if job.Key != "" {
		known, bad := c.repeated(ctx, s)
		if bad != nil {
			return messages.Job{}, bad
		}
		if known {
			return c.Wait(ctx, s.req.ID, onProgress)
		}
	}
	s.req.Inbox = c.inbox
	e := c.expectJob(s.req.ID)
	defer c.forgetJob(s.req.ID, e)
	reports, stop, err := c.progress(s.req.ID, onProgress != nil)
	if err != nil {
		return messages.Job{}, err
	}
	defer stop()

	// The stream's word and the executor's are waited for at once.
	stored := c.publishFirst(s) == nil
	open := stored // it was published, and the stream has said nothing yet
	waits := messages.Job{ID: s.req.ID, Task: job.Task, Origin: c.origin, Site: s.site, State: messages.GoalAccepted}
	for {
		if !stored {
			if bad := c.publishJob(ctx, s, open); bad != nil {
				return messages.Job{}, bad
			}
			stored, open = true, true
			e.stored.Store(true)
		}
		select {
		case end := <-e.end:
			if end.State == messages.GoalSucceeded {
				end.Task, end.Origin, end.Site = job.Task, c.origin, s.site
				return end, nil
			}
		case <-e.refused:
			c.bus.Forget()
			stored = false // or it is there: submitting it again tells
			continue
		case p := <-reports:
			onProgress(p)
			continue
		case <-e.look:
			if !e.stored.Load() {
				stored = false
				continue
			}
		case <-ctx.Done():
			return waits, waited(ctx, s.req.ID, waits)
		case <-c.stopped:
			return waits, c.ended()
		}
		now, err := c.Job(ctx, s.req.ID)
		switch {
		case err == nil:
			if waits = now; now.State.Ended() {
				return now, nil
			}
		case ctx.Err() != nil:
			return waits, waited(ctx, s.req.ID, waits)
		case messages.CodeOf(err) != messages.CodeUnavailable:
			return waits, err
		}
	}
}

// publishFirst publishes a job once, and waits for nothing.
func (c *Client) publishFirst(s submission) error {
	if !c.bus.Seen(s.site, messages.Training) {
		return nats.ErrNoStreamResponse // who makes the stream waits for that
	}
	m := c.message(s)
	m.Reply = c.replies + "j." + s.req.ID
	err := c.nc.PublishMsg(m)
	if err == nil {
		c.trace(TraceEvent{Kind: TraceSent, ID: s.req.ID, Class: messages.Training, Task: s.req.Task, Key: s.req.Key})
	}
	return err
}

// ends is who waits for the end of a job that this client has submitted, by its id: several
// may for one, by its key. One clock is enough for all: a timer for each would cost each
// short job.
type ends struct {
	mu sync.Mutex
	m  map[string][]*ending
}

type ending struct {
	since   time.Time
	end     chan messages.Job
	stored  atomic.Bool   // the stream has said so; nobody is woken for it
	refused chan struct{} // it has said otherwise
	look    chan struct{} // it is time to read the record
}

// expectJob is called before a job is submitted whose end is waited for; forgetJob after it.
func (c *Client) expectJob(id string) *ending {
	e := &ending{since: time.Now(), end: make(chan messages.Job, 1), refused: make(chan struct{}, 1), look: make(chan struct{}, 1)}
	c.ends.mu.Lock()
	defer c.ends.mu.Unlock()
	if c.ends.m == nil {
		c.ends.m = make(map[string][]*ending)
	}
	c.ends.m[id] = append(c.ends.m[id], e)
	return e
}

func (c *Client) forgetJob(id string, e *ending) {
	c.ends.mu.Lock()
	defer c.ends.mu.Unlock()
	all := slices.DeleteFunc(c.ends.m[id], func(x *ending) bool { return x == e })
	if c.ends.m[id] = all; len(all) == 0 {
		delete(c.ends.m, id)
	}
}

// remind has those look who have waited for a while, until ctx ends.
func (c *Client) remind(ctx context.Context) {
	tick := time.NewTicker(jobPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.ends.mu.Lock()
			for _, all := range c.ends.m {
				for _, e := range all {
					if now.Sub(e.since) >= jobPoll {
						wake(e.look)
					}
				}
			}
			c.ends.mu.Unlock()
		}
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// jobAcked takes in the stream's word on a job.
func (c *Client) jobAcked(id string, m *nats.Msg) {
	_, err := bus.PubAck(m)
	c.ends.mu.Lock()
	defer c.ends.mu.Unlock()
	for _, e := range c.ends.m[id] {
		switch {
		case err == nil:
			e.stored.Store(true)
		case !e.stored.Load(): // of two submissions of one job the stream may refuse one
			wake(e.refused)
		}
	}
}

// jobEnded takes in an executor's word that a job has ended. Of one that did not succeed
// the record says how.
func (c *Client) jobEnded(s messages.Subject, r messages.Reply, body []byte) {
	job := messages.Job{ID: r.Job, State: messages.GoalSucceeded, Attempt: r.Attempt, Agent: s.Agent, Result: body, Type: r.ContentType}
	if r.Err != nil {
		job.State = messages.GoalAborted
	}
	c.ends.mu.Lock()
	defer c.ends.mu.Unlock()
	for _, e := range c.ends.m[r.Job] {
		select {
		case e.end <- job:
		default:
		}
	}
}
