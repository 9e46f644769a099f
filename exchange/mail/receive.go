package mail

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail/order"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// arrived is a message that came straight.
type arrived struct {
	m  *nats.Msg
	at time.Time
	// unseen is how long it may have lain where nobody sees it: in buffers of the server, of
	// the link, and in ours.
	unseen time.Duration
}

// ping asks the server again and again whether it hears this process. What comes after an
// answer was sent by the server after the question, so it is no older than that.
func (p *Peer) ping(ctx context.Context, pongs chan<- time.Time) {
	for {
		asked := time.Now()
		limit, cancel := context.WithTimeout(ctx, askTime)
		err := p.nc.FlushWithContext(limit)
		cancel()
		if err == nil {
			select {
			case pongs <- asked:
			case <-ctx.Done():
				return
			}
		}
		if !sleep(ctx, pingEvery) {
			return
		}
	}
}

// takeIn notes when messages arrive, none of which was sent before known. It never waits,
// so none lies unseen before it.
func (p *Peer) takeIn(ctx context.Context, known time.Time, now <-chan *nats.Msg, pongs <-chan time.Time, to chan<- arrived) {
	take := func(m *nats.Msg) {
		at := time.Now()
		select {
		case to <- arrived{m, at, at.Sub(known)}:
		default:
			p.answer(m, messages.MailReply{ID: m.Header.Get(messages.HeaderID), Err: messages.Errorf(messages.CodeBusy, "%d messages are to be handled before it; it waits", intake)})
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-now:
			take(m)
		case asked := <-pongs:
			// What came before the answer is here by now.
			for n := len(now); n > 0; n-- {
				take(<-now)
			}
			known = asked
		}
	}
}

func (p *Peer) answer(m *nats.Msg, r messages.MailReply) {
	if m.Reply == "" {
		return
	}
	if err := p.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(r.Header())}); err != nil {
		p.cfg.Logger.Debug("answer not sent", "message", r.ID, "error", err) // the sender stores it
	}
}

// handleStraight handles what came straight.
func (p *Peer) handleStraight(ctx context.Context, from <-chan arrived) {
	for {
		var a arrived
		select {
		case <-ctx.Done():
			return
		case a = <-from:
		}
		s, err := messages.ParseSubject(a.m.Subject)
		var m messages.Mail
		if err == nil {
			m, err = messages.ParseMail(messages.Header(a.m.Header))
		}
		if err != nil {
			p.bad.Note(p.cfg.Logger, "mail", err)
			p.answer(a.m, messages.MailReply{State: messages.MailRefused, Err: messages.AsError(err, messages.CodeBadRequest)})
			continue
		}
		left := m.Left
		if left != messages.NoDeadline {
			if left -= a.unseen + time.Since(a.at); left <= 0 {
				// Perhaps it is over. In the box its age is known for sure.
				p.answer(a.m, messages.MailReply{ID: m.ID, Err: messages.Errorf(messages.CodeBusy, "it may have lain on its way for too long")})
				continue
			}
		}
		state, fault := p.handle(ctx, s.Origin, m, a.m.Data, left, false)
		p.answer(a.m, messages.MailReply{ID: m.ID, State: state, Err: fault})
	}
}

// handle hands a message to the handler, unless that had it before. A state of "" says that
// the message cannot be taken now.
func (p *Peer) handle(ctx context.Context, from string, m messages.Mail, body []byte, left time.Duration, waited bool) (messages.MailState, *messages.Error) {
	p.handling.Lock()
	defer p.handling.Unlock()
	mark := order.Mark{ID: m.ID, Life: m.Life, Seq: m.Seq}
	switch verdict, fault := p.inbox.Judge(from, mark); {
	case verdict == order.Old:
		return messages.MailRefused, messages.Errorf(messages.CodeStale, "a newer message of %s was handled already", from)
	case verdict == order.Again && fault != nil:
		return messages.MailRefused, fault
	case verdict == order.Again:
		return messages.MailDelivered, nil
	}
	err := p.call(ctx, &Message{From: from, ID: m.ID, Body: body, ContentType: m.ContentType, Traceparent: m.Traceparent, Waited: waited}, min(left, HandleTime))
	fault := messages.AsError(err, messages.CodeBackendFailed)
	if fault != nil && (fault.Code.Advice() == messages.RetryHere || ctx.Err() != nil) {
		return "", fault
	}
	p.inbox.Done(from, mark, fault)
	if fault != nil {
		return messages.MailRefused, fault
	}
	return messages.MailDelivered, nil
}

// call calls the handler. A panic is its error.
func (p *Peer) call(ctx context.Context, m *Message, limit time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			p.cfg.Logger.Error("the handler of mail panicked", "from", m.From, "message", m.ID, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("the handler panicked: %v", r)
		}
	}()
	return p.cfg.Handler(ctx, m)
}

// drainBox handles what waits: when it begins, is told to, is connected again, and now and
// then.
func (p *Peer) drainBox(ctx context.Context) {
	wait, said := retryFirst, ""
	fresh := true // what a former life has handled is to be looked up
	for {
		again, err := p.drain(ctx, fresh)
		if ctx.Err() != nil {
			return
		}
		due := lookEvery - rand.N(lookEvery/10) // a fleet that was started at once does not look at once for ever
		switch {
		case err != nil:
			if text := err.Error(); text != said && p.nc.IsConnected() {
				said = text
				p.cfg.Logger.Warn("mail that waits is not read; trying on", "name", p.cfg.Name, "error", err)
			}
			fresh = true
			due, wait = wait, min(2*wait, retryMost)
		case again:
			due, wait, fresh = wait, min(2*wait, retryMost), false
		default:
			wait, said, fresh = retryFirst, "", false
		}
		t := time.NewTimer(due)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-p.wake:
			if again {
				// What cannot be taken now is not asked for more often because more comes.
				select {
				case <-t.C:
				case <-ctx.Done():
				}
			}
		}
		t.Stop()
	}
}

