package coordinator

import (
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

func TestTenure(t *testing.T) {
	t.Parallel()
	t0 := time.Now()
	for _, ttl := range []time.Duration{MinLeaseTTL, DefaultLeaseTTL, time.Minute} {
		v := tenure{ttl: ttl, proven: t0}
		if !v.mayAct(t0) || v.mayAct(v.stopAt()) || !v.stopAt().Before(t0.Add(ttl)) {
			t.Errorf("ttl %v: it stops at %v", ttl, v.stopAt().Sub(t0))
		}
		// A try that is never answered leaves time for others, and none lasts past the end.
		tries := 0
		for at := v.renewAt(); at.Before(v.stopAt()); tries++ {
			end := v.tryUntil(at)
			if end.After(v.stopAt()) {
				t.Fatalf("ttl %v: a try lasts past the end", ttl)
			}
			at = end.Add(v.retryAfter())
		}
		if tries < 3 {
			t.Errorf("ttl %v: %d tries", ttl, tries)
		}
	}
}

func newLease(t *testing.T, b *bus.Bus, holder string) *lease {
	return &lease{bus: b, holder: holder, ttl: MinLeaseTTL}
}

func TestLease(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	one, two := newLease(t, b, "one"), newLease(t, b, "two")
	term, v, err := one.acquire(t.Context())
	if err != nil || term.Revision == 0 || term.Epoch == 0 || !v.mayAct(time.Now()) {
		t.Fatalf("term %s, tenure %+v, error %v", term, v, err)
	}
	if _, _, err := two.acquire(t.Context()); !errors.Is(err, errHeld) {
		t.Fatalf("a second holder: %v", err)
	}
	// Renewed for longer than it lives, it is still held; and a renewal keeps its TTL.
	var renewed time.Time
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for end := time.Now().Add(MinLeaseTTL + time.Second); time.Now().Before(end); <-every.C {
		renewed = time.Now()
		if err := one.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := two.acquire(t.Context()); !errors.Is(err, errHeld) {
		t.Fatalf("a renewed lease was taken: %v", err)
	}
	var next messages.Term
	natstest.Eventually(t, within, "the lease to expire", func() bool {
		next, _, err = two.acquire(t.Context())
		return err == nil
	})
	if took := time.Since(renewed); took < MinLeaseTTL {
		t.Errorf("it expired after %v", took)
	}
	if !term.Before(next) {
		t.Errorf("term %s follows %s", next, term)
	}
	if err := one.renew(t.Context()); !errors.Is(err, errHeld) {
		t.Errorf("a lost lease was renewed: %v", err)
	}
	if err := one.release(t.Context()); err == nil {
		t.Error("somebody else's lease was given back")
	}
	if err := two.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := one.acquire(t.Context()); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
}

// A renewal was stored, and its confirmation lost: the read-back finds it, and only the
// renewal after it proves anything.
func TestUnheardRenewal(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	l := newLease(t, b, "one")
	if _, _, err := l.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := l.rev
	if err := l.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.rev = before // as if that had not been heard
	if err := l.renew(t.Context()); !errors.Is(err, errUnheard) {
		t.Fatalf("renew after a lost confirmation: %v", err)
	}
	if err := l.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An acquisition was stored, and its confirmation lost: it does not lock its own holder
// out until it expires.
func TestUnheardAcquisition(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	kv, err := b.KV(t.Context(), bus.LeaseKV)
	if err != nil {
		t.Fatal(err)
	}
	data, err := messages.Encode(&messages.Lease{Holder: "one"})
	if err != nil {
		t.Fatal(err)
	}
	unheard, err := kv.Create(t.Context(), bus.KeyLeader, data, jetstream.KeyTTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	l := newLease(t, b, "one")
	if _, _, err := l.acquire(t.Context()); !errors.Is(err, errHeld) {
		t.Fatalf("the first try: %v", err)
	}
	term, _, err := l.acquire(t.Context())
	if err != nil || term.Revision <= unheard {
		t.Fatalf("the second try: term %s, %v", term, err)
	}
}

// What a follower saw of the lease tells it when to take it over, and that only once.
func TestHeir(t *testing.T) {
	t.Parallel()
	t0 := time.Now()
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	h := newHeir()
	none := func(when time.Time) {
		t.Helper()
		if s, ok := h.overdue(when); ok {
			t.Errorf("at %v: %+v is overdue", when.Sub(t0), s)
		}
	}
	none(at(100)) // nothing was seen
	h.put(sight{epoch: 1, rev: 5, seen: at(0)})
	none(at(100)) // its holder did not say how long it lasts
	h.put(sight{epoch: 1, rev: 6, ttl: 10 * time.Second, seen: at(0)})
	h.put(sight{epoch: 1, rev: 6, ttl: 10 * time.Second, seen: at(9)}) // told again
	h.put(sight{epoch: 1, rev: 4, ttl: 10 * time.Second, seen: at(9)}) // late
	none(at(9.9))
	if s, ok := h.overdue(at(10)); !ok || s.rev != 6 {
		t.Errorf("after its ttl: %+v, %v", s, ok)
	}
	none(at(11)) // tried once
	h.put(sight{epoch: 1, rev: 7, ttl: 10 * time.Second, seen: at(11)})
	none(at(20.9))
	h.gone()
	none(at(100))
	select {
	case <-h.free:
	default:
		t.Error("nobody was told that it is free")
	}
	h.put(sight{epoch: 2, rev: 1, ttl: 2 * time.Second, seen: at(30)}) // the bucket was made again
	if s, ok := h.overdue(at(32)); !ok || s.epoch != 2 || s.rev != 1 {
		t.Errorf("of a new bucket: %+v, %v", s, ok)
	}
}

// A lease that was renewed meanwhile is not seized; one that was not is, and its holder
// hears of it at its next renewal.
func TestSeize(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	one, two := newLease(t, b, "one"), newLease(t, b, "two")
	term, _, err := one.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := sight{epoch: term.Epoch, rev: one.rev}
	if err := one.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, from := range []sight{old, {epoch: term.Epoch + 1, rev: one.rev}} {
		if _, _, err := two.seize(t.Context(), from); !errors.Is(err, errHeld) {
			t.Fatalf("seize %+v of a lease that is held: %v", from, err)
		}
	}
	next, v, err := two.seize(t.Context(), sight{epoch: term.Epoch, rev: one.rev})
	if err != nil || !term.Before(next) || !v.mayAct(time.Now()) {
		t.Fatalf("term %s, tenure %+v, error %v", next, v, err)
	}
	if err := one.renew(t.Context()); !errors.Is(err, errHeld) {
		t.Errorf("a lease that was taken over was renewed: %v", err)
	}
	if err := two.renew(t.Context()); err != nil {
		t.Error(err)
	}
}

// A leader that is stopped in the middle of a renewal, which is stored unheard, still
// gives its lease back.
func TestReleaseAfterUnheardRenewal(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	one, two := newLease(t, b, "one"), newLease(t, b, "two")
	if _, _, err := one.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := one.rev
	if err := one.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	one.rev = before
	if err := one.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := two.acquire(t.Context()); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
}
