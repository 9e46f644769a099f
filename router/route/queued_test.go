package route

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// words is say with the effects of an action that waits.
func words(fx []Effect) string {
	var out []string
	for _, e := range fx {
		switch e.Kind {
		case WriteQueued:
			out = append(out, "write")
		case WakeRobot:
			out = append(out, "wake")
		case Withdraw:
			out = append(out, "withdraw")
		default:
			out = append(out, say([]Effect{e}))
		}
	}
	return strings.Join(out, ", ")
}

func TestQueued(t *testing.T) {
	stopped := &messages.Error{Code: messages.CodeStopped, Message: "test"}
	accepted := Event{Kind: Accepted, Agent: "r", Inc: messages.Incarnation{Epoch: 1, Revision: 2}, Attempt: 1}
	answer := Event{Kind: Result, Agent: "r", Inc: accepted.Inc, Attempt: 1}
	write, wake := turn{0, Event{Kind: Start}, "write, @1000"}, turn{2, Event{Kind: Published}, "wake, @10000"}
	for name, turns := range map[string][]turn{
		"served":                    {write, wake, {5000, accepted, "+r#1, @10000"}, {6000, answer, "answer r#1"}},
		"refused":                   {write, wake, {5000, Event{Kind: Result, Agent: "r", Attempt: 1, Err: stopped}, "end stopped"}},
		"accepted was lost":         {write, wake, {5000, answer, "answer r#1"}},
		"before the journal's word": {write, {1, accepted, "+r#1, @10000"}, {2, Event{Kind: Published}, ""}, {3, answer, "answer r#1"}},
		"nobody came":               {write, wake, {10_000, Event{Kind: Timer}, "withdraw, @10250"}, {10_002, Event{Kind: Withdrawn}, "end deadline_exceeded"}},
		"given up":                  {write, wake, {50, Event{Kind: Cancel}, "withdraw, @300"}, {51, Event{Kind: Cancel}, ""}, {52, Event{Kind: Withdrawn}, "end canceled"}},
		"the robot was quicker":     {write, wake, {50, Event{Kind: Cancel}, "withdraw, @300"}, {52, Event{Kind: Settled}, "end unknown_outcome, cancel r"}},
		"and says so":               {write, wake, {50, Event{Kind: Cancel}, "withdraw, @300"}, {52, accepted, "end unknown_outcome, cancel r"}},
		"and is done":               {write, wake, {50, Event{Kind: Cancel}, "withdraw, @300"}, {52, answer, "answer r#1"}},
		"silent journal":            {write, wake, {50, Event{Kind: Cancel}, "withdraw, @300"}, {300, Event{Kind: Timer}, "end unknown_outcome, cancel r"}},
		"no connection":             {write, wake, {50, Event{Kind: Cancel}, "withdraw, @300"}, {51, Event{Kind: PublishFailed}, "end unknown_outcome, cancel r"}},
		"no journal":                {write, {2, Event{Kind: PublishFailed}, "end unavailable"}},
		"journal without a leader":  {write, {1000, Event{Kind: Timer}, "withdraw, end unknown_outcome"}, {1001, accepted, "cancel r"}},
		"given up too early":        {write, {1, Event{Kind: Cancel}, "withdraw, end unknown_outcome"}},
		"somebody else's word":      {write, wake, {5, Event{Kind: Accepted, Agent: "x", Attempt: 1}, ""}, {6, Event{Kind: Result, Agent: "x", Attempt: 1}, ""}, {7, answer, "answer r#1"}},
		"the robot dies with it":    {write, wake, {5000, accepted, "+r#1, @10000"}, {5010, Event{Kind: HolderLost, Agent: "r"}, "end unknown_outcome, cancel r"}},
		"over while it runs":        {write, wake, {5000, accepted, "+r#1, @10000"}, {10_000, Event{Kind: Timer}, "end unknown_outcome, cancel r"}},
	} {
		t.Run(name, func(t *testing.T) {
			q := NewQueued(ActionParams{Task: "move", Robot: "r", Site: "main", Deadline: t0.Add(10 * time.Second)})
			for _, s := range turns {
				if got := words(q.Step(t0.Add(time.Duration(s.at)*ms), s.ev)); got != s.want {
					t.Fatalf("at %d, event %d: %q, want %q", s.at, s.ev.Kind, got, s.want)
				}
			}
			if !q.Done() {
				t.Fatal("not done")
			}
		})
	}
}

