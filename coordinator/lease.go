package coordinator

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DefaultLeaseTTL is longer than a raft group needs to elect a leader after its own was
// killed (4 to 9 s): a shorter lease would unseat the coordinator whenever a NATS server
// dies. The price is that after a coordinator's death nothing is placed anew for up to
// ttl; requests do not notice.
const DefaultLeaseTTL = 10 * time.Second

// MinLeaseTTL: TTLs are whole seconds, and three renewals must fit into one.
const MinLeaseTTL = 2 * time.Second

// tenure is what a leader knows of its own lease, on its own monotonic clock. It is pure.
//
//   - It renews every ttl/10, so that nearly all of ttl is left when the servers stop
//     answering: with the default of 10 s an election of up to 7 s is survived, which the
//     measured 4 to 7 s are. One that takes longer costs an election here too, and that
//     moves nothing.
//   - One try may take ttl/5: what a server without a leader dropped is never answered,
//     and must be asked again while there is time.
//   - It stops acting at ttl − margin, counted from before the renewal was sent: the
//     server cannot let the lease expire earlier than ttl after that. The margin, a sixth
//     of ttl, is for what is already on its way to an agent.
type tenure struct {
	ttl    time.Duration
	proven time.Time // before the last renewal that is known to have worked was sent
}

func (t tenure) renewAt() time.Time { return t.proven.Add(t.ttl / 10) }
func (t tenure) stopAt() time.Time  { return t.proven.Add(t.ttl - t.ttl/6) }

// tryUntil is when a renewal that begins at now is given up; retryAfter is the pause
// before the next.
func (t tenure) tryUntil(now time.Time) time.Time {
	if end := now.Add(t.ttl / 5); end.Before(t.stopAt()) {
		return end
	}
	return t.stopAt()
}
func (t tenure) retryAfter() time.Duration { return t.ttl / 20 }

// mayAct reports whether at now nobody else can hold the lease.
func (t tenure) mayAct(now time.Time) bool { return now.Before(t.stopAt()) }

// lease acquires and keeps the lease.
type lease struct {
	bus    *bus.Bus
	holder string
	ttl    time.Duration
	kv     bus.KV
	rev    uint64 // of the last write that is known to be ours
}

// errHeld says that somebody else holds the lease. errUnheard says that a write of ours
// was stored without our hearing of it: when is not known, so it proves nothing.
var (
	errHeld    = errors.New("somebody else holds the lease")
	errUnheard = errors.New("an earlier write of ours was stored unheard")
)

// acquire tries to take the lease. The term is its revision.
func (l *lease) acquire(ctx context.Context) (messages.Term, tenure, error) {
	kv, err := l.bus.KV(ctx, bus.LeaseKV)
	if err != nil {
		return messages.Term{}, tenure{}, err
	}
	l.kv = kv
	data, err := l.entry()
	if err != nil {
		return messages.Term{}, tenure{}, err
	}
	before := time.Now()
	rev, err := kv.Create(ctx, bus.KeyLeader, data, jetstream.KeyTTL(l.ttl))
	if errors.Is(err, jetstream.ErrKeyExists) {
		return messages.Term{}, tenure{}, cmp.Or(l.dropOwn(ctx), errHeld)
	}
	if err != nil {
		// Whether it was written is not known. A lease that we do not know to have is one that
		// we do not have: the next try drops it, or it expires.
		return messages.Term{}, tenure{}, bus.Explain(err, "take the lease")
	}
	l.rev = rev
	return messages.Term{Epoch: kv.Epoch, Revision: rev}, tenure{ttl: l.ttl, proven: before}, nil
}

