package main

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
)

// sendFlags are those of `fleetbus send`.
type sendFlags struct {
	body              bodyFlags
	from, id, toSite  string
	contentType       string
	expires, waitTime time.Duration
}

func sendCmd(a *app) *cobra.Command {
	var g sendFlags
	cmd := &cobra.Command{
		Use:   "send TO",
		Short: "Send a message to an environment, or whatever else has an inbox",
		Long: `Send a message. It is handed over at once where the receiver is there; else it is stored, and
waits until it is back, or expires. Messages of one sender arrive in order. Printed is what
became of it: delivered (its receiver has handled it) or waiting; with --wait, its end.

Where --from is an agent that runs in this site (--site) that agent sends it.`,
		Example: "  fleetbus send robot-2 --data 'aisle 4 is free' --expires 1m\n  fleetbus send robot-2 --from robot-1 --file plan.json --wait 10m",
		Args:    exactArgs("TO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := g.body.read(cmd)
			if err != nil {
				return err
			}
			if err := messages.CheckName("sender", g.from); err != nil {
				return usageError{err}
			}
			l := mail.Letter{To: args[0], Site: g.toSite, Body: body, Expires: g.expires, ID: g.id, ContentType: g.contentType}
			return a.send(cmd, g, l)
		},
	}
	g.body.define(cmd)
	f := cmd.Flags()
	f.StringVar(&g.from, "from", "cli", "`NAME` of the sender")
	f.StringVar(&g.id, "id", "", "`NAME` of the message: sent twice it is handled once (default a new one)")
	f.StringVar(&g.toSite, "to-site", "", "`SITE` of the receiver (default where its agent has registered)")
	f.StringVar(&g.contentType, "type", "", "content `TYPE`")
	f.DurationVar(&g.expires, "expires", 0, "how long it is good for, "+mail.LeastExpiry.String()+" or more (default a week)")
	f.DurationVar(&g.waitTime, "wait", 0, "where it is stored, wait `TIME` for its end")
	return cmd
}

func (a *app) send(cmd *cobra.Command, g sendFlags, l mail.Letter) error {
	open, cancel := a.within(cmd.Context())
	defer cancel()
	nc, err := a.connect(open, "fleetbus send", a.shortLog(cmd))
	if err != nil {
		return err
	}
	defer nc.Close()
	if l.ID == "" {
		l.ID = nuid.Next()
	}
	var r mail.Receipt
	posted := false
	if l.Site == "" {
		if r, posted, err = a.post(cmd.Context(), nc, g, l); err != nil {
			return err
		}
	}
	if posted && (r.State != messages.MailWaiting || g.waitTime == 0) {
		return a.printReceipt(cmd, r)
	}
	// A peer of its own sends, or knows what becomes of what waits.
	peer := mail.New(nc, mail.Config{Fleet: a.fleet, Site: a.site, Name: g.from, Logger: a.shortLog(cmd)})
	ctx, stop := context.WithCancel(cmd.Context())
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			a.shortLog(cmd).Warn("mail", "error", err)
		}
	}()
	if err := peer.Ready(open); err != nil {
		return err
	}
	if !posted {
		limit, done := context.WithTimeout(cmd.Context(), a.timeout+3*time.Second) // asking straight has 2 s of its own
		r, err = peer.Send(limit, l)
		done()
	} else {
		r.Site, err = peer.Site(open, l.To)
	}
	if err == nil && r.State == messages.MailWaiting && g.waitTime > 0 {
		limit, done := context.WithTimeout(cmd.Context(), g.waitTime)
		defer done()
		var end mail.Receipt
		if end, err = peer.Wait(limit, r); err != nil && limit.Err() != nil && cmd.Context().Err() == nil {
			err = messages.Errorf(messages.CodeDeadline, "message %s still waits for %s after %v; it goes on waiting", r.ID, r.To, g.waitTime)
		}
		r = end
	}
	if err != nil {
		return err
	}
	return a.printReceipt(cmd, r)
}

