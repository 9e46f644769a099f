package mail

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail/order"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Letter is a message to be sent.
type Letter struct {
	To   string
	Site string // of the receiver; "": it is looked up
	Body []byte

	// Expires is how long it is good for, LeastExpiry or more; 0: as long as mail waits.
	Expires time.Duration

	// ID names the message: a second one of the same name to the same receiver is not handled
	// again. "": a new one.
	ID string

	ContentType, Traceparent string
}

// Receipt is what became of a message.
type Receipt struct {
	ID    string             `json:"id"`
	To    string             `json:"to"`
	Site  string             `json:"site"`
	State messages.MailState `json:"state"`

	// Until is when a message that waits expires, on this process's clock; zero: not known.
	Until time.Time `json:"-"`
}

// lane is the way to one receiver. One message at a time is on it.
type lane struct {
	busy chan struct{} // capacity 1
	seq  uint64
	life messages.Fence // that seq counts in
	way  order.Lane     // guarded by Peer.mu
	at   time.Time      // when it was looked up where the receiver is
}

// Send sends a message and returns what became of it: delivered, or waiting. An error says
// why it is neither: expired; what the receiver said where it refuses it, and then the state
// is refused; busy, where the receiver's box is full; not_found; unavailable, where it could not
// be stored, and it is not known that it was not: send it again under the same id.
func (p *Peer) Send(ctx context.Context, l Letter) (Receipt, error) {
	if l.ID == "" {
		l.ID = nuid.Next()
	}
	r := Receipt{ID: l.ID, To: l.To, Site: l.Site}
	if err := l.check(); err != nil {
		return r, err
	}
	if err := p.Ready(ctx); err != nil {
		return r, err
	}
	begun := time.Now()
	for {
		if l.Site == "" {
			site, err := p.lookUp(ctx, l.To)
			if err != nil {
				return r, err
			}
			r.Site = site
		}
		if r, err := p.sendIn(ctx, l, r, begun); !errors.Is(err, errMoved) {
			return r, err
		}
	}
}

// errMoved says that a receiver is in another site than it was.
var errMoved = errors.New("the receiver has moved to another site")

// sendIn is Send, where it is known in which site the receiver is.
func (p *Peer) sendIn(ctx context.Context, l Letter, r Receipt, begun time.Time) (Receipt, error) {
	ln := p.lane(address{r.Site, l.To})
	select { // in the order of the calls: the channel serves who came first
	case ln.busy <- struct{}{}:
		defer func() { <-ln.busy }()
	case <-ctx.Done():
		return r, bus.Explain(ctx.Err(), "send a message to "+l.To)
	}
	state, err := p.send(ctx, ln, l, r.Site, begun)
	r.State = state
	if state == messages.MailWaiting && l.Expires > 0 {
		r.Until = begun.Add(l.Expires)
	}
	return r, err
}

func (l Letter) check() error {
	if err := messages.CheckName("receiver", l.To); err != nil {
		return err
	}
	if err := messages.CheckName("id", l.ID); err != nil {
		return err
	}
	if l.Site != "" {
		if err := messages.CheckName("site", l.Site); err != nil {
			return err
		}
	}
	switch {
	case len(l.Body) > bus.MailBody:
		return messages.Errorf(messages.CodePayloadTooLarge, "a message to %s has %d bytes, allowed are %d; put it into the synced data, or send a reference", l.To, len(l.Body), bus.MailBody)
	case l.Expires != 0 && l.Expires < LeastExpiry:
		return messages.Errorf(messages.CodeBadRequest, "expires: found %v, allowed is %v or more; 0 is as long as mail waits", l.Expires, LeastExpiry)
	}
	return nil
}

// lookUp asks where a receiver is, or remembers.
func (p *Peer) lookUp(ctx context.Context, to string) (site string, err error) {
	p.mu.Lock()
	for at, ln := range p.lanes {
		// While messages wait there, the next ones go there too: they must not overtake.
		if at.name == to && (time.Since(ln.at) < time.Minute || ln.way.Way(time.Now()) == order.Store) {
			site = at.site
		}
	}
	p.mu.Unlock()
	if site != "" {
		return site, nil
	}
	err = p.b.Ask(ctx, askTime, func(ctx context.Context) error {
		site, err = p.site(ctx, to)
		return err
	})
	if err == nil {
		ln := p.lane(address{site, to})
		p.mu.Lock()
		ln.at = time.Now()
		p.mu.Unlock()
	}
	return site, err
}

func (p *Peer) lane(at address) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	ln := p.lanes[at]
	if ln == nil {
		ln = &lane{busy: make(chan struct{}, 1)}
		p.lanes[at] = ln
	}
	return ln
}

