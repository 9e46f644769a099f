package route

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// ActionParams describe one action.
type ActionParams struct {
	Task     string
	Robot    string // the agent
	Site     string // the robot's
	Inc      messages.Incarnation
	Deadline time.Time
}

// Action is the life of one action: its intent goes into the journal, then it is sent,
// once, to the life of the robot's agent that the plan names; then there is an outcome,
// or nobody knows it.
type Action struct {
	p        ActionParams
	start    time.Time
	stage    stage
	sent     time.Time
	absent   time.Time
	wake     time.Time
	accepted bool
	refused  *messages.Error // by another life of the robot
	refusal  time.Time       // when that came
	now      time.Time
	fx       []Effect
}

type stage uint8

const (
	journaling stage = iota // certainly not sent
	sent                    // it may have run
	ended
)

// NewAction makes the machine of one action. Its first event is Start.
func NewAction(p ActionParams) *Action { return &Action{p: p} }

// Done reports whether the action has ended.
func (a *Action) Done() bool { return a.stage == ended }

// Step takes in an event that came at now and returns what to do, in this order. The
// slice is good until the next Step. now must not go back.
func (a *Action) Step(now time.Time, ev Event) []Effect {
	a.now, a.fx = now, a.fx[:0]
	switch {
	case a.stage == ended:
		if ev.Kind == Accepted && ev.Agent == a.p.Robot {
			a.emit(Effect{Kind: CancelAt, Agent: a.p.Robot, Site: a.p.Site})
		}
		return a.fx
	case ev.Kind == Start:
		a.start = now
	}
	switch {
	case !now.Before(a.p.Deadline):
		a.giveUp(messages.CodeDeadline, "its time of "+a.p.Deadline.Sub(a.start).Round(time.Millisecond).String()+" is over")
	case ev.Kind == Cancel:
		if ev.Err != nil {
			a.giveUp(ev.Err.Code, ev.Err.Message)
		} else {
			a.giveUp(messages.CodeCanceled, "the caller gave it up")
		}
	case ev.Kind == Start:
		// Persist, then send: what was sent without a trace could not be looked up.
		a.emit(Effect{Kind: WriteIntent, Site: a.p.Site, Attempt: 1})
	case a.stage == journaling:
		a.journal(ev)
	default:
		a.step(ev)
		// Also after another event than Timer: one that comes at the same moment must
		// not put this off.
		if a.stage == sent && !a.absent.IsZero() && !now.Before(a.absent.Add(AbsentGrace)) {
			a.giveUp(messages.CodeUnknownOutcome, "the robot is well, does not have it and sent no outcome")
		}
		if a.stage == sent && a.refused != nil && !now.Before(a.refusal.Add(AbsentGrace)) {
			a.finish(a.refused)
			// Should the other process wake only now, it finds this beside the message.
			a.emit(Effect{Kind: CancelAt, Agent: a.p.Robot, Site: a.p.Site})
		}
	}
	a.schedule()
	return a.fx
}

func (a *Action) journal(ev Event) {
	switch ev.Kind {
	case Published:
		a.stage, a.sent = sent, a.now
		a.emit(Effect{Kind: SendDirect, Agent: a.p.Robot, Site: a.p.Site, Inc: a.p.Inc, Attempt: 1, Cause: CauseIntent})
		a.emit(Effect{Kind: ProbeOn, Agent: a.p.Robot, Site: a.p.Site, Attempt: 1})
	case PublishFailed:
		why := "it did not confirm"
		if ev.Err != nil {
			why = ev.Err.Message
		}
		a.finish(messages.Errorf(messages.CodeUnavailable, "action %s on %s: nothing was sent, because the journal does not have it: %s", a.p.Task, a.p.Robot, why))
	}
}

func (a *Action) step(ev Event) {
	switch ev.Kind {
	case Accepted:
		if ev.Agent == a.p.Robot && ev.Attempt == 1 {
			a.accepted, a.absent, a.refused = true, time.Time{}, nil
		}
	case Result:
		switch other := !ev.Inc.IsZero() && ev.Inc != a.p.Inc; {
		case ev.Agent != a.p.Robot || ev.Attempt != 1:
		case other && ev.Err != nil:
			// Two processes have the robot's id for a moment, an old one that a new one took
			// the place of, and both have the message. That this one did not run it says
			// nothing of the other.
			if !a.accepted && a.refused == nil {
				a.refused, a.refusal = ev.Err, a.now
			}
		default:
			// An error before it was accepted is a refusal, one after it an outcome: both
			// are certain, and final.
			a.finish(ev.Err)
		}
	case NoResponders:
		if ev.Agent != a.p.Robot || a.accepted {
			return
		}
		err := ev.Err
		if err == nil {
			err = messages.Errorf(messages.CodeNotConnected, "action %s: robot %s has no connection; it did not run", a.p.Task, a.p.Robot)
		}
		a.finish(err)
	case HolderLost:
		if ev.Agent == a.p.Robot {
			a.giveUp(messages.CodeUnknownOutcome, "the robot lost its connection")
		}
	case Absent:
		known := a.accepted || a.now.Sub(a.sent) >= AcceptWait
		if ev.Agent == a.p.Robot && known && a.absent.IsZero() {
			a.absent = a.now
		}
	case HolderHung:
		// A robot that is silent may wake and finish. Nobody else can do it in its
		// place, so waiting for a certain outcome costs nothing that a retry would win.
	}
}

// giveUp ends an action without an answer: certain where it was not sent, unknown
// where it was.
func (a *Action) giveUp(code messages.Code, why string) {
	if a.stage == journaling {
		a.finish(messages.Errorf(code, "action %s on %s: %s; it was not sent", a.p.Task, a.p.Robot, why))
		return
	}
	if a.accepted {
		why += ", after the robot accepted it"
	} else {
		why += ", before the robot accepted it"
	}
	a.finish(messages.Errorf(messages.CodeUnknownOutcome, "action %s on %s: %s; it may or may not have run: look before acting again", a.p.Task, a.p.Robot, why))
	a.emit(Effect{Kind: CancelAt, Agent: a.p.Robot, Site: a.p.Site})
}

func (a *Action) finish(err *messages.Error) {
	a.stage = ended
	a.emit(Effect{Kind: Finish, Agent: a.p.Robot, Attempt: 1, Err: err})
}

func (a *Action) schedule() {
	if a.stage == ended {
		return
	}
	at := a.p.Deadline
	if t := a.absent.Add(AbsentGrace); !a.absent.IsZero() && t.Before(at) && t.After(a.now) {
		at = t
	}
	if t := a.refusal.Add(AbsentGrace); a.refused != nil && t.Before(at) && t.After(a.now) {
		at = t
	}
	if !at.Equal(a.wake) {
		a.wake = at
		a.emit(Effect{Kind: WakeAt, At: at})
	}
}

func (a *Action) emit(e Effect) { a.fx = append(a.fx, e) }
