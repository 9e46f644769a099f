package order

import (
	"fmt"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func life(rev uint64) messages.Fence { return messages.Fence{Epoch: 1, Revision: rev} }

func TestInbox(t *testing.T) {
	fault := messages.Errorf(messages.CodeBackendFailed, "no")
	for _, tt := range []struct {
		name string
		done []Mark
		next Mark
		want Verdict
	}{
		{"first", nil, Mark{"a", life(1), 7}, New},
		{"next", []Mark{{"a", life(1), 1}}, Mark{"b", life(1), 2}, New},
		{"next, some expired between", []Mark{{"a", life(1), 1}}, Mark{"b", life(1), 9}, New},
		{"the same", []Mark{{"a", life(1), 1}}, Mark{"a", life(1), 1}, Again},
		{"the same, sent anew", []Mark{{"a", life(1), 1}}, Mark{"a", life(2), 1}, Again},
		{"overtaken", []Mark{{"b", life(1), 2}}, Mark{"a", life(1), 1}, Old},
		{"of a former life", []Mark{{"b", life(2), 1}}, Mark{"a", life(1), 5}, Old},
		{"of a new life", []Mark{{"b", life(1), 9}}, Mark{"a", life(2), 1}, New},
		{"of another store", []Mark{{"b", life(5), 9}}, Mark{"a", messages.Fence{Epoch: 0, Revision: 1}, 1}, New},
		{"not counted", []Mark{{"b", life(5), 9}}, Mark{"a", messages.Fence{}, 0}, New},
		{"not counted, the same", []Mark{{"a", messages.Fence{}, 0}}, Mark{"a", messages.Fence{}, 0}, Again},
		{"not counted leaves the count", []Mark{{"b", life(5), 9}, {"c", messages.Fence{}, 0}}, Mark{"a", life(5), 9}, Old},
	} {
		var b Inbox
		for _, m := range tt.done {
			b.Done("x", m, fault)
		}
		got, f := b.Judge("x", tt.next)
		if got != tt.want || (got == Again) != (f == fault) {
			t.Errorf("%s: %v %v, want %v", tt.name, got, f, tt.want)
		}
		if other, _ := b.Judge("y", tt.next); other != New {
			t.Errorf("%s: of another sender %v", tt.name, other)
		}
	}
}

func TestInboxIsBounded(t *testing.T) {
	var b Inbox
	for i := range 2 * maxSenders {
		b.Done(fmt.Sprint(i), Mark{"a", life(1), 1}, nil)
	}
	for i := range 3 * maxKept {
		b.Done("x", Mark{fmt.Sprint(i), life(1), uint64(i + 1)}, nil)
	}
	if len(b.senders) > maxSenders || len(b.senders["x"].kept) > maxKept {
		t.Errorf("%d senders, %d messages of one", len(b.senders), len(b.senders["x"].kept))
	}
	if v, _ := b.Judge("0", Mark{"a", life(1), 1}); v != New {
		t.Error("the sender that was silent for longest is remembered")
	}
	if v, _ := b.Judge("x", Mark{"0", life(1), 1}); v != Old {
		t.Errorf("what is too old to be remembered by name is %v", v)
	}
}

func TestLane(t *testing.T) {
	var l Lane
	now := time.Now()
	want := func(w Way, after time.Duration) {
		t.Helper()
		if got := l.Way(now.Add(after)); got != w {
			t.Fatalf("way %v, want %v: %+v", got, w, l)
		}
	}
	want(Ask, 0) // a former life may have left something
	l.Found(true, now)
	want(Store, 0)
	l.Storing("a", now)
	l.Settled("z") // of the former life
	want(Store, 0)
	l.Storing("b", now)
	l.Settled("a")
	want(Store, askEvery-1)
	want(Ask, askEvery) // a receipt may be lost
	l.Found(true, now.Add(askEvery))
	want(Store, askEvery)
	l.Settled("b")
	want(Straight, askEvery)
	l.Storing("c", now.Add(time.Hour)) // the receiver is away
	want(Store, time.Hour)
	l.Found(false, now.Add(time.Hour+askEvery))
	want(Straight, time.Hour+askEvery)
}
