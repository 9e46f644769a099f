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
