package vtime_test

import (
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

func open(t *testing.T, b *bus.Bus, bucket bus.Bucket) bus.KV {
	t.Helper()
	return must[bus.KV](t)(b.KV(within(t, 5*time.Second), bucket))
}

// A lease that is renewed lives; one that is not expires, its watchers learn of it,
// the next holder has a higher revision, and the old holder cannot renew any more.
func TestLeaseExpires(t *testing.T) {
	const ttl = 6 * time.Second
	bubble(t, func(t *testing.T, _ *natstest.Server, b *bus.Bus) {
		kv := open(t, b, bus.LeaseKV)
		first := must[uint64](t)(kv.Create(t.Context(), bus.KeyLeader, []byte("a"), jetstream.KeyTTL(ttl)))
		w := must[jetstream.KeyWatcher](t)(kv.Watch(t.Context(), bus.KeyLeader, jetstream.UpdatesOnly()))
		defer w.Stop()

		renew := func(who string, rev uint64) (uint64, error) {
			ack, err := b.JS.Publish(within(t, time.Second), bus.BucketSubject(fleet, bus.LeaseKV, bus.KeyLeader), []byte(who),
				jetstream.WithMsgTTL(ttl), jetstream.WithExpectLastSequencePerSubject(rev))
			if err != nil {
				return 0, bus.Explain(err, "renew the lease")
			}
			return ack.Sequence, nil
		}
		rev := first
		for range 30 { // a minute
			pass(2 * time.Second)
			rev = must[uint64](t)(renew("a", rev))
			if e := <-w.Updates(); e.Revision() != rev || e.Operation() != jetstream.KeyValuePut {
				t.Fatalf("watcher saw %v at %d, want the renewal at %d", e.Operation(), e.Revision(), rev)
			}
		}
		if _, err := kv.Create(t.Context(), bus.KeyLeader, []byte("b"), jetstream.KeyTTL(ttl)); !errors.Is(err, jetstream.ErrKeyExists) {
			t.Errorf("create on a held lease: error %v, want that it exists", err)
		}

		last := time.Now()
		if e := <-w.Updates(); e.Operation() == jetstream.KeyValuePut {
			t.Errorf("watcher saw %v, want the end of the lease", e.Operation())
		}
		if took := time.Since(last); took < ttl || took > ttl+2*time.Second {
			t.Errorf("the lease ended after %v, want %v to %v", took, ttl, ttl+2*time.Second)
		}
		if _, err := kv.Get(t.Context(), bus.KeyLeader); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("read after the end: error %v, want not found", err)
		}
		next := must[uint64](t)(kv.Create(t.Context(), bus.KeyLeader, []byte("b"), jetstream.KeyTTL(ttl)))
		if next <= rev {
			t.Errorf("the next holder's revision is %d, the last one was %d", next, rev)
		}
		if _, err := renew("a", rev); messages.CodeOf(err) != messages.CodeConflict {
			t.Errorf("the old holder renews: error %v, want a conflict", err)
		}
		if e := must[jetstream.KeyValueEntry](t)(kv.Get(t.Context(), bus.KeyLeader)); string(e.Value()) != "b" {
			t.Errorf("holder %q, want b", e.Value())
		}

		// The mark of an expired lease goes too, so that the bucket does not grow.
		pass(time.Minute)
		status := must[jetstream.KeyValueStatus](t)(kv.Status(t.Context()))
		if status.Values() != 0 {
			t.Errorf("%d messages in the bucket a minute after the last lease, want none", status.Values())
		}
	})
}

// A bucket that is lost and made again counts its revisions from 1, so its epoch has
// to be newer; a restart of the server loses nothing and changes nothing.
func TestEpochOfBucket(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		put := func() messages.Fence {
			kv := open(t, b, bus.Agents)
			return messages.Fence{Epoch: kv.Epoch, Revision: must[uint64](t)(kv.Put(t.Context(), "robot-1", nil))}
		}
		one, two := put(), put()
		if one.Epoch != two.Epoch || !one.Before(two) {
			t.Errorf("%v, then %v in the same bucket", one, two)
		}
		s.Restart(t)
		natstest.Eventually(t, time.Second, "the connection to be back", b.Conn.IsConnected)
		three := put()
		if three.Epoch != one.Epoch || !two.Before(three) {
			t.Errorf("%v, then %v after a restart", two, three)
		}
		pass(time.Millisecond)
		check(t, b.JS.DeleteKeyValue(t.Context(), bus.BucketName(fleet, bus.Agents)))
		four := put()
		if four.Revision != 1 || !three.Before(four) {
			t.Errorf("%v, then %v in a new bucket", three, four)
		}
	})
}

// The record of a job is there for 30 days after its last change. They pass without
// client and server, whose pings would take a while even in virtual time.
func TestJobsAreKept(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T) {
		s := natstest.Start(t)
		nc := s.Connect(t)
		must[uint64](t)(open(t, newBus(t, nc), bus.Jobs).Put(t.Context(), "job-1", nil))
		nc.Close()
		s.Stop()
		pass(30*24*time.Hour - time.Minute)
		s.Restart(t)
		kv := open(t, newBus(t, s.Connect(t)), bus.Jobs)
		must[jetstream.KeyValueEntry](t)(kv.Get(t.Context(), "job-1"))
		pass(2 * time.Minute)
		if _, err := kv.Get(t.Context(), "job-1"); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("30 days later: error %v, want not found", err)
		}
	})
}