// post asks the agent of the sender to send; posted is false where none runs.
func (a *app) post(ctx context.Context, nc *nats.Conn, g sendFlags, l mail.Letter) (r mail.Receipt, posted bool, err error) {
	// An agent asks straight, for 2 s, and stores then, for 5 s each step.
	ctx, cancel := context.WithTimeout(ctx, a.timeout+15*time.Second)
	defer cancel()
	s := messages.Subject{Kind: messages.KindMailPost, Fleet: a.fleet, Site: a.site, Origin: g.from, Agent: l.To}
	if err := s.Check(); err != nil {
		return r, false, usageError{err}
	}
	m := messages.Mail{ID: l.ID, Left: messages.NoDeadline, ContentType: l.ContentType}
	if l.Expires != 0 {
		if l.Expires < mail.LeastExpiry {
			return r, false, usagef("--expires: found %v, allowed is %v or more", l.Expires, mail.LeastExpiry)
		}
		m.Left = l.Expires
	}
	answer, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: s.String(), Header: nats.Header(m.Header()), Data: l.Body})
	if errors.Is(err, nats.ErrNoResponders) {
		return r, false, nil
	}
	if err != nil {
		return r, true, bus.Explain(err, "send as "+g.from)
	}
	reply, err := messages.ParseMailReply(messages.Header(answer.Header))
	if err != nil {
		return r, true, err
	}
	r = mail.Receipt{ID: l.ID, To: l.To, State: reply.State}
	switch {
	case reply.Err != nil:
		return r, true, reply.Err
	case reply.State == messages.MailExpired:
		return r, true, messages.Errorf(messages.CodeExpired, "message %s to %s expired before it was handled", l.ID, l.To)
	}
	return r, true, nil
}

func (a *app) printReceipt(cmd *cobra.Command, r mail.Receipt) error {
	if a.json {
		return a.printJSON(cmd, r)
	}
	printf(cmd, "%s %s\n", r.ID, r.State)
	return nil
}

func inboxCmd(a *app) *cobra.Command {
	count := 0
	cmd := &cobra.Command{
		Use:   "inbox NAME",
		Short: "Print the messages for an agent, or for a name of your own, as they come",
		Long: `Print the messages for NAME, which is acknowledged to their senders. Where NAME is an agent
it gets them from the agent, which has to run; else it is an inbox of its own, to which
environments of this site (--site) can write. What came before waits, for a week.`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 0 {
				return usagef("--count: found %d, allowed is 0 (without end) or more", count)
			}
			if err := messages.CheckName("inbox", args[0]); err != nil {
				return usageError{err}
			}
			return a.inbox(cmd, args[0], count)
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "end after `N` messages (default without end)")
	return cmd
}

func (a *app) inbox(cmd *cobra.Command, name string, count int) error {
	open, cancel := a.within(cmd.Context())
	defer cancel()
	b, done, err := a.bus(open, a.shortLog(cmd))
	if err != nil {
		return err
	}
	defer done()
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	n := 0
	show := func(m *mail.Message) error { // called for one message after the other
		if count > 0 && n >= count {
			return messages.Errorf(messages.CodeUnavailable, "the inbox of %s has closed", name)
		}
		n++
		var err error
		if a.json {
			err = printLine(cmd, map[string]any{"from": m.From, "id": m.ID, "content_type": m.ContentType, "body": m.Body, "text": string(m.Body)})
		} else {
			printf(cmd, "%s: %s\n", m.From, m.Body)
		}
		if count > 0 && n >= count {
			stop()
		}
		return err
	}
	kv, err := b.KV(open, bus.Agents)
	if err != nil {
		return err
	}
	if _, err := kv.Get(open, name); err == nil {
		return a.readFrom(ctx, b, name, show)
	}
	notef(cmd, "%s is no agent: it has an inbox in site %s as long as this runs\n", name, a.site)
	err = mail.New(b.Conn, mail.Config{Fleet: a.fleet, Site: a.site, Name: name, Logger: a.shortLog(cmd),
		Handler: func(_ context.Context, m *mail.Message) error { return show(m) }}).Run(ctx)
	return err
}

// readFrom reads what an agent hands to its programs.
func (a *app) readFrom(ctx context.Context, b *bus.Bus, name string, show func(*mail.Message) error) error {
	s := b.Subject(messages.KindMailRead, "")
	s.Agent = name
	sub, err := b.Conn.QueueSubscribeSync(s.String(), "inbox") // of two that read one has each message
	if err != nil {
		return bus.Explain(err, "read the mail of "+name)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case err != nil:
			return bus.Explain(err, "read the mail of "+name)
		}
		at, err := messages.ParseSubject(m.Subject)
		if err != nil {
			continue
		}
		reply := messages.MailReply{ID: m.Header.Get(messages.HeaderID), State: messages.MailDelivered}
		if err := show(&mail.Message{From: at.Origin, ID: reply.ID, Body: m.Data, ContentType: m.Header.Get(messages.HeaderType)}); err != nil {
			reply.State, reply.Err = "", messages.AsError(err, messages.CodeUnavailable)
		}
		if err := m.RespondMsg(&nats.Msg{Header: nats.Header(reply.Header())}); err != nil {
			return bus.Explain(err, "acknowledge a message")
		}
		if err := b.Conn.FlushTimeout(a.timeout); err != nil { // before this process may end
			return bus.Explain(err, "acknowledge a message")
		}
	}
}