// driveQueued plays events in any order and checks that there is one end, that an action
// which may run never ends with certainty, and that none is left in the journal.
func driveQueued(t *testing.T, script []byte) {
	q := NewQueued(ActionParams{Task: "move", Robot: "r", Site: "main", Deadline: t0.Add(3 * time.Second)})
	now, wake, finished, withdrawn, last := t0, t0, 0, 0, t0
	step := func(ev Event) {
		for _, e := range q.Step(now, ev) {
			if finished > 0 && e.Kind != CancelAt {
				t.Fatalf("after the end: %s", say([]Effect{e}))
			}
			switch e.Kind {
			case SendDirect, PublishWork, WriteIntent:
				t.Fatalf("sent: %s", say([]Effect{e}))
			case Withdraw:
				if withdrawn++; withdrawn > 1 {
					t.Fatal("withdrawn twice")
				}
			case WakeAt:
				wake = e.At
			case Finish:
				finished, last = finished+1, now
				told := ev.Kind == Result || ev.Kind == Withdrawn || ev.Kind == PublishFailed
				if !told && (e.Err == nil || e.Err.Code != messages.CodeUnknownOutcome) {
					t.Fatalf("it may have run, and ended as %v after event %d", e.Err, ev.Kind)
				}
				if ev.Kind == Withdrawn && (withdrawn == 0 || e.Err == nil || e.Err.Code == messages.CodeUnknownOutcome) {
					t.Fatalf("it was withdrawn, and ended as %v", e.Err)
				}
			}
		}
	}
	step(Event{Kind: Start})
	kinds := []EventKind{Published, PublishFailed, Accepted, Result, HolderLost, HolderHung, Absent, Timer, Cancel, Withdrawn, Settled, NoResponders}
	for i := 0; i+1 < len(script) && finished == 0; i += 2 {
		next := now.Add(time.Duration(script[i+1]) * 8 * ms)
		for finished == 0 && wake.After(now) && !wake.After(next) {
			now = wake
			step(Event{Kind: Timer})
		}
		if now = next; finished > 0 {
			break
		}
		ev := Event{Kind: kinds[int(script[i]&15)%len(kinds)], Agent: []string{"r", "x"}[script[i]>>4&1], Attempt: 1}
		if script[i]>>6&1 > 0 && ev.Kind == Result {
			ev.Err = fail(messages.CodeStopped)
		}
		if ev.Kind == Withdrawn && withdrawn == 0 {
			continue // the journal does not confirm what it was not asked for
		}
		step(ev)
	}
	for range 10 {
		if finished > 0 {
			break
		}
		if wake.After(now) {
			now = wake
		}
		step(Event{Kind: Timer})
	}
	if finished != 1 || !q.Done() {
		t.Fatalf("%d ends", finished)
	}
	if late := last.Sub(t0.Add(3 * time.Second)); late > WithdrawWait {
		t.Fatalf("it ended %v after its deadline", late)
	}
	step(Event{Kind: Accepted, Agent: "r", Attempt: 1})
}

func FuzzQueued(f *testing.F) {
	f.Add([]byte{0, 1, 2, 1, 3, 1})
	f.Add([]byte{0, 1, 8, 1, 9, 1})
	f.Add([]byte{0, 1, 8, 1, 2, 1, 10, 1})
	f.Fuzz(driveQueued)
}
