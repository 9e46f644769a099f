package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// world is a robot and the messages between it and an action's machine. A script of bytes
// decides what happens next: which message arrives, when the robot's agent dies and
// another life of it begins, when its handler returns, when the caller gives up.
type world struct {
	t        *testing.T
	a        *Action
	now      time.Time
	wake     time.Time
	wire     []packet // under way, of either direction; any may arrive next
	lives    []life
	begun    int // executions
	finished int
	outcome  *messages.Error
	log      []string
}

// packet is the command, a cancellation, or an event for the machine.
type packet struct {
	toRobot bool
	cancel  bool
	inc     messages.Incarnation
	ev      Event
}

// life is one process of the robot's agent.
type life struct {
	inc   messages.Incarnation
	alive bool
	holds bool
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%v: ", w.now.Sub(t0))+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.log {
		w.t.Log(l)
	}
	w.t.Fatalf(format, args...)
}

// step feeds the machine and does what it says.
func (w *world) step(ev Event) {
	w.note("event %d inc %v err %v", ev.Kind, ev.Inc, ev.Err)
	for _, e := range w.a.Step(w.now, ev) {
		switch e.Kind {
		case WriteIntent:
			w.wire = append(w.wire, packet{ev: Event{Kind: Published}})
		case SendDirect:
			w.wire = append(w.wire, packet{toRobot: true, inc: e.Inc})
		case CancelAt:
			w.wire = append(w.wire, packet{toRobot: true, cancel: true})
		case WakeAt:
			w.wake = e.At
		case Finish:
			w.finished++
			w.outcome = e.Err
			w.note("end: %v", e.Err)
		}
	}
}

// say puts a word of a life on the wire; what a process has sent survives it.
func (w *world) say(l *life, kind EventKind, err *messages.Error) {
	w.wire = append(w.wire, packet{ev: Event{Kind: kind, Agent: "r", Attempt: 1, Inc: l.inc, Err: err}})
}

// arrive delivers a message.
func (w *world) arrive(i int) {
	p := w.wire[i]
	w.wire = slices.Delete(w.wire, i, i+1)
	if !p.toRobot {
		w.step(p.ev)
		return
	}
	there := false
	for i := range w.lives {
		l := &w.lives[i]
		if !l.alive {
			continue
		}
		there = true
		switch {
		case p.cancel && l.holds:
			l.holds = false
			w.say(l, Result, fail(messages.CodeUnknownOutcome)) // it was begun
		case p.cancel:
		case p.inc != l.inc:
			w.say(l, Result, fail(messages.CodeStale))
		default:
			w.begun++
			l.holds = true
			w.note("begun")
			w.say(l, Accepted, nil)
		}
	}
	if !there && !p.cancel {
		w.wire = append(w.wire, packet{ev: Event{Kind: NoResponders, Agent: "r", Attempt: 1}})
	}
}

// turn lets one thing happen.
func (w *world) turn(what, which byte) {
	last := &w.lives[len(w.lives)-1]
	switch what % 8 {
	case 0, 1, 2:
		if len(w.wire) > 0 {
			w.arrive(int(which) % len(w.wire))
		}
	case 3: // the newest process dies; what it held dies with it
		last.alive, last.holds = false, false
		w.note("killed")
	case 4: // the next life begins; the one before may go on for the moment until it hears of it
		w.lives = append(w.lives, life{inc: messages.Incarnation{Epoch: 1, Revision: last.inc.Revision + 1}, alive: true})
		if which&1 > 0 {
			last.alive, last.holds = false, false
		}
		w.note("new life")
	case 5: // a handler returns
		for i := range w.lives {
			if l := &w.lives[i]; l.holds {
				l.holds = false
				w.say(l, Result, nil)
			}
		}
	case 6: // a probe is answered
		alive := slices.ContainsFunc(w.lives, func(l life) bool { return l.alive })
		holds := slices.ContainsFunc(w.lives, func(l life) bool { return l.holds })
		switch {
		case !alive:
			w.step(Event{Kind: HolderLost, Agent: "r"})
		case !holds:
			w.step(Event{Kind: Absent, Agent: "r"})
		case which&1 > 0:
			w.step(Event{Kind: HolderHung, Agent: "r"})
		}
	case 7:
		switch {
		case which == 0:
			w.step(Event{Kind: Cancel})
		case w.finished == 0 && which&1 > 0:
			w.now = w.wake
			w.step(Event{Kind: Timer})
		default:
			// Nothing is under way for longer than that: see AbsentGrace.
			w.now = w.now.Add(time.Duration(which>>4) * ms / 4)
		}
	}
}

// driveWorld plays a script to its end and looks at what the robot did and what the caller
// was told.
func driveWorld(t *testing.T, script []byte) {
	first := messages.Incarnation{Epoch: 1, Revision: 1}
	w := &world{t: t, now: t0, wake: t0, lives: []life{{inc: first, alive: true}}}
	w.a = NewAction(ActionParams{Task: "x", Robot: "r", Site: "main", Inc: first, Deadline: t0.Add(time.Second)})
	w.step(Event{Kind: Start})
	for i := 0; i+1 < len(script); i += 2 {
		w.turn(script[i], script[i+1])
	}
	for range 10 { // its own timers end it
		if w.finished > 0 {
			break
		}
		w.now = w.wake
		w.step(Event{Kind: Timer})
	}
	told := w.outcome
	for len(w.wire) > 0 { // what is late arrives all the same
		w.arrive(0)
	}
	switch {
	case w.finished != 1:
		w.fail("%d ends", w.finished)
	case w.begun > 1:
		w.fail("begun %d times", w.begun)
	case told == nil && w.begun != 1:
		w.fail("the caller has an answer and nothing ran")
	}
	switch messages.CodeOf(asError(told)) {
	case messages.CodeNotConnected, messages.CodeUnavailable, messages.CodeCanceled, messages.CodeDeadline:
		if w.begun > 0 {
			w.fail("it ran, and the caller was told that it certainly did not: %v", told)
		}
	}
}

func asError(e *messages.Error) error {
	if e == nil {
		return nil
	}
	return e
}

func FuzzWorld(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 3, 0, 4, 1, 0, 0, 6, 0})
	f.Fuzz(driveWorld)
}

// TestWorldOrders runs what FuzzWorld runs over a fixed set of random orders.
func TestWorldOrders(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		script := make([]byte, dice.IntN(60))
		for i := range script {
			script[i] = byte(dice.Uint32())
		}
		driveWorld(t, script)
	}
}
