package route

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// What happens to an action that waits in the journal for its robot; [Queued] alone has
// these events and effects.
const (
	Withdrawn EventKind = iota + 100 // our withdrawal is in the journal: the action will not run
	Settled                          // it cannot be withdrawn any more: the robot has taken it
)

// What is to be done about it.
const (
	WriteQueued EffectKind = iota + 100 // write the action into the journal of Site, to wait there for Agent
	WakeRobot                           // tell Agent in Site that it waits
	Withdraw                            // withdraw it, on the condition that nobody has settled it
)

// The times of an action that waits. They depend on one another:
//
//   - QueueStore is how long the journal may take to confirm it. It is taken off the time
//     that the robot is given, which counts from when the journal stored it: so the robot
//     begins nothing after the caller's deadline, however long it took to get there.
//   - WithdrawWait is how long the caller waits past its deadline for the journal's word on
//     a withdrawal; a healthy one answers in a millisecond. The router's callers wait a second
//     longer than their deadline.
const (
	QueueStore   = time.Second
	WithdrawWait = 250 * time.Millisecond
)

// Queued is the life of one action that waits in the journal until its robot is back. It
// ends with the robot's word; or it is withdrawn, which the journal decides against the
// robot's taking it, so that one of the two is certain.
type Queued struct {
	p        ActionParams
	act      *Action // from when the robot has accepted it
	start    time.Time
	stage    waiting
	why      *messages.Error // it is withdrawn because of that
	withdraw time.Time       // when that was asked for
	wake     time.Time
	fx       []Effect
}

type waiting uint8

const (
	storing waiting = iota
	stored
	withdrawing
	begun
	over
)

// NewQueued makes the machine of one action that waits. Inc of p is ignored: whichever life
// of the robot returns may take it. Its first event is Start.
func NewQueued(p ActionParams) *Queued { return &Queued{p: p} }

// Done reports whether the action has ended.
func (q *Queued) Done() bool { return q.stage == over }

// Step takes in an event that came at now and returns what to do, in this order. The
// slice is good until the next Step. now must not go back.
func (q *Queued) Step(now time.Time, ev Event) []Effect {
	q.fx = q.fx[:0]
	ours := ev.Agent == q.p.Robot
	switch {
	case q.stage == over:
		if ev.Kind == Accepted && ours {
			q.emit(Effect{Kind: CancelAt, Agent: q.p.Robot, Site: q.p.Site})
		}
		return q.fx
	case q.stage == begun:
		q.fx = append(q.fx, q.act.Step(now, ev)...)
		if q.act.Done() {
			q.stage = over
		}
		return q.fx
	case ev.Kind == Start:
		q.start = now
		q.emit(Effect{Kind: WriteQueued, Agent: q.p.Robot, Site: q.p.Site, Attempt: 1})
	case ev.Kind == Result && ours:
		q.finish(ev.Err) // of a robot that says nothing but why not, or whose accepted was lost
	case ev.Kind == Accepted && ours && q.stage == withdrawing:
		q.unknown(q.why.Message+", when the robot had just accepted it", true)
	case ev.Kind == Accepted && ours:
		q.accept(now, ev)
		return q.fx
	case ev.Kind == Cancel:
		why := ev.Err
		if why == nil {
			why = messages.Errorf(messages.CodeCanceled, "the caller gave it up")
		}
		q.giveUp(now, why)
	case q.stage == storing && ev.Kind == Published:
		q.stage = stored
		q.emit(Effect{Kind: WakeRobot, Agent: q.p.Robot, Site: q.p.Site})
	case q.stage == storing && ev.Kind == PublishFailed:
		q.fail(messages.CodeUnavailable, "the journal does not have it: "+reason(ev.Err))
	case q.stage == withdrawing && ev.Kind == Withdrawn:
		q.fail(q.why.Code, q.why.Message)
	case q.stage == withdrawing && ev.Kind == Settled:
		q.unknown(q.why.Message+", and the robot had taken it", true)
	case q.stage == withdrawing && ev.Kind == PublishFailed:
		q.unknown(q.why.Message+", and it could not be withdrawn: "+reason(ev.Err), true)
	}
	q.due(now)
	q.schedule()
	return q.fx
}

