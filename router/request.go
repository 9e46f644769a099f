package router

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nuid"
)

// Inference is a question to a model. Task and Body are needed, the rest is optional.
type Inference struct {
	Task        string
	Key         string        // of one key (a camera) only the newest observation counts; "": each does
	Body        []byte        // passed on byte for byte; not kept after the call
	ContentType string        // passed on
	Deadline    time.Duration // from now; 0: messages.Task.CallerDeadline
	Traceparent string        // W3C trace context, passed on
	ID          string        // a name, unique among all requests ever; "": one is made

	// Agent, where it is not "", is asked first, as long as it has a ready replica, and
	// straight, as a queue is taken from by whoever is free. With AgentOnly nobody else is
	// asked: requests of one session stay where its state is, or end as not_placed.
	Agent     string
	AgentOnly bool

	// OnPartial, where it is not nil, is called with every partial result and report of
	// progress, in order, by the goroutine that called Infer; it must return quickly. Parts of
	// an attempt that failed are not taken back: the next one begins with its first, and
	// Answer.Attempt says whose parts belong to the answer. Such a request is never sent to a
	// second replica because it is late.
	OnPartial func(Partial)
}

// Infer asks a model and returns its answer, or an [*messages.Error]:
//
//   - not_found, bad_request, payload_too_large: nothing was sent.
//   - not_placed, no_capacity: nobody serves it; the message says what would help.
//   - busy: with RetryAfter where it is known.
//   - superseded: a newer observation of the same key took its place.
//   - deadline_exceeded: no answer in time, whoever died or hung meanwhile.
//   - canceled: ctx was; whoever holds the request is told to drop it.
//   - what the handler itself answered, or backend_failed once every attempt failed.
//
// A deadline of ctx that is sooner than Deadline counts instead of it.
func (c *Client) Infer(ctx context.Context, in Inference) (*Answer, error) {
	return c.infer(ctx, c.origin, in, 0)
}

// infer is Infer for an origin. seq is the caller's own count within its key; 0 lets
// the client count.
func (c *Client) infer(ctx context.Context, origin string, in Inference, seq uint64) (*Answer, error) {
	start := time.Now()
	if in.ID == "" {
		in.ID = nuid.Next()
	}
	req := messages.Request{
		ID: in.ID, Class: messages.Inference, Task: in.Task, Origin: origin, Inbox: c.inbox, Attempt: 1,
		Key: in.Key, Seq: seq, ContentType: in.ContentType, Traceparent: in.Traceparent,
	}
	ans, err := c.ask(ctx, req, in, start)
	return c.end(req, ans, err)
}

// end reports the end of a request, and makes a nil error a nil interface.
func (c *Client) end(req messages.Request, ans *Answer, err *messages.Error) (*Answer, error) {
	e := TraceEvent{Kind: TraceDone, ID: req.ID, Class: req.Class, Task: req.Task, Key: req.Key}
	if err != nil {
		e.Code = err.Code
		c.trace(e)
		return nil, err
	}
	e.Agent, e.Attempt = ans.Agent, ans.Attempt
	c.trace(e)
	return ans, nil
}

