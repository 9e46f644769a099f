package main

import (
	"context"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// replyHeader is where the hand-written executor of the queue publishes its answer: the
// reply subject of a stored message is the stream's.
const replyHeader = "Reply-To"

// bareSilence is after how long without a word the hand-written puller pulls again; the
// server says every second that a pull waits.
const bareSilence = bus.PullSilence

// barePuller is a pull loop as one writes it by hand, with the stream and the consumer
// that an agent would have: pull one, serve it, answer, acknowledge, pull the next.
func barePuller(ctx context.Context, nc *nats.Conn, w *worker) {
	b, err := bus.New(nc, bareFleet, 0)
	if err != nil {
		return
	}
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return
	}
	subject := b.PullSubject(benchSite, messages.Inference, benchTask)
	pull := func() {
		_ = nc.PublishRequest(subject, sub.Subject, bus.PullRequest(nil, 1, 0)) // silence tells
	}
	for ctx.Err() == nil {
		b.Forget()
		limit, done := context.WithTimeout(ctx, bareSilence)
		_, err := b.Consumer(limit, benchSite, messages.Inference, benchTask)
		done()
		if err != nil {
			continue
		}
		pull()
		for {
			limit, done := context.WithTimeout(ctx, bareSilence)
			m, err := sub.NextMsgWithContext(limit)
			done()
			if err != nil {
				break
			}
			if m.Reply == "" {
				if status := m.Header.Get("Status"); status == "408" {
					pull()
				} else if status != "100" {
					break
				}
				continue
			}
			if answer, err := w.serve(ctx, m.Data); err == nil {
				_ = nc.Publish(m.Header.Get(replyHeader), answer)
			}
			_ = m.Ack()
			pull()
		}
	}
}

// bareClient asks through the queue by hand: it publishes, waits for the PubAck, then
// for the answer.
type bareClient struct {
	bus  *bus.Bus
	base string
	wait chan *nats.Msg
}

func newBareClient(ctx context.Context, nc *nats.Conn) (*bareClient, error) {
	b, err := bus.New(nc, bareFleet, 0)
	if err != nil {
		return nil, err
	}
	if _, err := b.Consumer(ctx, benchSite, messages.Inference, benchTask); err != nil {
		return nil, err
	}
	c := &bareClient{bus: b, base: nc.NewInbox(), wait: make(chan *nats.Msg, 1024)}
	if _, err := nc.ChanSubscribe(c.base+".*", c.wait); err != nil {
		return nil, err
	}
	return c, nc.Flush()
}

// ask asks once; one goroutine at a time.
func (c *bareClient) ask(ctx context.Context, body []byte) ([]byte, error) {
	s := c.bus.Subject(messages.KindWork, benchSite)
	s.Class, s.Task, s.Origin, s.ID = messages.Inference, benchTask, benchOwner, nuid.Next()
	token := nuid.Next()
	m := &nats.Msg{Subject: s.String(), Header: nats.Header{replyHeader: {c.base + "." + token}}, Data: body}
	if _, err := c.bus.JS.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0)); err != nil {
		return nil, err
	}
	for {
		select {
		case m := <-c.wait:
			if strings.HasSuffix(m.Subject, token) { // else it is the answer to one that was given up
				return m.Data, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// bareDirect asks with core request-reply by hand.
func bareDirect(nc *nats.Conn) asker {
	return func(_ context.Context, body []byte) ([]byte, error) {
		m, err := nc.Request(bareSubject, body, askWithin)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	}
}

// askWithin is the deadline of every request that is measured.
const askWithin = 2 * time.Second
