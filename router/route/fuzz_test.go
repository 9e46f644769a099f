package route

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// FuzzMachine drives requests through any order of events, at any time, and checks what
// must always hold.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte("\x80lost and found, again and again, until the time is over"))
	f.Fuzz(driveMachine)
}

// TestMachineOrders runs what FuzzMachine runs over a fixed set of random orders.
func TestMachineOrders(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		script := make([]byte, dice.IntN(60))
		for i := range script {
			script[i] = byte(dice.Uint32())
		}
		driveMachine(t, script)
		driveAction(t, script)
	}
}

func driveMachine(t *testing.T, script []byte) {
	agents := []string{"a", "b", "c"}
	mode := 0
	if len(script) > 0 {
		mode = int(script[0])
	}
	p := Params{Task: "x", Deadline: t0.Add(2 * time.Second), Attempts: 1 + mode&3, Patient: mode&4 > 0}
	if mode&8 > 0 {
		p.Queue = "main"
	}
	there, hedges := agents[:mode>>4&3], 0
	p.Candidates = func() []Candidate {
		list := candidates(there...)()
		for i := range list {
			list[i].Free = mode&128 == 0
		}
		return list
	}
	if mode&2 > 0 {
		p.Stuck = func() bool { return mode&16 > 0 }
	}
	if mode&64 > 0 {
		p.Hedge = time.Duration(1+mode&31) * 10 * ms
		p.MayHedge = func() bool { hedges++; return mode&1 == 0 }
	}
	m := NewMachine(p)
	now, wake, finished, watched := t0, time.Time{}, 0, map[string]bool{}
	sends := map[string]int{} // agent#attempt → sent and not known to be unbegun
	step := func(ev Event) {
		for _, e := range m.Step(now, ev) {
			if finished > 0 && e.Kind != CancelAt {
				t.Fatalf("after the end: %s", say([]Effect{e}))
			}
			switch e.Kind {
			case Finish:
				finished++
				if e.Err == nil && (ev.Kind != Result || ev.Err != nil) {
					t.Fatal("an answer out of nothing")
				}
			case PublishWork, SendDirect:
				if e.Attempt < 1 || e.Attempt > p.Attempts {
					t.Fatalf("attempt %d of %d", e.Attempt, p.Attempts)
				}
				sends[fmt.Sprintf("%s#%d", e.Agent, e.Attempt)]++
				if n := sends[fmt.Sprintf("%s#%d", e.Agent, e.Attempt)]; n > 1 {
					t.Fatalf("%s#%d is out twice", e.Agent, e.Attempt)
				}
			case ProbeOn:
				watched[e.Agent] = true
			case ProbeOff:
				delete(watched, e.Agent)
			case WakeAt:
				wake = e.At
			}
		}
		if finished == 0 && (wake.IsZero() || !wake.After(now) || wake.After(p.Deadline)) {
			t.Fatalf("nothing wakes it: now %v, wake %v", now.Sub(t0), wake.Sub(t0))
		}
	}
	step(Event{Kind: Start})
	for i := 1; i+1 < len(script); i += 2 {
		b, c := script[i], script[i+1]
		now = now.Add(time.Duration(c>>3) * 7 * ms)
		if c&4 > 0 && finished == 0 && now.After(wake) {
			now = wake // as a shell whose timer is first
			step(Event{Kind: Timer})
		}
		agent, attempt := agents[int(b>>3)%3], 1+int(b>>5)%4
		ev := Event{Kind: EventKind(2 + b%9), Agent: agent, Attempt: attempt}
		key := fmt.Sprintf("%s#%d", agent, attempt)
		switch ev.Kind {
		case PublishFailed:
			if sends["#1"] != 1 {
				continue
			}
			sends["#1"]--
		case NoResponders:
			if sends[key] != 1 {
				continue
			}
			sends[key]--
		case Result:
			codes := []messages.Code{"", "", messages.CodeBusy, messages.CodeDraining, messages.CodeBackendFailed, messages.CodeExpired, messages.CodeSuperseded, messages.CodeNotPlaced}
			if code := codes[c&7]; code != "" {
				ev.Err = fail(code)
				if refusal(code) && sends[key] == 1 {
					sends[key]-- // whether it counts as unbegun is the machine's to know
				}
			}
		case Cancel:
			if c&3 > 0 {
				there = agents[:c&3] // the plan changes instead
				continue
			}
		}
		step(ev)
	}
	for range 1000 {
		if finished > 0 {
			break
		}
		now = wake
		step(Event{Kind: Timer})
	}
	if finished != 1 {
		t.Fatalf("%d ends", finished)
	}
	if hedges > 1 {
		t.Fatalf("hedged %d times", hedges)
	}
	if !m.Done() {
		t.Fatal("finished and not done")
	}
	step(Event{Kind: Accepted, Agent: "a", Attempt: 1})
}

// FuzzAction checks that an action is sent at most once, after its intent, and that no
// certain answer is given where there is none.
func FuzzAction(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5})
	f.Fuzz(driveAction)
}

func driveAction(t *testing.T, script []byte) {
	a := NewAction(ActionParams{Task: "x", Robot: "r", Site: "main", Deadline: t0.Add(time.Second)})
	now, journaled, sent, finished, wake := t0, false, 0, 0, t0
	step := func(ev Event) {
		for _, e := range a.Step(now, ev) {
			if finished > 0 && e.Kind != CancelAt {
				t.Fatalf("after the end: %s", say([]Effect{e}))
			}
			switch e.Kind {
			case SendDirect:
				if sent++; sent > 1 || !journaled {
					t.Fatal("sent twice, or before it was in the journal")
				}
			case Finish:
				finished++
				certain := ev.Kind == Result || ev.Kind == NoResponders
				if sent > 0 && !certain && (e.Err == nil || e.Err.Code != messages.CodeUnknownOutcome) {
					t.Fatalf("it may have run, and ended as %v", e.Err)
				}
				if sent == 0 && (e.Err == nil || e.Err.Code == messages.CodeUnknownOutcome) {
					t.Fatalf("it was not sent, and ended as %v", e.Err)
				}
			case WakeAt:
				wake = e.At
			}
		}
	}
	step(Event{Kind: Start})
	for i := 0; i+1 < len(script); i += 2 {
		now = now.Add(time.Duration(script[i+1]) * ms)
		ev := Event{Kind: EventKind(2 + script[i]%10), Agent: []string{"r", "x"}[script[i]>>4&1], Attempt: 1 + int(script[i]>>5&1)}
		if script[i]>>6&1 > 0 {
			ev.Err = fail(messages.CodeStale)
		}
		journaled = journaled || ev.Kind == Published
		step(ev)
	}
	for range 10 {
		if finished > 0 {
			break
		}
		now = wake
		step(Event{Kind: Timer})
	}
	if finished != 1 {
		t.Fatalf("%d ends", finished)
	}
}
