package router

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// newestKey names a stream of observations. The origin is part of it because a Service
// has many.
type newestKey struct{ origin, task, key string }

// ticket is an observation's place in the stream of its key.
type ticket struct {
	key  newestKey
	turn chan bool // true: it may go; false: a newer one took its place
}

// enter waits until the observation may go, and returns its ticket, which must be given
// back with leave; or it ends superseded, or with its time, without having been sent.
func (c *Client) enter(ctx context.Context, f *flight) (*ticket, *messages.Error) {
	t := &ticket{key: newestKey{f.req.Origin, f.req.Task, f.req.Key}, turn: make(chan bool, 1)}
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return nil, c.ended()
	}
	if f.req.Seq == 0 && f.req.Origin == c.origin {
		f.req.Seq = c.nextSeq(time.Now())
	}
	start, replaced, ok := c.newest.Offer(t.key, t)
	c.mu.Unlock()
	if ok {
		replaced.turn <- false
	}
	if start {
		return t, nil
	}
	over := time.NewTimer(time.Until(f.until))
	defer over.Stop()
	var end *messages.Error
	select {
	case ours := <-t.turn:
		return c.turned(t, ours)
	case <-over.C:
		end = messages.Errorf(messages.CodeDeadline, "inference of task %s: its time of %v was over while an older observation of key %s was still on its way",
			f.req.Task, f.until.Sub(f.start).Round(time.Millisecond), f.req.Key)
	case <-ctx.Done():
		end = messages.Errorf(messages.CodeCanceled, "inference of task %s: the caller gave it up before it was sent", f.req.Task)
		if ctx.Err() == context.DeadlineExceeded {
			end.Code = messages.CodeDeadline
		}
	case <-c.stopped:
		end = c.ended()
	}
	c.mu.Lock()
	waited := c.newest.Withdraw(t.key, t)
	c.mu.Unlock()
	if !waited && <-t.turn {
		c.leave(t) // its turn came in the same moment
	}
	return nil, end
}

func (c *Client) turned(t *ticket, ours bool) (*ticket, *messages.Error) {
	if ours {
		return t, nil
	}
	return nil, messages.Errorf(messages.CodeSuperseded, "task %s: a newer observation of key %s took its place before it was sent", t.key.task, t.key.key)
}

// leave ends an observation's turn; the newest that waits goes next.
func (c *Client) leave(t *ticket) {
	c.mu.Lock()
	next, ok := c.newest.Done(t.key)
	c.mu.Unlock()
	if ok {
		next.turn <- true
	}
}

// nextSeq returns a number that grows with every observation of this process and of the
// one that follows it: executors refuse a smaller one of the same origin and key. So it
// is the time in microseconds, made to grow where the clock does not. c.mu is held.
//
// Hosts are not compared by it: one origin is one program. A Service, of which many may
// serve one origin on several hosts, counts only where the caller does.
func (c *Client) nextSeq(now time.Time) uint64 {
	c.lastSeq = max(c.lastSeq+1, uint64(max(0, now.UnixMicro())))
	return c.lastSeq
}