// send brings a message on its way. The lane is this call's.
func (p *Peer) send(ctx context.Context, ln *lane, l Letter, site string, begun time.Time) (messages.MailState, error) {
	number := func() messages.Mail {
		p.mu.Lock()
		life := p.life
		p.mu.Unlock()
		if ln.life != life {
			ln.life, ln.seq = life, 0
		}
		ln.seq++
		return messages.Mail{ID: l.ID, Life: life, Seq: ln.seq, ContentType: l.ContentType, Traceparent: l.Traceparent}
	}
	m := number()
	for renewed := false; ; {
		left, err := l.left(begun)
		if err != nil {
			return messages.MailExpired, err
		}
		m.Left = left
		p.mu.Lock()
		way := ln.way.Way(time.Now())
		p.mu.Unlock()
		switch way {
		case order.Ask:
			if err := p.findOut(ctx, ln, l.To, site); err != nil {
				return "", err
			}
			continue
		case order.Straight:
			reply, taken := p.straight(ctx, l, site, m)
			if ctx.Err() != nil && !taken {
				return "", bus.Explain(ctx.Err(), "send a message to "+l.To)
			}
			if taken && messages.CodeOf(faultOf(reply)) == messages.CodeStale && !renewed {
				// Another process of this name has sent since this one began: begin anew.
				renewed = true
				if err := p.newLife(ctx); err != nil {
					return "", err
				}
				m = number()
				continue
			}
			if taken {
				return reply.State, verdict(l, reply)
			}
			if err := p.stillThere(ctx, ln, l, site); err != nil {
				return "", err
			}
		}
		return p.store(ctx, ln, l, site, m, begun)
	}
}

// stillThere asks anew where a receiver is that does not answer: nobody would read a box
// that it has left.
func (p *Peer) stillThere(ctx context.Context, ln *lane, l Letter, site string) error {
	p.mu.Lock()
	fresh := time.Since(ln.at) < straightTime
	p.mu.Unlock()
	if l.Site != "" || fresh {
		return nil
	}
	var now string
	err := p.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		now, err = p.site(ctx, l.To)
		return err
	})
	if err != nil || now == site {
		return nil //nolint:nilerr // where it cannot be asked, it is where it was
	}
	p.mu.Lock()
	ln.at = time.Time{}
	p.mu.Unlock()
	return errMoved
}

func faultOf(r messages.MailReply) error {
	if r.Err == nil {
		return nil
	}
	return r.Err
}

// left is how much time a message has.
func (l Letter) left(begun time.Time) (time.Duration, error) {
	if l.Expires == 0 {
		return messages.NoDeadline, nil
	}
	left := l.Expires - time.Since(begun)
	if left < time.Millisecond {
		return 0, messages.Errorf(messages.CodeExpired, "message %s to %s: its %v are over, and it was not handed over", l.ID, l.To, l.Expires)
	}
	return left, nil
}

// findOut asks whether messages of this sender wait for a receiver.
func (p *Peer) findOut(ctx context.Context, ln *lane, to, site string) error {
	var n uint64
	err := p.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		n, _, err = p.b.MailWaiting(ctx, site, to, p.cfg.Name)
		return err
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ln.way.Found(n > 0, time.Now())
	return nil
}

// straight asks the receiver itself. taken is false where it is not there, does not answer,
// or cannot take the message now.
func (p *Peer) straight(ctx context.Context, l Letter, site string, m messages.Mail) (reply messages.MailReply, taken bool) {
	ctx, cancel := context.WithTimeout(ctx, straightTime)
	defer cancel()
	s := p.b.Subject(messages.KindMail, site)
	s.Agent, s.Origin = l.To, p.cfg.Name
	answer, err := p.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: s.String(), Header: nats.Header(m.Header()), Data: l.Body})
	if err != nil {
		return reply, false
	}
	reply, err = messages.ParseMailReply(messages.Header(answer.Header))
	if err != nil {
		p.bad.Note(p.cfg.Logger, "mail", err)
		return reply, false
	}
	return reply, reply.State != ""
}

// verdict is the error that goes with a final state.
func verdict(l Letter, r messages.MailReply) error {
	switch r.State {
	case messages.MailExpired:
		return messages.Errorf(messages.CodeExpired, "message %s to %s expired before it was handled", l.ID, l.To)
	case messages.MailRefused:
		return r.Err
	}
	return nil
}

// store makes a message wait. Persist, then say so: the receiver is woken when it is stored.
func (p *Peer) store(ctx context.Context, ln *lane, l Letter, site string, m messages.Mail, begun time.Time) (messages.MailState, error) {
	s := p.b.Subject(messages.KindMailBox, site)
	s.Agent, s.Origin = l.To, p.cfg.Name
	var all uint64
	err := p.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		if err = p.b.Mail(ctx, site); err == nil {
			_, all, err = p.b.MailWaiting(ctx, site, l.To, "")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if all >= bus.MailAll {
		return "", &messages.Error{Code: messages.CodeBusy, RetryAfter: time.Second, Message: "the box of " + l.To + " is full: it takes about 4,000 messages; wait until it reads them, or let them expire"}
	}
	left, err := l.left(begun)
	if err != nil {
		return messages.MailExpired, err
	}
	m.Left = left
	p.mu.Lock()
	ln.way.Storing(l.ID, time.Now())
	p.mu.Unlock()
	keep := left
	if left == messages.NoDeadline {
		keep = 0
	}
	err = p.b.Ask(ctx, askTime, func(ctx context.Context) error {
		_, err := p.b.StoreMail(ctx, &nats.Msg{Subject: s.String(), Header: maps.Clone(nats.Header(m.Header())), Data: l.Body}, p.cfg.Name+"."+l.To+"."+l.ID, keep)
		return err
	})
	if err != nil {
		p.b.Forget()
		return "", err
	}
	s.Kind = messages.KindMailWake
	_ = p.nc.Publish(s.String(), nil) // a word that is lost costs a minute at most
	return messages.MailWaiting, nil
}

func isMissing(err error) bool { return errors.Is(err, jetstream.ErrKeyNotFound) }