// due does what the time has come for.
func (q *Queued) due(now time.Time) {
	switch {
	case q.stage == over || q.stage == begun:
	case q.stage == withdrawing:
		if !now.Before(q.withdraw.Add(WithdrawWait)) {
			q.unknown(q.why.Message+", and the journal did not say whether the robot had taken it", true)
		}
	case q.stage == storing && !now.Before(q.start.Add(QueueStore)):
		// It may be stored later. The withdrawal goes the same way, behind it.
		q.emit(Effect{Kind: Withdraw, Agent: q.p.Robot, Site: q.p.Site})
		q.unknown("the journal did not confirm it within "+QueueStore.String(), false)
	case !now.Before(q.p.Deadline):
		q.giveUp(now, messages.Errorf(messages.CodeDeadline, "its time of %v was over while it waited for the robot", q.p.Deadline.Sub(q.start).Round(time.Millisecond)))
	}
}

// giveUp withdraws it.
func (q *Queued) giveUp(now time.Time, why *messages.Error) {
	switch q.stage {
	case withdrawing:
		return
	case storing:
		q.emit(Effect{Kind: Withdraw, Agent: q.p.Robot, Site: q.p.Site})
		q.unknown(why.Message+", before the journal had confirmed it", false)
		return
	}
	q.stage, q.why, q.withdraw = withdrawing, why, now
	q.emit(Effect{Kind: Withdraw, Agent: q.p.Robot, Site: q.p.Site})
}

// accept goes on as every action does that its robot has accepted.
func (q *Queued) accept(now time.Time, ev Event) {
	p := q.p
	p.Inc = ev.Inc
	q.stage = begun
	q.act = &Action{p: p, start: q.start, stage: sent, sent: now}
	q.emit(Effect{Kind: ProbeOn, Agent: p.Robot, Site: p.Site, Attempt: 1})
	q.fx = append(q.fx, q.act.Step(now, Event{Kind: Accepted, Agent: ev.Agent, Inc: ev.Inc, Attempt: 1})...)
	if q.act.Done() {
		q.stage = over
	}
}

// fail ends it with certainty: it did not run and will not.
func (q *Queued) fail(code messages.Code, why string) {
	q.finish(messages.Errorf(code, "action %s on %s: %s; it did not run", q.p.Task, q.p.Robot, why))
}

// unknown ends it without. taken says that the robot may have it.
func (q *Queued) unknown(why string, taken bool) {
	q.finish(messages.Errorf(messages.CodeUnknownOutcome, "action %s on %s: %s; it may or may not have run: look before acting again", q.p.Task, q.p.Robot, why))
	if taken {
		q.emit(Effect{Kind: CancelAt, Agent: q.p.Robot, Site: q.p.Site})
	}
}

func (q *Queued) finish(err *messages.Error) {
	q.stage = over
	q.emit(Effect{Kind: Finish, Agent: q.p.Robot, Attempt: 1, Err: err})
}

func (q *Queued) schedule() {
	at := q.p.Deadline
	switch q.stage {
	case over, begun:
		return
	case withdrawing:
		at = q.withdraw.Add(WithdrawWait)
	case storing:
		if t := q.start.Add(QueueStore); t.Before(at) {
			at = t
		}
	}
	if !at.Equal(q.wake) {
		q.wake = at
		q.emit(Effect{Kind: WakeAt, At: at})
	}
}

func (q *Queued) emit(e Effect) { q.fx = append(q.fx, e) }

// reason is what an error says.
func reason(err *messages.Error) string {
	if err == nil {
		return "it did not answer"
	}
	return err.Message
}