// dropOwn removes a lease that is ours by name but that we do not act under: one that a
// try stored unheard, or that we stepped down from. Otherwise nobody would lead until it
// expires. It returns errHeld where it is somebody else's, and nil where it is gone.
func (l *lease) dropOwn(ctx context.Context) error {
	e, err := l.kv.Get(ctx, bus.KeyLeader)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil // it has just expired; the next try may have it
	}
	if err != nil {
		return bus.Explain(err, "read the lease")
	}
	if !l.ours(e) {
		return errHeld
	}
	return bus.Explain(l.kv.Delete(ctx, bus.KeyLeader, jetstream.LastRevision(e.Revision())), "drop an old lease of ours")
}

// entry is what stands in the bucket while we hold the lease.
func (l *lease) entry() ([]byte, error) {
	return messages.Encode(&messages.Lease{Holder: l.holder, TTL: int(l.ttl / time.Second)})
}

// write stores the lease as ours behind a revision. kv.Update would drop the key's TTL,
// so it is a publish to the key's subject, with the TTL and with the revision that it
// must follow.
func (l *lease) write(ctx context.Context, follows uint64) (uint64, error) {
	data, err := l.entry()
	if err != nil {
		return 0, err
	}
	m := &nats.Msg{Subject: bus.BucketSubject(l.bus.Fleet, bus.LeaseKV, bus.KeyLeader), Data: data, Header: nats.Header{}}
	m.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(int64(l.ttl/time.Second), 10)+"s")
	ack, err := l.bus.JS.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(follows), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// seize takes a lease whose holder has not renewed it for all of its ttl; see heir. The
// write follows the revision that was not renewed, so it fails if the holder lives after
// all, and the holder's next renewal fails if it does not.
func (l *lease) seize(ctx context.Context, from sight) (messages.Term, tenure, error) {
	kv, err := l.bus.KV(ctx, bus.LeaseKV)
	if err != nil {
		return messages.Term{}, tenure{}, err
	}
	l.kv = kv
	if kv.Epoch != from.epoch {
		return messages.Term{}, tenure{}, errHeld // another bucket, whose revisions say nothing of that lease
	}
	before := time.Now()
	rev, err := l.write(ctx, from.rev)
	if err != nil {
		if err = bus.Explain(err, "take the lease over"); messages.CodeOf(err) == messages.CodeConflict {
			err = errHeld
		}
		return messages.Term{}, tenure{}, err
	}
	l.rev = rev
	return messages.Term{Epoch: kv.Epoch, Revision: rev}, tenure{ttl: l.ttl, proven: before}, nil
}

func (l *lease) ours(e jetstream.KeyValueEntry) bool {
	var held messages.Lease
	return messages.Decode(e.Value(), &held) == nil && held.Holder == l.holder
}

// renew extends the lease. errHeld says that the lease is lost for good; any other error
// leaves it open.
func (l *lease) renew(ctx context.Context) error {
	rev, err := l.write(ctx, l.rev)
	if err == nil {
		l.rev = rev
		return nil
	}
	// This renewal, or the one before it, may have arrived although its confirmation did
	// not: read the key back. Which of the two it was is not known, so it does not count;
	// the next renewal follows its revision, and does.
	e, getErr := l.kv.Get(ctx, bus.KeyLeader)
	switch {
	case errors.Is(getErr, jetstream.ErrKeyNotFound):
		return errHeld // it expired; whoever is first takes it
	case getErr != nil:
		return bus.Explain(err, "renew the lease")
	}
	if !l.ours(e) {
		return errHeld
	}
	if e.Revision() > l.rev { // a direct get may be older than what we know
		l.rev = e.Revision()
		return errUnheard
	}
	return bus.Explain(err, "renew the lease")
}

// release gives the lease back, so that another leads at once. A renewal may have been
// stored unheard, when its end came in the middle of one: then the key is read back.
func (l *lease) release(ctx context.Context) error {
	err := bus.Explain(l.kv.Delete(ctx, bus.KeyLeader, jetstream.LastRevision(l.rev)), "give the lease back")
	if messages.CodeOf(err) == messages.CodeConflict {
		return l.dropOwn(ctx)
	}
	return err
}
