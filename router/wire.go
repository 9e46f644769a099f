package router

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What comes back on Client.replies, by the token after the prefix:
//
//	p.<id>                    the stream's word on request id
//	d.<id>.<attempt>.<agent>  the agent's word on what was sent to it straight
//	j.<id>                    the stream's word on job id
//	b.<seq>                   the agent's answer to a probe
//	q.<id>, w.<id>            the journal's word on an action that waits, or its withdrawal
//	c.<site>.<task>           the state of the queue of a task
//
// One subscription for all of them: one per request would cost more than the request.

// maxSubjects bounds a cache of subjects taken apart: agents times origins, or origins
// times tasks.
const maxSubjects = 4096

// subjectCache keeps subjects taken apart: most come again and again. It is for one
// goroutine.
type subjectCache struct{ all map[string]messages.Subject }

func newSubjectCache() *subjectCache {
	return &subjectCache{make(map[string]messages.Subject)}
}

func (c *subjectCache) parse(subject string) (messages.Subject, error) {
	s, ok := c.all[subject]
	if !ok {
		subject = strings.Clone(subject)
		var err error
		if s, err = messages.ParseSubject(subject); err != nil {
			return s, err
		}
		if len(c.all) >= maxSubjects {
			clear(c.all)
		}
		c.all[subject] = s
	}
	return s, nil
}

// noResponders reports whether m says that nobody listens on the subject.
func noResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && len(m.Header) > 0 && m.Header.Get("Status") == "503"
}

// message makes the message of a request that is sent now.
func (f *flight) message(subject messages.Subject, reply string, attempt int, now time.Time) *envelope {
	e := envelopes.Get().(*envelope)
	f.req.Attempt, f.req.Left = attempt, f.until.Sub(now)
	e.msg.Subject, e.msg.Reply, e.msg.Data = subject.String(), f.c.replies+reply, f.body
	e.msg.Header = nats.Header(e.headers.Request(subject, &f.req))
	e.f, e.id = f, f.req.ID
	return e
}

// enqueue puts an inference into the queue of a site. The answer of the stream comes
// back like every other; nobody waits for it before the result.
func (f *flight) enqueue(e route.Effect, now time.Time) {
	s := f.c.bus.Subject(messages.KindWork, e.Site)
	s.Class, s.Task, s.Origin, s.ID = f.req.Class, f.req.Task, f.req.Origin, f.req.Key
	if s.ID == "" {
		s.ID = f.req.ID
	}
	m := f.message(s, "p."+f.req.ID, e.Attempt, now)
	// Whole seconds, so it only sweeps up; the executor reckons the exact time itself.
	ttl := int64((f.until.Sub(now) + time.Second - 1) / time.Second)
	m.msg.Header[jetstream.MsgTTLHeader] = []string{strconv.FormatInt(ttl+1, 10) + "s"}
	f.publish(m, "queue the request")
}

// journal writes the intent of an action: persist, then send.
func (f *flight) journal(e route.Effect, now time.Time) {
	s := f.c.bus.Subject(messages.KindIntent, e.Site)
	s.Agent, s.Origin, s.ID = f.agent, f.req.Origin, f.req.ID
	f.publish(f.message(s, "p."+f.req.ID, e.Attempt, now), "write the intent")
}

func (f *flight) publish(m *envelope, what string) {
	m.what, m.failed, m.now = what, route.Event{Kind: route.PublishFailed}, false
	f.dispatch(m)
}

// dispatch sends a message: an action at once, an inference with those of others.
func (f *flight) dispatch(m *envelope) {
	if f.req.Class == messages.Inference {
		f.c.outbox.send(m)
	} else {
		f.c.outbox.sendNow(m)
	}
}

// direct sends a request straight to an agent.
func (f *flight) direct(e route.Effect, now time.Time) {
	switch e.Cause {
	case route.CauseNoAck:
		f.c.streams.failed(f.site, now)
	case route.CauseFirst:
		f.trace(TraceSent, e.Agent, e.Attempt, "")
	}
	kind := TraceDirect
	if e.Attempt > 1 {
		kind = TraceRetry
	}
	f.trace(kind, e.Agent, e.Attempt, e.Cause)
	s := f.c.bus.Subject(messages.KindDo, e.Site)
	s.Agent, s.Origin, s.Task = e.Agent, f.req.Origin, f.req.Task
	m := f.message(s, "d."+f.req.ID+"."+strconv.Itoa(e.Attempt)+"."+e.Agent, e.Attempt, now)
	m.what, m.failed, m.now = "send the request to agent "+e.Agent, route.Event{Kind: route.NoResponders, Agent: e.Agent, Attempt: e.Attempt}, true
	f.dispatch(m)
}

// cancelAt tells an agent to drop a request. Nobody waits for what it says.
func (c *Client) cancelAt(site, agent, origin, id string) {
	s := c.bus.Subject(messages.KindCancel, site)
	s.Agent, s.Origin = agent, origin
	data, err := messages.Encode(&messages.Probe{IDs: []string{id}})
	if err != nil {
		c.cfg.Logger.Error("a cancellation could not be encoded", "error", err)
		return
	}
	_ = c.nc.Publish(s.String(), data) // without a connection the deadline ends it there
}