// Sizes of reading the box: a batch at a time, waiting for it no longer than fetchTime.
const (
	fetchBatch = 32
	fetchTime  = 2 * time.Second
)

// drain goes once through the box. again says that something is left in it, for later.
func (p *Peer) drain(ctx context.Context, fresh bool) (again bool, err error) {
	var c jetstream.Consumer
	var pending uint64
	err = p.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		if err = p.b.Mail(ctx, p.cfg.Site); err == nil {
			c, pending, err = p.b.Mailbox(ctx, p.cfg.Site, p.cfg.Name)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	defer func() {
		lerr := p.b.Ask(context.WithoutCancel(ctx), askTime, func(ctx context.Context) error { return p.b.LeaveMailbox(ctx, p.cfg.Site, p.cfg.Name) })
		if lerr != nil && err == nil && ctx.Err() == nil {
			err = lerr // the next one ends it, or it ends by itself
		}
	}()
	held := make(map[string]bool) // senders of whom one cannot be taken now: the next must not overtake it
	for left := int(min(pending, bus.MailAll*2)); left > 0 && ctx.Err() == nil; {
		batch, err := c.Fetch(min(left, fetchBatch), jetstream.FetchMaxWait(fetchTime))
		if err != nil {
			return false, bus.Explain(err, "read mail")
		}
		n := 0
		for m := range batch.Messages() {
			if n++; err == nil && ctx.Err() == nil {
				err = p.takeOut(ctx, m, held, fresh)
			}
		}
		if err == nil {
			err = batch.Error()
		}
		if err != nil {
			return false, bus.Explain(err, "read mail")
		}
		if left -= n; n == 0 {
			break // what was counted has expired
		}
	}
	return len(held) > 0, nil
}

// takeOut deals with one message out of the box: handle, then note what became of it, then
// acknowledge. Where the process dies in between, the next one finds the note, or handles it.
func (p *Peer) takeOut(ctx context.Context, jm jetstream.Msg, held map[string]bool, fresh bool) error {
	s, err := messages.ParseSubject(jm.Subject())
	if err != nil {
		p.bad.Note(p.cfg.Logger, "mail", err)
		return jm.Term()
	}
	if held[s.Origin] {
		return nil
	}
	m, err := messages.ParseMail(messages.Header(jm.Headers()))
	if err != nil {
		p.bad.Note(p.cfg.Logger, "mail", err)
		return jm.Term() // without an id nobody can be told
	}
	meta, err := jm.Metadata()
	if err != nil {
		return err
	}
	done := p.own(messages.KindMailDone)
	done.Origin, done.ID = s.Origin, m.ID
	if fresh {
		if noted, err := p.noted(ctx, done); err != nil || noted {
			return errors.Join(err, p.ackIf(ctx, jm, noted))
		}
	}
	left, err := p.leftOf(ctx, m, meta.Timestamp)
	if err != nil {
		return err
	}
	r := messages.MailReply{ID: m.ID, State: messages.MailExpired}
	if left > 0 {
		if r.State, r.Err = p.handle(ctx, s.Origin, m, jm.Data(), left, true); r.State == "" {
			held[s.Origin] = true
			return nil
		}
		if r.Err != nil && r.Err.Code == messages.CodeStale {
			if noted, err := p.noted(ctx, done); err != nil || noted {
				return errors.Join(err, p.ackIf(ctx, jm, noted)) // its acknowledgement was lost
			}
		}
	}
	// Also where this process is told to end: what was handled must not be handled again.
	ctx = context.WithoutCancel(ctx)
	err = p.b.Ask(ctx, askTime, func(ctx context.Context) error {
		_, err := p.b.NoteMail(ctx, done, r.Header())
		return err
	})
	return errors.Join(err, p.ackIf(ctx, jm, err == nil))
}

func (p *Peer) ackIf(ctx context.Context, jm jetstream.Msg, ok bool) error {
	if !ok {
		return nil
	}
	return p.b.Ask(ctx, askTime, jm.DoubleAck) // confirmed: an empty box means that all is handled
}

// noted reports whether it is known what became of a message.
func (p *Peer) noted(ctx context.Context, done messages.Subject) (ok bool, err error) {
	err = p.b.Ask(ctx, askTime, func(ctx context.Context) error {
		_, _, ok, err = p.b.Mailed(ctx, done)
		return err
	})
	return ok, err
}

// leftOf is how long a message that was stored is still good for.
func (p *Peer) leftOf(ctx context.Context, m messages.Mail, stored time.Time) (time.Duration, error) {
	if m.Left == messages.NoDeadline {
		return m.Left, nil
	}
	if p.clock.Due(time.Now()) {
		if err := p.b.Ask(ctx, askTime, func(ctx context.Context) error { return p.clock.SyncMail(ctx, p.b, p.cfg.Site) }); err != nil {
			return 0, err
		}
	}
	age, ok := p.clock.Age(stored, time.Now())
	if !ok {
		return 0, nil // unknown counts as over
	}
	return m.Left - age, nil
}
