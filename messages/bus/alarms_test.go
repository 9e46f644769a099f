package bus_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetbus/fleetbus/messages/bus"
)

// bell writes down when it rings.
type bell struct{ rung chan time.Time }

func (b *bell) Ring() { b.rung <- time.Now() }

func newBell() (*bell, *bus.Alarm) {
	b := &bell{rung: make(chan time.Time, 8)}
	return b, &bus.Alarm{Bell: b}
}

// TestAlarms sets, moves and takes back alarms at random: each rings at its last time
// exactly, once, and none that was taken back.
func TestAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dice := rand.New(rand.NewPCG(1, 2))
		var s bus.Alarms
		const n = 200
		bells, alarms, want := make([]*bell, n), make([]*bus.Alarm, n), make([]time.Time, n)
		for i := range n {
			bells[i], alarms[i] = newBell()
		}
		for range 2000 {
			i := dice.IntN(n)
			now := time.Now()
			if len(bells[i].rung) > 0 {
				if at := <-bells[i].rung; !at.Equal(want[i]) {
					t.Fatalf("it rang at %v, set for %v", at, want[i])
				}
				want[i] = time.Time{}
			} else if !want[i].IsZero() && want[i].Before(now) {
				t.Fatalf("at %v one of %v has not rung", now, want[i])
			}
			switch dice.IntN(4) {
			case 0:
				s.Unset(alarms[i])
				want[i] = time.Time{}
			default:
				want[i] = now.Add(time.Duration(1 + dice.IntN(1000)))
				s.Set(alarms[i], want[i])
			}
			<-time.After(time.Duration(dice.IntN(100)))
			synctest.Wait()
		}
		<-time.After(time.Second)
		for i, b := range bells {
			switch {
			case want[i].IsZero() && len(b.rung) > 0:
				t.Fatal("one that was taken back rang")
			case !want[i].IsZero() && len(b.rung) != 1:
				t.Fatalf("it rang %d times", len(b.rung))
			case !want[i].IsZero():
				if at := <-b.rung; !at.Equal(want[i]) {
					t.Fatalf("it rang at %v, set for %v", at, want[i])
				}
			}
		}
	})
}

func TestAlarmsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s bus.Alarms
		never, a := newBell()
		later, b := newBell()
		gone, c := newBell()
		s.Set(a, time.Time{})
		s.Set(b, time.Now().Add(time.Hour))
		s.Set(c, time.Now().Add(time.Minute))
		s.Unset(c)
		s.Unset(c)
		<-time.After(30 * time.Minute)
		if len(never.rung)+len(later.rung)+len(gone.rung) != 0 {
			t.Fatal("one rang before its time")
		}
		s.Close()
		s.Close()
		s.Set(c, time.Now().Add(time.Hour))
		<-time.After(2 * time.Hour)
		if len(never.rung) != 1 || len(later.rung) != 1 || len(gone.rung) != 1 {
			t.Fatalf("with Close and after it rang %d, %d and %d times, wanted once each", len(never.rung), len(later.rung), len(gone.rung))
		}
	})
}
