package router

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// waits reports whether an action that ended so did certainly not run because its robot
// was not there, or not ready: where its caller asked for that, it waits in the journal.
func waits(c messages.Code) bool {
	switch c {
	case messages.CodeNotConnected, messages.CodeNotPlaced, messages.CodeNoCapacity, messages.CodeDraining:
		return true
	}
	return false
}

// queueAction puts an action into the journal, to wait there for its robot. away is why it
// could not be sent.
func (c *Client) queueAction(ctx context.Context, req messages.Request, act Action, start time.Time, away *messages.Error) (*Answer, *messages.Error) {
	r, bad := c.find(req.Task, messages.Action)
	if bad != nil {
		return nil, bad
	}
	until, bad := limit(ctx, r.Task, start, act.Deadline)
	if bad != nil {
		return nil, bad
	}
	if left := time.Until(until); left <= route.QueueStore {
		return nil, messages.Errorf(away.Code, "%s; it was not queued, which takes more than %v and %v are left: allow more time", away.Message, route.QueueStore, left.Round(time.Millisecond))
	}
	journal, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	site, bad := c.siteOf(journal, r, act.Robot)
	if bad != nil {
		return nil, bad
	}
	if err := c.bus.Stream(journal, site, messages.Action); err != nil {
		e := messages.AsError(err, messages.CodeUnavailable)
		return nil, messages.Errorf(e.Code, "action %s on %s: it was not queued, because there is no journal: %s", req.Task, act.Robot, e.Message)
	}
	req.Inc = messages.Incarnation{} // whichever life of the robot returns
	f := c.newFlight(req, act.Body, start, until)
	f.site, f.agent, f.onPartial = site, act.Robot, act.OnPartial
	if bad := f.check(); bad != nil {
		return nil, bad
	}
	f.machine = route.NewQueued(route.ActionParams{Task: req.Task, Robot: act.Robot, Site: site, Deadline: until})
	return f.fly(ctx)
}

// siteOf returns where a robot is, or was: in the plan, else by its registration.
func (c *Client) siteOf(ctx context.Context, r *messages.TaskRoute, robot string) (string, *messages.Error) {
	for i := range r.Replicas {
		if r.Replicas[i].Agent == robot {
			return r.Replicas[i].Site, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, routesTimeout)
	defer cancel()
	kv, err := c.bus.JS.KeyValue(ctx, bus.BucketName(c.cfg.Fleet, bus.Agents))
	var entry jetstream.KeyValueEntry
	if err == nil {
		entry, err = kv.Get(ctx, robot)
	}
	if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrKeyNotFound) {
		return "", messages.Errorf(messages.CodeNotFound, "robot %s has never registered, so nothing can wait for it; check its name", robot)
	}
	var reg messages.Registration
	if err == nil {
		err = messages.Decode(entry.Value(), &reg)
	}
	if err != nil {
		e := messages.AsError(bus.Explain(err, "read the registration of robot "+robot), messages.CodeUnavailable)
		return "", messages.Errorf(e.Code, "the action was not queued: %s", e.Message)
	}
	return reg.Environment.Normal().Site, nil
}

func (f *flight) queuedSubject(e route.Effect) messages.Subject {
	s := f.c.bus.Subject(messages.KindQueued, e.Site)
	s.Agent, s.Origin, s.ID = e.Agent, f.req.Origin, f.req.ID
	return s
}

// writeQueued writes the action into the journal. Its time there counts from when the
// journal stores it, so what that may take is taken off.
func (f *flight) writeQueued(e route.Effect, now time.Time) {
	f.trace(TraceSent, "", e.Attempt, "")
	f.publishNow(f.message(f.queuedSubject(e), "q."+f.req.ID, e.Attempt, now.Add(route.QueueStore)), "queue the action")
}

// withdraw ends the wait of the action, unless its robot has ended it. Where the journal
// has not confirmed the action yet, the withdrawal follows it on the same way.
func (f *flight) withdraw(e route.Effect) {
	m := envelopes.Get().(*envelope)
	m.f, m.id = f, f.req.ID
	m.msg.Subject, m.msg.Reply = f.queuedSubject(e).String(), f.c.replies+"w."+f.req.ID
	m.msg.Header = nats.Header{messages.HeaderSettled: {messages.SettledWithdrawn}}
	if seq := f.queuedSeq; seq > 0 {
		m.msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(seq, 10)}
	}
	f.publishNow(m, "withdraw the action")
}

// publishNow publishes, or fails at once where there is no connection: what comes out of a
// client library's buffer after its time would be an accident.
func (f *flight) publishNow(m *envelope, what string) {
	m.what, m.failed, m.now = what, route.Event{Kind: route.PublishFailed}, true
	f.dispatch(m)
}

// wakeRobot tells the robot to look into the journal. It may be lost: a robot looks there
// by itself whenever it comes back, and what the journal confirmed before is found then.
func (f *flight) wakeRobot(e route.Effect) {
	s := f.c.bus.Subject(messages.KindWake, e.Site)
	s.Agent, s.Origin = e.Agent, f.req.Origin
	_ = f.c.nc.Publish(s.String(), nil)
}

// journaled takes in the journal's word on an action that waits, or on its withdrawal.
func (c *Client) journaled(f airborne, m *nats.Msg, withdrawal bool) {
	var seq uint64 // of the action
	post := func(kind route.EventKind, err error) {
		ev := route.Event{Kind: kind}
		if err != nil {
			ev.Err = messages.AsError(bus.Explain(err, "write into the journal of site "+f.site), messages.CodeUnavailable)
		}
		f.post(arrival{ev: ev, seq: seq})
	}
	if noResponders(m) {
		c.bus.Forget() // the next one makes the journal again
		post(route.PublishFailed, jetstream.ErrNoStreamResponse)
		return
	}
	var ack struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	err := json.Unmarshal(m.Data, &ack)
	switch {
	case err != nil || ack.Error == nil && ack.Seq == 0:
		c.note("puback", messages.Errorf(messages.CodeBadRequest, "the journal's answer cannot be read"))
	case withdrawal && ack.Error != nil && ack.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		post(route.Settled, nil)
	case ack.Error != nil:
		c.bus.Forget()
		post(route.PublishFailed, ack.Error)
	case withdrawal:
		post(route.Withdrawn, nil)
	default:
		seq = ack.Seq
		post(route.Published, nil)
	}
}
