package mail

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// begin notes that this process has begun, which gives it the number of its life; it tries
// until that has worked, and reports false where ctx ended before.
func (p *Peer) begin(ctx context.Context) bool {
	said := ""
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := p.newLife(ctx)
		if err == nil {
			return true
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			p.cfg.Logger.Warn("mail cannot be sent yet; trying on", "name", p.cfg.Name, "error", err)
		}
		if !sleep(ctx, wait) {
			return false
		}
	}
}

// newLife begins another life of this sender: its messages are newer than all before, and
// count from 1.
func (p *Peer) newLife(ctx context.Context) error {
	header := messages.Header{messages.HeaderID: {p.token}}
	if p.cfg.Handler != nil {
		header[messages.HeaderKind] = []string{receives}
	}
	var life messages.Fence
	err := p.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		if err = p.b.Mail(ctx, p.cfg.Site); err == nil {
			life, err = p.b.NoteMail(ctx, p.lifeSubject(), header)
		}
		return err
	})
	if err != nil {
		p.b.Forget()
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life, p.note = life, life.Revision
	return nil
}

// keepNote keeps the note of this process fresh, and gives up where a newer process
// receives under its name, until ctx ends.
func (p *Peer) keepNote(ctx context.Context, stop context.CancelCauseFunc, back <-chan struct{}) {
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	var retry <-chan time.Time
	wait := retryFirst
	hints := 0 // looks that a rival's note is still good for
	for {
		look := true
		select {
		case <-ctx.Done():
			return
		case <-renew.C:
			look = false
		case <-back:
			wait = retryFirst
		case <-p.rival:
			hints, wait = rivalLooks, retryFirst
		case <-retry:
		}
		retry = nil
		var err error
		if look {
			err = p.compare(ctx, stop)
		} else {
			err = p.newLife(ctx)
		}
		// A rival's note passes here on its way to the store, so it may not be there yet.
		if hints > 0 && err == nil {
			hints--
		}
		if err != nil || hints > 0 {
			retry, wait = time.After(wait), min(2*wait, retryMost)
		}
	}
}

// compare reads who noted last that it receives under this name.
func (p *Peer) compare(ctx context.Context, stop context.CancelCauseFunc) error {
	if p.cfg.Handler == nil {
		return nil
	}
	var h messages.Header
	var seq uint64
	var ok bool
	err := p.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		h, seq, ok, err = p.b.Mailed(ctx, p.lifeSubject())
		return err
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	note := p.note
	p.mu.Unlock()
	id := ""
	if v := h[messages.HeaderID]; len(v) == 1 {
		id = v[0]
	}
	switch {
	case ok && id == p.token:
		return nil
	case ok && seq > note:
		if k := h[messages.HeaderKind]; len(k) == 1 && k[0] == receives {
			stop(messages.Errorf(messages.CodeConflict, "another process receives the mail of %q; two must not run under one name: stop one, or give it another name", p.cfg.Name))
		}
		return nil
	}
	return p.newLife(ctx) // the note is lost with its stream, or a server is behind
}

// Site asks where a receiver is. A name that nobody knows is an error with code not_found.
func (p *Peer) Site(ctx context.Context, name string) (site string, err error) {
	if err := messages.CheckName("receiver", name); err != nil {
		return "", err
	}
	if err := p.Ready(ctx); err != nil {
		return "", err
	}
	err = p.b.Ask(ctx, askTime, func(ctx context.Context) error {
		site, err = p.site(ctx, name)
		return err
	})
	return site, err
}

// site returns where a receiver is: where this site knows of its inbox, here, also while
// the site is cut off from the rest; else where its agent has registered.
func (p *Peer) site(ctx context.Context, name string) (string, error) {
	s := p.b.Subject(messages.KindMailLife, p.cfg.Site)
	s.Origin = name
	h, _, ok, err := p.b.Mailed(ctx, s)
	if err != nil {
		return "", err
	}
	if k := h[messages.HeaderKind]; ok && len(k) == 1 && k[0] == receives {
		return p.cfg.Site, nil
	}
	kv, err := p.b.KV(ctx, bus.Agents)
	if err != nil {
		return "", err
	}
	e, err := kv.Get(ctx, name)
	if isMissing(err) {
		return "", messages.Errorf(messages.CodeNotFound, "no agent %q has ever registered, and site %q knows of no inbox of that name; `fleetbus agents` lists the agents; to write to something else in another site name the site", name, p.cfg.Site)
	}
	if err != nil {
		return "", bus.Explain(err, "ask where "+name+" is")
	}
	var r messages.Registration
	if err := messages.Decode(e.Value(), &r); err != nil {
		return "", err
	}
	return r.Environment.Normal().Site, nil
}
