package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// The one that was chosen may end without being begun: a newer observation has taken its place. What
// was kept beside it goes back all the same.
func TestKeptGoesBack(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T) {
		s := natstest.Start(t)
		nc := s.Connect(t)
		work, err := nc.SubscribeSync("work")
		if err != nil {
			t.Fatal(err)
		}
		naks, err := nc.SubscribeSync("$JS.ACK.>")
		if err != nil {
			t.Fatal(err)
		}
		delivered := func(seq, count int) *nats.Msg {
			t.Helper()
			if err := nc.Publish("work", []byte("body")); err != nil {
				t.Fatal(err)
			}
			m, err := work.NextMsg(time.Second)
			if err != nil {
				t.Fatal(err)
			}
			m.Reply = ackSubject(seq, count)
			return m
		}
		a := &Agent{nc: nc}
		r := &replica{a: a, slots: 1, busy: 1}
		r.giveBack("a", delivered(1, 1))
		<-time.After(holdTime / 2)
		found := delivered(2, 2)
		if m := r.lookOn(found, time.Now()); m != nil {
			t.Fatalf("begins %s, and should look on", m.Reply)
		}
		if m := r.lookOn(delivered(3, 1), time.Now()); m != found {
			t.Fatalf("begins %v, want the oldest", m)
		}
		<-time.After(3 * holdTime)
		var back []string
		for {
			m, err := naks.NextMsg(time.Millisecond)
			if err != nil {
				break
			}
			back = append(back, m.Subject)
		}
		if want := []string{ackSubject(1, 1), ackSubject(3, 1)}; !slices.Equal(back, want) {
			t.Errorf("gave back %q, want %q", back, want)
		}
	})
}

// ackSubject is the reply subject of a delivery, with five more that were never delivered.
func ackSubject(seq, count int) string {
	return fmt.Sprintf("$JS.ACK.stream.consumer.%d.%d.1.0.5", count, seq)
}