func (c *Client) ask(ctx context.Context, req messages.Request, in Inference, start time.Time) (*Answer, *messages.Error) {
	r, bad := c.find(req.Task, messages.Inference)
	if bad != nil {
		return nil, bad
	}
	until, bad := limit(ctx, r.Task, start, in.Deadline)
	if bad != nil {
		return nil, bad
	}
	req.Stream = in.OnPartial != nil
	f := c.newFlight(req, in.Body, start, until)
	f.onPartial = in.OnPartial
	if bad := f.check(); bad != nil {
		return nil, bad
	}
	if req.Key != "" {
		t, bad := c.enter(ctx, f)
		if bad != nil {
			return nil, bad
		}
		defer c.leave(t)
		if r, bad = c.find(req.Task, messages.Inference); bad != nil {
			return nil, bad // the plan changed while it waited
		}
	}
	var room [4]string
	sites := route.AppendSites(room[:0], r, c.cfg.Site)
	if len(sites) == 0 {
		return nil, unplaced(r)
	}
	f.site = sites[0]
	p := route.Params{Task: req.Task, Deadline: until, Attempts: r.Task.Attempts(), Candidates: c.candidates(req.Task, until)}
	if in.Agent != "" {
		all := p.Candidates
		p.Candidates = func() []route.Candidate { return route.Prefer(all(), in.Agent, in.AgentOnly) }
		p.Patient = r.Task.Delivery != messages.Direct
	} else if r.Task.Delivery != messages.Direct {
		// It may wait like in a queue even where there is none: the queue is what its
		// owner chose, and the stream is what is missing.
		p.Patient = true
		now := time.Now()
		if p.Queue, bad = c.queueFor(r, sites, now, until.Sub(now)); bad != nil {
			return nil, bad
		}
		if p.Queue != "" {
			f.site = p.Queue
			p.Stuck = func() bool { return c.stuck(f.site, f.req.Task) }
		}
	}
	// Of one that is streamed the parts would come twice.
	late := r.Task.Idempotent && in.OnPartial == nil
	if late {
		c.tasks.hedge(req.Task, func(h *route.Hedge) { p.Hedge = h.After() })
		p.MayHedge = func() (ok bool) {
			c.tasks.hedge(req.Task, func(h *route.Hedge) { ok = h.Take() })
			return ok
		}
		if p.Queue != "" && p.Hedge > 0 {
			p.Hedge = max(p.Hedge, route.SuspectAfter) // until then nobody needs to have said that he has it
		}
	}
	f.queued, f.hedges = p.Queue != "", late
	f.infer.Init(p)
	f.machine = &f.infer
	return f.fly(ctx)
}

// Action is a command to a robot. All but ContentType, Traceparent, ID and Deadline is
// needed.
type Action struct {
	Robot       string // the agent
	Task        string
	Episode     string        // a name; the run of commands that Seq counts in
	Seq         uint64        // from 1; the robot refuses one that is not newer than the last
	Body        []byte        // passed on byte for byte; not kept after the call
	Deadline    time.Duration // from now, counted down on the robot's own clock; 0: messages.Task.CallerDeadline
	ContentType string
	Traceparent string
	ID          string // a name, unique among all requests ever; "": one is made

	// Queue lets the action wait in the journal, within its deadline, where the robot is not
	// connected or not ready: the robot takes it when it is back, whichever life of it that
	// is, if it is not older than its last release. Without it such an action ends at once.
	Queue bool

	OnPartial func(Partial) // as with Inference
}

// Act commands a robot, at most once, and returns the outcome, or an [*messages.Error]:
//
//   - not_connected, unavailable, canceled, deadline_exceeded, not_found, bad_request,
//     payload_too_large: it certainly did not run.
//   - stale, expired, busy, draining, stopped: the robot refused it; it did not run.
//   - unknown_outcome: it was sent and nobody knows, or it was ended while it ran, because
//     the robot was stopped; look before acting again. This includes a ctx that was
//     cancelled after it was sent.
//   - what the handler itself answered, or backend_failed: it was begun and failed.
//
// With Queue it may wait for the robot: then deadline_exceeded and canceled say that it was
// withdrawn from the journal before the robot took it.
//
// It is never sent again by itself.
func (c *Client) Act(ctx context.Context, act Action) (*Answer, error) {
	return c.act(ctx, c.origin, act, time.Now())
}

// act is Act for an origin, with a time that counts from start.
func (c *Client) act(ctx context.Context, origin string, act Action, start time.Time) (*Answer, error) {
	if act.ID == "" {
		act.ID = nuid.Next()
	}
	req := messages.Request{
		ID: act.ID, Class: messages.Action, Task: act.Task, Origin: origin, Inbox: c.inbox, Attempt: 1,
		Seq: act.Seq, Episode: act.Episode, Stream: act.OnPartial != nil, ContentType: act.ContentType, Traceparent: act.Traceparent,
	}
	ans, err := c.command(ctx, req, act, start)
	if act.Queue && err != nil && waits(err.Code) {
		ans, err = c.queueAction(ctx, req, act, start, err)
	}
	return c.end(req, ans, err)
}

