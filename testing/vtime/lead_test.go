package vtime_test

import (
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// ledFleet is a server, two boxes that run a task each, and a leader that placed them
// over a link of its own.
func ledFleet(t *testing.T, f func(t *testing.T, s *natstest.Server, b *bus.Bus, wire *natstest.Link, stop func(), boxes [2]*box)) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		wire := s.Link("first")
		stop := coordinate(t, s.Connect(t, wire.Dial(), quiet), "first")
		led(t, b, messages.Term{})
		boxes := [2]*box{startBox(t, s.Connect(t), "box-1"), startBox(t, s.Connect(t), "box-2")}
		for _, a := range boxes {
			placed(t, b, a, "on-"+a.id)
		}
		f(t, s, b, wire, stop, boxes)
	})
}

// A leader that falls silent is followed when its lease is over, and not before; the new
// one gives every document out again under its term and moves nothing; the old one, when
// it is back, follows.
func TestLeaseOfASilentLeaderExpires(t *testing.T) {
	ledFleet(t, func(t *testing.T, s *natstest.Server, b *bus.Bus, wire *natstest.Link, _ func(), boxes [2]*box) {
		coordinate(t, s.Connect(t, quiet), "second")
		pass(5 * time.Second)
		before := must[messages.State](t)(coordinator.ReadState(t.Context(), b))
		cut := time.Now()
		wire.Cut()
		after := led(t, b, before.Term)
		// It had renewed at most a tenth of its ttl before it was cut.
		if took := time.Since(cut); after.Leader != "second" || took > ttl+100*time.Millisecond || took < ttl-ttl/10 {
			t.Errorf("%s led %v after the cut, want second after %v to %v", after.Leader, took, ttl-ttl/10, ttl)
		}
		for _, a := range boxes {
			natstest.Eventually(t, 5*time.Second, a.id+" to have its document of the new term", func() bool { return a.newest().Term == after.Term })
		}
		pass(20 * time.Second)
		wire.Mend()
		pass(time.Minute)
		if now := must[messages.State](t)(coordinator.ReadState(t.Context(), b)); now.Leader != "second" || now.Term != after.Term {
			t.Errorf("a minute after the first is back %s leads with term %s, want second with %s", now.Leader, now.Term, after.Term)
		}
		for _, a := range boxes {
			a.steady(t, 1)
		}
	})
}

// A leader that is stopped hands over within 200 ms, to the one follower of two that is
// first.
func TestHandOverTakesNoTime(t *testing.T) {
	ledFleet(t, func(t *testing.T, s *natstest.Server, b *bus.Bus, _ *natstest.Link, stop func(), boxes [2]*box) {
		coordinate(t, s.Connect(t, quiet), "second")
		coordinate(t, s.Connect(t, quiet), "third")
		pass(5*time.Second + 123*time.Millisecond) // in the middle of every ticker's period
		before := must[messages.State](t)(coordinator.ReadState(t.Context(), b))
		begin := time.Now()
		stop()
		after := led(t, b, before.Term)
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("%s led %v after the first was stopped, want 200 ms at most", after.Leader, took)
		}
		pass(time.Minute)
		if now := must[messages.State](t)(coordinator.ReadState(t.Context(), b)); now.Term != after.Term {
			t.Errorf("term %s a minute later, want %s", now.Term, after.Term)
		}
		for _, a := range boxes {
			a.steady(t, 1)
		}
	})
}

