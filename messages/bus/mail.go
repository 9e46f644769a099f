package bus

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of the mail that waits, per site.
//
//   - MailMost messages of one sender wait for a receiver, which the server sees to, and
//     MailAll of all senders, which they see to themselves: each asks before it stores, so
//     it may be a few more.
//   - MailBody bounds the body of a message that waits, bytes; what is larger is data
//     (package exchange/data), or a reference.
//   - mailBytes bounds all the mail of a site, so that it cannot fill the server's disk.
//   - MailAge is how long mail waits at most, and how long it is known what became of it.
const (
	MailMost  = 1_000
	MailAll   = 4_000
	MailBody  = 256 << 10
	MailAge   = 7 * 24 * time.Hour
	mailBytes = 512 << 20
)

// mailDedupe is how long the server drops a second copy of a message by itself. It is far
// longer than anybody tries to store one.
const mailDedupe = 10 * time.Minute

// Times of reading what waits for a receiver.
//
//   - mailLinger is how long its consumer outlives it: one per receiver that reads, and
//     none for those that are away, or have no mail.
//   - mailAckWait is longer than a batch of handlers takes as a rule; what comes again
//     although it was handled is known to have been.
const (
	mailLinger  = 10 * time.Second
	mailAckWait = time.Minute
)

// MailStreamName returns the name of the stream in which mail of a site waits.
func MailStreamName(fleet, site string) string { return "FB__" + fleet + "__" + site + "__mail" }

// MailedStreamName returns the name of the stream that keeps what became of mail that
// waited, and who has an inbox in a site.
func MailedStreamName(fleet, site string) string { return "FB__" + fleet + "__" + site + "__mailed" }

// Mail makes the streams of a site's mail where they are missing.
func (b *Bus) Mail(ctx context.Context, site string) error {
	if err := messages.CheckName("site", site); err != nil {
		return err
	}
	err := b.ensure(ctx, jetstream.StreamConfig{
		Name:        MailStreamName(b.Fleet, site),
		Description: "fleetbus: mail that waits for its receiver",
		Subjects:    []string{b.Subject(messages.KindMailBox, site).String()},
		// A message goes when its receiver has acknowledged it, and a full box refuses.
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
		Storage: jetstream.FileStorage, MaxMsgsPerSubject: MailMost, MaxBytes: mailBytes, MaxMsgSize: MailBody + 8<<10, MaxAge: MailAge,
		MaxConsumers: maxConsumers, Duplicates: mailDedupe, AllowMsgTTL: true,
	})
	if err != nil {
		return err
	}
	return b.ensure(ctx, jetstream.StreamConfig{
		Name:        MailedStreamName(b.Fleet, site),
		Description: "fleetbus: what became of mail that waited, and who has an inbox",
		Subjects:    []string{b.Subject(messages.KindMailDone, site).String(), b.Subject(messages.KindMailLife, site).String()},
		Storage:     jetstream.FileStorage, MaxMsgsPerSubject: 1, MaxMsgs: 1_000_000, MaxAge: MailAge,
		Discard: jetstream.DiscardOld, MaxConsumers: maxConsumers, AllowDirect: true,
	})
}

// MailWaiting returns how many messages wait for a receiver: of one sender, or of all where
// from is "". The leader of the stream answers.
func (b *Bus) MailWaiting(ctx context.Context, site, to, from string) (one, all uint64, err error) {
	s := b.Subject(messages.KindMailBox, site)
	s.Agent = to
	stream, err := b.JS.Stream(ctx, MailStreamName(b.Fleet, site))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, 0, nil
	}
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = stream.Info(ctx, jetstream.WithSubjectFilter(s.String()))
	}
	if err != nil {
		return 0, 0, Explain(err, "ask how much mail waits for "+to)
	}
	s.Origin = from
	for subject, n := range info.State.Subjects {
		all += n
		if subject == s.String() {
			one = n
		}
	}
	return one, all, nil
}

