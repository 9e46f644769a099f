package agent_test

import (
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// BenchmarkDurable is a request through the queue to a handler that does nothing, one
// at a time; BenchmarkBare the same messages without an agent: publish, pull, result,
// acknowledge, with the pull in the acknowledgement. Their difference is what an agent
// costs.
func BenchmarkDurable(b *testing.B) {
	g := newRig(b)
	g.run("edge", nil, echo("noop"))
	g.alive("edge")
	g.place("edge", inference("noop"))
	c := g.caller("robot")
	subject := c.work("noop")
	req := c.request(messages.Inference, "noop")
	body := make([]byte, 128)
	warm := func() {
		req.ID = nuid.Next()
		if err := g.nc.PublishMsg(&nats.Msg{Subject: subject + req.ID, Header: nats.Header(req.Header()), Data: body}); err != nil {
			b.Fatal(err)
		}
		c.result()
	}
	warm()
	b.ReportAllocs()
	for b.Loop() {
		warm()
	}
}

func BenchmarkBare(b *testing.B) {
	g := newRig(b)
	if _, err := g.bus.Consumer(g.ctx(), site, messages.Inference, "noop"); err != nil {
		b.Fatal(err)
	}
	c := g.caller("robot")
	subject := c.work("noop")
	worker := g.s.Connect(b)
	inbox := worker.NewInbox()
	next := bus.PullRequest([]byte("+NXT "), 1, 0)
	if _, err := worker.Subscribe(inbox, func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		reply := messages.Reply{Kind: messages.ReplyResult, ID: m.Header.Get(messages.HeaderID)}
		_ = worker.PublishMsg(&nats.Msg{Subject: "fb.f.main.res.edge.robot." + c.inbox, Header: nats.Header(reply.Header()), Data: m.Data})
		_ = worker.PublishRequest(m.Reply, inbox, next)
	}); err != nil {
		b.Fatal(err)
	}
	if err := worker.PublishRequest(g.bus.PullSubject(site, messages.Inference, "noop"), inbox, bus.PullRequest(nil, 1, 0)); err != nil {
		b.Fatal(err)
	}
	req := c.request(messages.Inference, "noop")
	body := make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		req.ID = nuid.Next()
		if err := g.nc.PublishMsg(&nats.Msg{Subject: subject + req.ID, Header: nats.Header(req.Header()), Data: body}); err != nil {
			b.Fatal(err)
		}
		c.result()
	}
}

// work is the subject of requests to a task, up to the id.
func (c *caller) work(task string) string {
	s := c.bus.Subject(messages.KindWork, site)
	s.Class, s.Task, s.Origin, s.ID = messages.Inference, task, c.origin, "x"
	subject := s.String()
	return subject[:len(subject)-1]
}
