package coordinator

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// newReign is a performer whose coordinator leads, and does nothing else.
func newReign(t *testing.T) (*performer, *reign) {
	t.Helper()
	nc := natstest.Start(t).Connect(t)
	c := New(nc, Config{Fleet: "test", ID: "one", LeaseTTL: MinLeaseTTL, Logger: slog.New(slog.DiscardHandler)})
	c.bus = newBus(t, nc)
	r := &reign{term: messages.Term{Epoch: 1, Revision: 7}, ended: make(chan struct{})}
	r.tenure.Store(&tenure{ttl: time.Hour, proven: time.Now()})
	if _, err := c.loadSaved(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c.tenure.Store(r)
	c.lives.begin("edge-1", messages.DefaultSite, messages.Incarnation{Epoch: 1, Revision: 1})
	p := newPerformer(c)
	p.reign = r
	t.Cleanup(p.work.Wait)
	return p, r
}

// What is stored is never written over by what is not newer, whatever was heard of the save
// that stored it.
func TestSaveKeepsTheNewest(t *testing.T) {
	t.Parallel()
	p, r := newReign(t)
	word := func() placement.Event {
		t.Helper()
		select {
		case ev := <-p.c.events:
			return ev
		default:
			t.Fatal("the Machine was not told")
			return nil
		}
	}
	save := func(term messages.Term, rev uint64, replicas ...messages.PlacedReplica) placement.Event {
		t.Helper()
		p.savePlacement(t.Context(), r, messages.Placement{Agent: "edge-1", Term: term, Rev: rev, Replicas: replicas})
		return word()
	}
	stored := func(rev uint64) {
		t.Helper()
		e, err := r.kv[bus.Placements].Get(t.Context(), "edge-1")
		if err != nil {
			t.Fatal(err)
		}
		var got messages.Placement
		if err := messages.Decode(e.Value(), &got); err != nil || got.Rev != rev {
			t.Errorf("stored is revision %d (%v), want %d", got.Rev, err, rev)
		}
	}
	if _, ok := save(r.term, 6).(placement.Saved); !ok {
		t.Error("not saved")
	}
	r.setRevision("edge-1", 0) // the word of it was lost
	before := r.revision("edge-1")
	if ev, ok := save(r.term, 5).(placement.SaveFailed); !ok || !strings.Contains(ev.Reason, "not older") {
		t.Errorf("an older one over a newer: %+v", ev)
	}
	stored(6)
	if r.revision("edge-1") != before {
		t.Error("a save that failed changed what the next is to follow")
	}
	other := messages.PlacedReplica{ID: "detect/0", Task: detect()}
	if ev, ok := save(r.term, 6, other).(placement.SaveFailed); !ok {
		t.Errorf("another one of the same revision: %+v", ev)
	}
	if ev, ok := save(r.term, 6).(placement.Saved); !ok {
		t.Errorf("the same again: %+v", ev)
	}
	if _, ok := save(r.term, 7).(placement.Saved); !ok {
		t.Error("a newer one is not saved")
	}
	stored(7)
	for i, rev := range []uint64{3, 2} {
		p.saveRoutes(t.Context(), r, messages.Routes{Term: r.term, Rev: rev})
		if _, ok := word().(placement.RoutesSaved); ok != (i == 0) {
			t.Errorf("routes of revision %d: saved is %v", rev, ok)
		}
		r.routesRev = 0
	}
}

// However many documents wait, the routes do not wait behind them, and neither does
// anything else that is to be done.
func TestRoutesPassDocuments(t *testing.T) {
	t.Parallel()
	p, r := newReign(t)
	block := make(chan struct{})
	for i := range 3 * savesAtOnce {
		p.docs.put(fmt.Sprint(i), func() { <-block })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.do(t.Context(), placement.SavePlacement{Doc: messages.Placement{Agent: "edge-1", Term: r.term, Rev: 1}})
		p.do(t.Context(), placement.SaveRoutes{Routes: messages.Routes{Term: r.term, Rev: 1}})
	}()
	select {
	case ev := <-p.c.events:
		if _, ok := ev.(placement.RoutesSaved); !ok {
			t.Errorf("%+v", ev)
		}
	case <-time.After(within):
		t.Error("the routes wait behind documents")
	}
	close(block)
	<-done
	if ev, ok := (<-p.c.events).(placement.Saved); !ok {
		t.Errorf("the document: %+v", ev)
	}
}

func TestLane(t *testing.T) {
	t.Parallel()
	var work sync.WaitGroup
	l := newLane(1, &work)
	var mu sync.Mutex
	var did []string
	begun, goOn := make(chan struct{}), make(chan struct{})
	save := func(what string) func() {
		return func() {
			mu.Lock()
			defer mu.Unlock()
			did = append(did, what)
		}
	}
	l.put("a", func() { close(begun); <-goOn; save("a1")() })
	<-begun
	l.put("b", save("b1"))
	l.put("a", save("a2")) // not beside a1, and not after a3
	l.put("c", save("c1"))
	l.put("a", save("a3"))
	l.put("b", save("b2"))
	close(goOn)
	work.Wait()
	if want := []string{"a1", "b2", "c1", "a3"}; !slices.Equal(did, want) {
		t.Errorf("saved %q, want %q", did, want)
	}
	begun, goOn = make(chan struct{}), make(chan struct{})
	l.put("a", func() { close(begun); <-goOn })
	<-begun
	l.put("a", save("x"))
	l.put("b", save("y"))
	l.clear()
	l.put("c", save("z"))
	close(goOn)
	work.Wait()
	if did[len(did)-1] != "z" || len(did) != 5 {
		t.Errorf("after clear: saved %q", did)
	}
}

// A document that is asked for when its agent was forgotten does not come back.
func TestForgottenAgentHasNoDocument(t *testing.T) {
	t.Parallel()
	p, r := newReign(t)
	p.c.lives.end("edge-1")
	p.savePlacement(t.Context(), r, messages.Placement{Agent: "edge-1", Term: r.term, Rev: 1})
	if ev, ok := (<-p.c.events).(placement.SaveFailed); !ok || !strings.Contains(ev.Reason, "forgotten") {
		t.Errorf("%+v", ev)
	}
	if _, err := r.kv[bus.Placements].Get(t.Context(), "edge-1"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("a document is there: %v", err)
	}
}