// A renewal is stored and its confirmation does not come in time: the leader reads the key
// back, renews again, and leads on under its term; nobody else does meanwhile.
func TestRenewalThatIsNotConfirmed(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		ear, dial := newDeaf(t, s)
		coordinate(t, s.Connect(t, dial, quiet), "first")
		before := led(t, b, messages.Term{})
		coordinate(t, s.Connect(t, quiet), "second")
		pass(5 * time.Second)
		kv := open(t, b, bus.LeaseKV)
		entry := func() jetstream.KeyValueEntry {
			return must[jetstream.KeyValueEntry](t)(kv.Get(t.Context(), bus.KeyLeader))
		}
		was := entry().Revision()
		// Renewals go out every second, and are given up after two: this is longer.
		ear.silence(ttl/5 + ttl/10)
		if now := entry().Revision(); now == was {
			t.Fatal("no renewal was stored meanwhile: the test does not test what it says")
		}
		for range 60 {
			pass(time.Second)
			if now, err := coordinator.ReadState(t.Context(), b); err != nil || now.Leader != "first" || now.Term != before.Term {
				t.Fatalf("%s leads with term %s (%v), want first with %s", now.Leader, now.Term, err, before.Term)
			}
		}
		if now := entry().Revision(); now < was+50 {
			t.Errorf("revision %d a minute after %d: it is not renewed every second", now, was)
		}

		// Deaf for as long as it may act: it cannot know, so it stops, and another leads.
		ear.silence(ttl)
		after := led(t, b, before.Term)
		pass(time.Minute)
		if now := must[messages.State](t)(coordinator.ReadState(t.Context(), b)); now.Term != after.Term {
			t.Errorf("the lead went on from term %s to %s by itself", after.Term, now.Term)
		}
	})
}

// The consumers behind the watchers are gone, as after a leader's change of a stream: what
// changes is still found out, and a deleted leader is still followed.
func TestWatchersAreLost(t *testing.T) {
	ledFleet(t, func(t *testing.T, s *natstest.Server, b *bus.Bus, wire *natstest.Link, _ func(), boxes [2]*box) {
		coordinate(t, s.Connect(t, quiet), "second")
		pass(5 * time.Second)
		before := must[messages.State](t)(coordinator.ReadState(t.Context(), b))
		for _, bucket := range []bus.Bucket{bus.Desired, bus.Agents, bus.LeaseKV} {
			if n := forgetWatchers(t, b, bucket); n != 2 {
				t.Errorf("bucket %s had %d watchers, want one for each coordinator", bucket, n)
			}
		}
		begin := time.Now()
		placed(t, b, boxes[0], "more")
		runs(t, startBoxWith(t, s, b, "box-3", "there"), "there")
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("found out after %v, want two checks of each watcher, which are 4 s", took)
		}
		forgetWatchers(t, b, bus.LeaseKV)
		wire.Break()
		if after := led(t, b, before.Term); after.Leader != "second" {
			t.Errorf("%s leads", after.Leader)
		}
	})
}

// startBoxWith starts a box for which a task waits.
func startBoxWith(t *testing.T, s *natstest.Server, b *bus.Bus, id, name string) *box {
	t.Helper()
	job := messages.Task{Name: name, Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Robot: id}
	must[coordinator.Applied](t)(coordinator.Apply(t.Context(), b, []messages.Task{job}, nil))
	return startBox(t, s.Connect(t), id)
}

// The leader's link flaps for minutes, shorter and longer than its lease: there is one
// leader at a time, terms only grow, and nothing moves.
func TestLinkOfTheLeaderFlaps(t *testing.T) {
	ledFleet(t, func(t *testing.T, s *natstest.Server, b *bus.Bus, wire *natstest.Link, _ func(), boxes [2]*box) {
		coordinate(t, s.Connect(t, quiet), "second")
		pass(5 * time.Second)
		term := must[messages.State](t)(coordinator.ReadState(t.Context(), b)).Term
		for _, down := range []time.Duration{100 * time.Millisecond, time.Second, 3 * time.Second, 7 * time.Second, 9 * time.Second, 12 * time.Second, 30 * time.Second} {
			for _, sever := range []func(){wire.Cut, wire.Break} {
				sever()
				pass(down)
				wire.Mend()
				pass(5 * time.Second)
				now, err := coordinator.ReadState(t.Context(), b)
				if err != nil && messages.CodeOf(err) != messages.CodeUnavailable {
					t.Fatal(err)
				}
				if err == nil && now.Term.Before(term) {
					t.Errorf("after %v: term %s follows %s", down, now.Term, term)
				} else if err == nil {
					term = now.Term
				}
			}
		}
		pass(30 * time.Second)
		must[messages.State](t)(coordinator.ReadState(t.Context(), b))
		for _, a := range boxes {
			a.steady(t, 1)
			for i := 1; i < len(a.docs); i++ {
				if a.docs[i].Term.Before(a.docs[i-1].Term) {
					t.Errorf("%s: term %s follows %s", a.id, a.docs[i].Term, a.docs[i-1].Term)
				}
			}
		}
	})
}