// StoreMail stores a message that waits. left is how long it is good for, 0 for as long as
// mail waits. again is true where the server has had it before. A box that is full is an
// error with code busy.
func (b *Bus) StoreMail(ctx context.Context, m *nats.Msg, id string, left time.Duration) (again bool, err error) {
	options := []jetstream.PublishOpt{jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0)}
	if left > 0 {
		// It only sweeps up: rounded up, and a second more than the receiver counts.
		options = append(options, jetstream.WithMsgTTL(time.Duration(math.Ceil(left.Seconds())+1)*time.Second))
	}
	ack, err := b.JS.PublishMsg(ctx, m, options...)
	var api *jetstream.APIError
	switch {
	case err == nil:
		return ack.Duplicate, nil
	case errors.As(err, &api) && strings.Contains(api.Description, "maximum"):
		return false, &messages.Error{Code: messages.CodeBusy, RetryAfter: time.Second, Message: "the box is full (" + api.Description +
			"): " + strconv.Itoa(MailMost) + " messages of one sender may wait for a receiver, and all of a site may have 512 MiB; wait until it reads them, or let them expire"}
	}
	return false, Explain(err, "store mail")
}

// Mailbox begins to read what waits for a receiver in its site, from the oldest, also what
// was read before and not acknowledged. pending is how much there is. End it with
// [Bus.LeaveMailbox].
func (b *Bus) Mailbox(ctx context.Context, site, name string) (c jetstream.Consumer, pending uint64, err error) {
	if err := b.LeaveMailbox(ctx, site, name); err != nil { // of a former life
		return nil, 0, err
	}
	s := b.Subject(messages.KindMailBox, site)
	s.Agent = name
	c, err = b.JS.CreateConsumer(ctx, MailStreamName(b.Fleet, site), jetstream.ConsumerConfig{
		// A name, so that a permission can tell one receiver's from another's.
		Name: name, Description: "fleetbus: mail of " + name, FilterSubject: s.String(),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: mailAckWait, MaxDeliver: -1, MaxAckPending: 2 * MailAll,
		InactiveThreshold: mailLinger, MemoryStorage: true,
	})
	if err != nil {
		b.Forget()
		return nil, 0, Explain(err, "read the mail of "+name)
	}
	return c, c.CachedInfo().NumPending, nil
}

// LeaveMailbox ends the reading of what waits for a receiver. What was not acknowledged
// waits on.
func (b *Bus) LeaveMailbox(ctx context.Context, site, name string) error {
	err := b.JS.DeleteConsumer(ctx, MailStreamName(b.Fleet, site), name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return Explain(err, "end reading the mail of "+name)
}

// Mailed returns the newest entry under a subject of [MailedStreamName]: what became of a
// message, or the life of a receiver. ok is false where there is none.
func (b *Bus) Mailed(ctx context.Context, s messages.Subject) (header messages.Header, seq uint64, ok bool, err error) {
	stream, err := b.JS.Stream(ctx, MailedStreamName(b.Fleet, s.Site))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, 0, false, nil
	}
	var m *jetstream.RawStreamMsg
	if err == nil {
		m, err = stream.GetLastMsgForSubject(ctx, s.String())
	}
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, Explain(err, "read "+s.String())
	}
	return messages.Header(m.Header), m.Sequence, true, nil
}

// NoteMail writes an entry that [Bus.Mailed] returns, and is confirmed to be stored. The
// fence is the creation time of the stream and the entry's sequence.
func (b *Bus) NoteMail(ctx context.Context, s messages.Subject, header messages.Header) (messages.Fence, error) {
	stream, err := b.JS.Stream(ctx, MailedStreamName(b.Fleet, s.Site))
	if err != nil {
		return messages.Fence{}, Explain(err, "write "+s.String())
	}
	ack, err := b.JS.PublishMsg(ctx, &nats.Msg{Subject: s.String(), Header: nats.Header(header)})
	if err != nil {
		return messages.Fence{}, Explain(err, "write "+s.String())
	}
	return messages.Fence{Epoch: stream.CachedInfo().Created.UnixNano(), Revision: ack.Sequence}, nil
}

// SyncMail is Sync through the stream of a site's mail.
func (c *Clock) SyncMail(ctx context.Context, b *Bus, site string) error {
	return c.sync(ctx, b, MailStreamName(b.Fleet, site))
}
