package mail

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// postsAtOnce is how many messages a peer sends at once for programs beside it.
const postsAtOnce = 64

// postTime bounds the sending of a message for a program: looking up, asking straight and
// storing, each within its own time.
const postTime = 3 * askTime

// servePosts sends what programs ask to be sent. Of one receiver they are sent in the order
// in which they came.
func (p *Peer) servePosts(ctx context.Context, posts <-chan *nats.Msg) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, postsAtOnce)
	queues := make(map[string]chan *nats.Msg) // by receiver
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-posts:
			s, err := messages.ParseSubject(m.Subject)
			if err != nil {
				p.bad.Note(p.cfg.Logger, "mail", err)
				continue
			}
			q := queues[s.Agent]
			if q == nil {
				if len(queues) >= intake {
					p.answer(m, messages.MailReply{Err: messages.Errorf(messages.CodeBusy, "this agent writes to %d receivers already", len(queues))})
					continue
				}
				q = make(chan *nats.Msg, postsAtOnce)
				queues[s.Agent] = q
				wg.Go(func() { p.servePostsTo(ctx, s.Agent, q, slots) })
			}
			select {
			case q <- m:
			default:
				p.answer(m, messages.MailReply{Err: &messages.Error{Code: messages.CodeBusy, RetryAfter: time.Second, Message: "messages to " + s.Agent + " come faster than they are sent; try again"}})
			}
		}
	}
}

func (p *Peer) servePostsTo(ctx context.Context, to string, posts <-chan *nats.Msg, slots chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-posts:
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			p.answer(m, p.post(ctx, to, m))
			<-slots
		}
	}
}

// post sends one message for a program.
func (p *Peer) post(ctx context.Context, to string, m *nats.Msg) messages.MailReply {
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	h := messages.Header(m.Header)
	if len(h[messages.HeaderID]) == 0 { // it need not name its message
		h = messages.Header{}
		for k, v := range m.Header {
			h[k] = v
		}
		h[messages.HeaderID] = []string{"x"}
	}
	mail, err := messages.ParseMail(h)
	if err != nil {
		p.bad.Note(p.cfg.Logger, "mail", err)
		return messages.MailReply{State: messages.MailRefused, Err: messages.AsError(err, messages.CodeBadRequest)}
	}
	l := Letter{To: to, Body: m.Data, ContentType: mail.ContentType, Traceparent: mail.Traceparent, ID: m.Header.Get(messages.HeaderID)}
	if mail.Left != messages.NoDeadline {
		l.Expires = mail.Left
	}
	r, err := p.Send(ctx, l)
	reply := messages.MailReply{ID: r.ID, State: r.State}
	if err != nil {
		if reply.Err = messages.AsError(err, messages.CodeInternal); reply.State == messages.MailExpired {
			reply.Err = nil // the state says it
		}
	}
	return reply
}

// pass is the handler of a peer that serves programs: it asks whichever listens. Where none
// does, the message waits.
func (p *Peer) pass(ctx context.Context, m *Message) error {
	s := p.own(messages.KindMailRead)
	s.Origin = m.From
	h := messages.Mail{ID: m.ID, Left: messages.NoDeadline, ContentType: m.ContentType, Traceparent: m.Traceparent}.Header()
	answer, err := p.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: s.String(), Header: nats.Header(h), Data: m.Body})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return messages.Errorf(messages.CodeNotConnected, "no program listens on %s; it waits", s)
	case err != nil:
		// It may have been read; it is asked again, and has the same id.
		return messages.Errorf(messages.CodeUnavailable, "the program on %s did not answer: %v", s, bus.Explain(err, "ask it"))
	}
	r, err := messages.ParseMailReply(messages.Header(answer.Header))
	if err != nil {
		return err
	}
	if r.Err != nil {
		return r.Err
	}
	return nil
}