// onResult takes in what agents publish for our requests: accepted and results.
func (c *Client) onResult(m *nats.Msg, subjects *subjectCache) {
	s, err := subjects.parse(m.Subject)
	if err != nil {
		c.note("res", err)
		return
	}
	r, err := messages.ParseReply(messages.Header(m.Header))
	if err != nil {
		c.note("res", err)
		return
	}
	// The subject is what the server lets an agent publish on; the header is its word.
	if r.Agent != "" && r.Agent != s.Agent {
		c.note("res", messages.Errorf(messages.CodeBadRequest, "agent %s signs as %s", s.Agent, r.Agent))
		return
	}
	if r.Job != "" {
		c.jobEnded(s, r, m.Data)
		return
	}
	if r.Attempt == 0 { // which is what its absence means here
		r.Attempt = 1
	}
	f, ok := c.flying(r.ID)
	if !ok {
		c.overtaken(s, r)
		return
	}
	if f.origin != s.Origin {
		c.note("res", messages.Errorf(messages.CodeBadRequest, "agent %s answers a request of another origin", s.Agent))
		return
	}
	f.heard(s.Agent, r, m)
}

// overtaken is for what comes after the end of its request.
func (c *Client) overtaken(s messages.Subject, r messages.Reply) {
	switch {
	case r.Kind == messages.ReplyAccepted:
		// It waited in the queue until now, and nobody wants it any more.
		c.cancelAt(s.Site, s.Agent, s.Origin, r.ID)
	case r.Kind == messages.ReplyResult && r.Err == nil:
		c.late.Add(1)
		c.trace(TraceEvent{Kind: TraceLate, ID: r.ID, Agent: s.Agent, Attempt: r.Attempt})
	}
}

// heard tells the flight what an agent says of it.
func (f airborne) heard(agent string, r messages.Reply, m *nats.Msg) {
	ev := route.Event{Agent: agent, Inc: r.Inc, Attempt: r.Attempt}
	switch r.Kind {
	case messages.ReplyAccepted:
		ev.Kind = route.Accepted
	case messages.ReplyResult:
		ev.Kind, ev.Err = route.Result, r.Err
	default:
		f.part(agent, arrival{msg: m, part: &r})
		return
	}
	f.post(arrival{ev: ev, msg: m, contentType: r.ContentType, service: r.Service, parts: r.Part})
}

// onReply takes in what comes back to a message of ours.
func (c *Client) onReply(m *nats.Msg) {
	kind, rest, _ := strings.Cut(m.Subject[len(c.replies):], ".")
	switch kind {
	case "p":
		if f, ok := c.flying(rest); ok {
			c.acked(f, m)
		}
	case "q", "w":
		if f, ok := c.flying(rest); ok {
			c.journaled(f, m, kind == "w")
		}
	case "d":
		if err := c.answered(rest, m); err != nil {
			c.note("do", err)
		}
	case "j":
		c.jobAcked(rest, m)
	case "b":
		if err := c.prober.answer(rest, m); err != nil {
			c.note("probe", err)
		}
	case "c":
		if err := c.backlog(rest, m); err != nil {
			c.note("queue", err)
		}
	default:
		c.note("reply", messages.Errorf(messages.CodeBadRequest, "a reply to nothing"))
	}
}

// acked takes in a stream's word on a message.
func (c *Client) acked(f airborne, m *nats.Msg) {
	fail := func(err error) {
		if f.class == messages.Inference {
			c.streams.failed(f.site, time.Now())
			c.streams.missing(f.site)
		} else {
			c.bus.Forget() // the next one makes the journal again
		}
		f.post(arrival{ev: route.Event{Kind: route.PublishFailed, Err: messages.AsError(bus.Explain(err, "store the request in site "+f.site), messages.CodeUnavailable)}})
	}
	if noResponders(m) {
		fail(jetstream.ErrNoStreamResponse)
		return
	}
	if bytes.Contains(m.Data, []byte(`"error"`)) {
		var refused struct {
			Error *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &refused); err == nil && refused.Error != nil {
			fail(refused.Error)
			return
		}
	}
	if !bytes.HasPrefix(m.Data, []byte("{")) {
		c.note("puback", messages.Errorf(messages.CodeBadRequest, "the stream's answer is no JSON object"))
		return
	}
	if f.class == messages.Inference {
		c.streams.works(f.site)
	}
	f.post(arrival{ev: route.Event{Kind: route.Published}})
}

// answered takes in an agent's first word on what was sent to it straight.
func (c *Client) answered(token string, m *nats.Msg) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return messages.Errorf(messages.CodeBadRequest, "reply %q is not to one of ours", token)
	}
	id, agent := parts[0], parts[2]
	attempt, err := strconv.Atoi(parts[1])
	if err != nil {
		return messages.Errorf(messages.CodeBadRequest, "reply %q is not to one of ours", token)
	}
	f, ok := c.flying(id)
	if noResponders(m) {
		c.prober.away(agent)
		c.unreached(agent)
		if ok {
			f.post(arrival{ev: route.Event{Kind: route.NoResponders, Agent: agent, Attempt: attempt}})
		}
		return nil
	}
	r, err := messages.ParseReply(messages.Header(m.Header))
	if err != nil {
		return err
	}
	if r.ID != id || r.Agent != "" && r.Agent != agent {
		return messages.Errorf(messages.CodeBadRequest, "agent %s answers for request %s as %s, asked was %s", agent, r.ID, r.Agent, id)
	}
	if r.Attempt == 0 {
		r.Attempt = attempt // it answers this very message
	}
	if ok {
		f.heard(agent, r, m)
	}
	return nil
}