func (c *Client) command(ctx context.Context, req messages.Request, act Action, start time.Time) (*Answer, *messages.Error) {
	robot := act.Robot
	if err := messages.CheckName("robot", robot); err != nil {
		return nil, messages.AsError(err, messages.CodeBadRequest)
	}
	r, bad := c.find(req.Task, messages.Action)
	if bad != nil {
		return nil, bad
	}
	until, bad := limit(ctx, r.Task, start, act.Deadline)
	if bad != nil {
		return nil, bad
	}
	to, bad := onRobot(r, robot)
	if bad != nil {
		return nil, bad
	}
	req.Inc = to.Inc
	f := c.newFlight(req, act.Body, start, until)
	f.site, f.agent, f.onPartial = to.Site, robot, act.OnPartial
	if bad := f.check(); bad != nil {
		return nil, bad
	}
	// Once per site and connection this makes the journal; then it only looks it up.
	journal, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if err := c.bus.Stream(journal, to.Site, messages.Action); err != nil {
		e := messages.AsError(err, messages.CodeUnavailable)
		return nil, messages.Errorf(e.Code, "action %s on %s: nothing was sent, because there is no journal: %s", req.Task, robot, e.Message)
	}
	f.machine = route.NewAction(route.ActionParams{Task: req.Task, Robot: robot, Site: to.Site, Inc: to.Inc, Deadline: until})
	return f.fly(ctx)
}

// onRobot returns the ready replica of an action's task on a robot.
func onRobot(r *messages.TaskRoute, robot string) (*messages.Route, *messages.Error) {
	var there *messages.Route
	for i := range r.Replicas {
		switch e := &r.Replicas[i]; {
		case e.Agent != robot:
		case e.State == messages.ReplicaReady:
			return e, nil
		default:
			there = e
		}
	}
	if there != nil {
		return nil, messages.Errorf(messages.CodeNotConnected, "action %s: %s on robot %s is %s, not ready; it did not run", r.Task.Name, there.ID, robot, there.State)
	}
	why := ""
	if r.Waiting != "" {
		why = ": " + r.Waiting
	}
	return nil, messages.Errorf(messages.CodeNotConnected, "action %s: no replica of it is on robot %s%s; it did not run", r.Task.Name, robot, why)
}

// limit returns when a request's time is over. A context that has ended already ends the
// request before anything is sent.
func limit(ctx context.Context, t messages.Task, start time.Time, deadline time.Duration) (time.Time, *messages.Error) {
	switch ctx.Err() {
	case nil:
	case context.DeadlineExceeded:
		return time.Time{}, messages.Errorf(messages.CodeDeadline, "task %s: the caller's time was over before anything was sent", t.Name)
	default:
		return time.Time{}, messages.Errorf(messages.CodeCanceled, "task %s: the caller gave it up before anything was sent", t.Name)
	}
	if deadline < 0 || deadline > MaxDeadline {
		return time.Time{}, messages.Errorf(messages.CodeBadRequest, "deadline: found %v, allowed are 0 (the task's own) to %v", deadline, MaxDeadline)
	}
	if deadline == 0 {
		deadline = min(t.CallerDeadline(), MaxDeadline)
	}
	until := start.Add(deadline)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if !time.Now().Before(until) { // what it waited in a router's socket counts
		return until, messages.Errorf(messages.CodeDeadline, "task %s: its time of %v was over before anything was sent", t.Name, deadline)
	}
	return until, nil
}

// sizeMargin is what the headers of a later attempt may have more than those of the
// first: a longer number.
const sizeMargin = 16

// check refuses what is malformed or does not fit into a message, before anything is
// sent.
func (f *flight) check() *messages.Error {
	r := f.req
	r.Left = f.until.Sub(f.start)
	if err := r.Check(); err != nil {
		return messages.AsError(err, messages.CodeBadRequest)
	}
	return fits(f.c.nc.MaxPayload(), r, len(f.body))
}

// fits reports whether a body fits into a message beside its headers.
func fits(most int64, r messages.Request, body int) *messages.Error {
	// 4 kB are far more than the headers, which need not be made to know that.
	if most <= 0 || int64(body)+4096 < most {
		return nil
	}
	head := len("NATS/1.0\r\n\r\n") + sizeMargin
	for k, v := range r.Header() {
		head += len(k) + len(": \r\n") + len(v[0])
	}
	head += len("Nats-TTL: 86401s\r\n")
	if int64(body+head) <= most {
		return nil
	}
	return messages.Errorf(messages.CodePayloadTooLarge,
		"the body has %d bytes, allowed are %d (the server's max_payload of %d less %d for headers); raise max_payload (up to 8 MB), compress it, or send a reference",
		body, max(0, most-int64(head)), most, head)
}
