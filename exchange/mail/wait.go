package mail

import (
	"context"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// settled takes what a receiver says of a message that waited.
func (p *Peer) settled(at address, id string, r messages.MailReply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ln := p.lanes[at]; ln != nil {
		ln.way.Settled(id)
	}
	for _, w := range p.waits[id] {
		select {
		case w <- r:
		default: // it has one
		}
	}
}

// Wait waits for the end of a message that waits, and returns what became of it, with the
// errors of Send. An error with code unavailable or canceled says that this is not known;
// then the state is still waiting.
func (p *Peer) Wait(ctx context.Context, r Receipt) (Receipt, error) {
	if r.State != messages.MailWaiting {
		return r, nil
	}
	if err := p.Ready(ctx); err != nil {
		return r, err
	}
	heard := make(chan messages.MailReply, 1)
	p.mu.Lock()
	p.waits[r.ID] = append(p.waits[r.ID], heard)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waits[r.ID] = slices.DeleteFunc(p.waits[r.ID], func(c chan messages.MailReply) bool { return c == heard })
		if len(p.waits[r.ID]) == 0 {
			delete(p.waits, r.ID)
		}
	}()
	var over <-chan time.Time
	if !r.Until.IsZero() {
		// A handler that began at the last moment may take all of its time.
		t := time.NewTimer(time.Until(r.Until) + HandleTime + straightTime)
		defer t.Stop()
		over = t.C
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		p.mu.Lock()
		again := p.again
		p.mu.Unlock()
		select {
		case <-again: // what was said meanwhile was not heard
			look.Reset(0)
		case reply := <-heard:
			r.State = reply.State
			return r, verdict(Letter{ID: r.ID, To: r.To}, reply)
		case <-look.C:
			now, err := p.Status(ctx, r)
			if err == nil && now.State == messages.MailWaiting || messages.CodeOf(err) == messages.CodeUnavailable && ctx.Err() == nil {
				look.Reset(retryMost) // a receipt may be lost with the link
				continue
			}
			return now, err
		case <-over:
			now, err := p.Status(ctx, r)
			if err == nil && now.State == messages.MailWaiting {
				r.State = messages.MailExpired
				return r, verdict(Letter{ID: r.ID, To: r.To}, messages.MailReply{State: messages.MailExpired})
			}
			return now, err
		case <-ctx.Done():
			return r, bus.Explain(ctx.Err(), "wait for the end of message "+r.ID)
		}
	}
}

// Status asks what became of a message that waited, by its receiver, site and id: also one
// that another process sent under this name, within a week.
func (p *Peer) Status(ctx context.Context, r Receipt) (Receipt, error) {
	if err := p.Ready(ctx); err != nil {
		return r, err
	}
	s := p.b.Subject(messages.KindMailDone, r.Site)
	s.Agent, s.Origin, s.ID = r.To, p.cfg.Name, r.ID
	var h messages.Header
	var ok bool
	err := p.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		h, _, ok, err = p.b.Mailed(ctx, s)
		return err
	})
	if err != nil || !ok {
		r.State = messages.MailWaiting
		return r, err
	}
	reply, err := messages.ParseMailReply(h)
	if err != nil {
		return r, err
	}
	r.State = reply.State
	return r, verdict(Letter{ID: r.ID, To: r.To}, reply)
}
