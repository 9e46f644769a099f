package bus

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Times of reading what waits for a robot.
//
//   - queuedFetch bounds the wait for the next entries; they are there, so it takes
//     milliseconds, and its end means that the server does not answer.
//   - queuedLinger is how long the server keeps the consumer of a reader that went away.
//     Robots read when they come back, and are told when something new waits: so there is
//     no consumer per robot but for this long.
const (
	queuedFetch  = 2 * time.Second
	queuedLinger = 10 * time.Second
	queuedBatch  = 64
)

// Queued calls use with the last entry under the subject of every action that ever waited
// for a robot in a site's journal, the oldest first, until use fails: an action that still
// waits, or what settled it. A journal that was never made is empty.
func (b *Bus) Queued(ctx context.Context, site, robot string, use func(jetstream.Msg) error) error {
	s := b.Subject(messages.KindQueued, site)
	s.Agent = robot
	return b.lastOf(ctx, s, use)
}

// lastOf calls use with the last entry of the journal under every subject that s matches.
func (b *Bus) lastOf(ctx context.Context, s messages.Subject, use func(jetstream.Msg) error) error {
	name := StreamName(b.Fleet, s.Site, messages.Action)
	c, err := b.JS.CreateConsumer(ctx, name, jetstream.ConsumerConfig{
		Description:       "fleetbus: what waits for robot " + s.Agent,
		FilterSubject:     s.String(),
		DeliverPolicy:     jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: queuedLinger,
		MemoryStorage:     true,
		Replicas:          1, // it need not outlive its server: who reads begins again
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return Explain(err, "read what waits in journal "+name)
	}
	for left := int(c.CachedInfo().NumPending); left > 0; {
		batch, err := c.Fetch(min(left, queuedBatch), jetstream.FetchMaxWait(queuedFetch))
		if err != nil {
			return Explain(err, "read what waits in journal "+name)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			if err := use(m); err != nil {
				return err
			}
		}
		if left -= n; n == 0 && left > 0 {
			return messages.Errorf(messages.CodeUnavailable, "read what waits in journal %s: the server sent nothing within %v; trying on helps", name, queuedFetch)
		}
	}
	return nil
}

// Settle writes m, which ends an action that waits in the journal, on the condition that
// the action, whose sequence is seq, is the last entry under its subject. ok is false where
// somebody else has settled it; an error means that this is not known, and then it may be
// called again: m is recognised by its headers, if it was stored and only the answer lost.
func (b *Bus) Settle(ctx context.Context, m *nats.Msg, seq uint64) (ok bool, err error) {
	// Cloned: the client library adds headers of its own.
	out := &nats.Msg{Subject: m.Subject, Header: maps.Clone(m.Header)}
	_, err = b.JS.PublishMsg(ctx, out, jetstream.WithExpectLastSequencePerSubject(seq), jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	switch {
	case err == nil:
		return true, nil
	case !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence:
		return false, Explain(err, "settle an action that waited")
	}
	s, err := messages.ParseSubject(m.Subject)
	if err != nil {
		return false, err
	}
	err = b.lastOf(ctx, s, func(last jetstream.Msg) error {
		ok = true
		for k, v := range m.Header {
			ok = ok && slices.Equal(last.Headers()[k], v)
		}
		return nil
	})
	return ok, err
}