// The server restarts, and is away for longer than a lease: coordinators come back by
// themselves, one leads, and nothing moves.
func TestServerIsAway(t *testing.T) {
	ledFleet(t, func(t *testing.T, s *natstest.Server, b *bus.Bus, _ *natstest.Link, _ func(), boxes [2]*box) {
		coordinate(t, s.Connect(t, quiet), "second")
		pass(5 * time.Second)
		for _, away := range []time.Duration{0, time.Second, ttl - time.Second, 3 * ttl} {
			s.Stop()
			pass(away)
			s.Restart(t)
			natstest.Eventually(t, 5*time.Second, "the connection to be back", b.Conn.IsConnected)
			led(t, b, messages.Term{})
			pass(20 * time.Second)
		}
		placed(t, b, boxes[1], "more")
		boxes[0].steady(t, 1)
	})
}

// What an old leader still sends is refused.
func TestOldDocumentsAreRefused(t *testing.T) {
	ledFleet(t, func(t *testing.T, s *natstest.Server, b *bus.Bus, wire *natstest.Link, _ func(), boxes [2]*box) {
		coordinate(t, s.Connect(t, quiet), "second")
		pass(5 * time.Second)
		old := boxes[0].newest()
		wire.Break()
		now := led(t, b, old.Term)
		natstest.Eventually(t, 5*time.Second, "the document of the new term", func() bool { return boxes[0].newest().Term == now.Term })
		old.Rev += 100
		subject := b.Subject(messages.KindPlace, site)
		subject.Agent = old.Agent
		m, err := b.Conn.Request(subject.String(), must[[]byte](t)(messages.Encode(&old)), time.Second)
		check(t, err)
		var ack messages.PlacementAck
		check(t, messages.Decode(m.Data, &ack))
		if ack.Error == "" || ack.Term != now.Term {
			t.Errorf("the old leader's document was answered with %+v", ack)
		}
		// Nor can it save one: the new leader has written the key since.
		kv := open(t, b, bus.Placements)
		e := must[jetstream.KeyValueEntry](t)(kv.Get(t.Context(), old.Agent))
		if _, err := kv.Update(t.Context(), old.Agent, nil, e.Revision()-1); !errors.Is(err, jetstream.ErrKeyExists) && messages.CodeOf(bus.Explain(err, "save")) != messages.CodeConflict {
			t.Errorf("the old leader's save ended with %v, want a conflict", err)
		}
	})
}

// A follower that has missed a task, and does not know that it has, is elected: it finds
// out before it leads, and stops nothing.
func TestFollowerThatMissedATask(t *testing.T) {
	ledFleet(t, func(t *testing.T, s *natstest.Server, b *bus.Bus, _ *natstest.Link, stop func(), boxes [2]*box) {
		pass(time.Second)
		coordinate(t, s.Connect(t, quiet), "second")
		pass(5 * time.Second)
		before := must[messages.State](t)(coordinator.ReadState(t.Context(), b))
		for _, bucket := range []bus.Bucket{bus.Desired, bus.Agents} {
			stream := must[jetstream.Stream](t)(b.JS.Stream(t.Context(), "KV_"+bus.BucketName(fleet, bucket)))
			var newest *jetstream.ConsumerInfo // the second's
			all := stream.ListConsumers(t.Context())
			for info := range all.Info() {
				if newest == nil || info.Created.After(newest.Created) {
					newest = info
				}
			}
			check(t, all.Err())
			check(t, stream.DeleteConsumer(t.Context(), newest.Name))
		}
		placed(t, b, boxes[0], "more")
		runs(t, startBoxWith(t, s, b, "box-3", "there"), "there")
		stop()
		after := led(t, b, before.Term)
		natstest.Eventually(t, 5*time.Second, "the documents of the new term", func() bool { return boxes[0].newest().Term == after.Term })
		pass(time.Minute)
		for _, a := range boxes {
			for _, d := range a.docs {
				for _, r := range d.Replicas {
					if r.Drain {
						t.Errorf("%s: document of term %s revision %d drains %s", a.id, d.Term, d.Rev, r.ID)
					}
				}
			}
		}
		if n := len(boxes[0].newest().Replicas); n != 2 {
			t.Errorf("box-1 runs %d replicas, want 2", n)
		}
	})
}
