package route

import (
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Times of a sweep. They depend on one another:
//
//   - SweepEvery is how often a sweeper looks.
//   - SweepLooks is how many looks in a row must find a job wanting before anything is done:
//     one look may come between two steps of an agent, or be answered by a server that is
//     behind.
//   - SweepSettle is how long a record stands before its queue is expected to have done
//     what it says: a look and the time of a message.
//   - SweepPassed is how long a record stands before a queue that has delivered a later job
//     for the first time is said to have lost this one: what is to be delivered again comes
//     first, but for a consumer whose leader has changed that may take the ack wait, 15 s.
//   - TakenPause is before a job is begun again that was taken from one agent after another;
//     it doubles each time up to TakenMost. The first time it is begun at once. Whoever takes it
//     may be wrong each time: its agents may live, and only the sweeper not reach them.
const (
	SweepEvery  = time.Second
	SweepLooks  = 2
	SweepSettle = 2 * SweepEvery
	SweepPassed = time.Minute
	TakenPause  = 5 * time.Second
	TakenMost   = time.Minute
)

// Holder is what is known of the agent that a record says runs a job.
type Holder int

// Holders.
const (
	HolderUnknown Holder = iota // not asked, or silent: the queue's ack wait decides
	HolderHas                   // it has the job
	HolderGone                  // nobody listens there, or it has no such job
)

// JobView is what a sweeper knows of a job whose message stands in its stream.
type JobView struct {
	Record     *messages.Job // nil: it has none
	Unreadable bool          // it has one, and nobody can read it
	Stands     time.Duration // how long the record, or its absence, has been seen as it is
	Age        time.Duration // how long ago the message was stored
	Holder     Holder
	Delivered  bool // its consumer has delivered it at least once
	Acked      bool // its consumer, and nobody, will deliver it again
	Idle       bool // pulls wait at its consumer, and nothing else does
	Passed     bool // since it is [JobView.Overdue] its consumer has delivered one that was never delivered before
	Exhausted  int  // deliveries after which its consumer gave it up; 0: it did not
	Looks      int  // looks in a row, this one included, that found it wanting
}

// JobAct is what a sweeper does about a job.
type JobAct int

// What a sweeper does.
const (
	SweepNothing JobAct = iota
	SweepRemove         // it has ended: delete its message
	SweepTake           // its executor is gone: take it away, have it delivered again
	SweepRelease        // have it delivered again
	SweepRenew          // its queue has lost it: queue it again
	SweepBury           // its queue gave it up: a dead letter
)

// recordsKept is how long the record of a job is kept. A message that was acknowledged, has
// no record and is older than that is of a job that ended so long ago.
const recordsKept = 30 * 24 * time.Hour

// wanting reports whether something seems to be wrong with a job, and what is to be done
// about it when that does not pass.
func (v JobView) wanting() (act JobAct) {
	if v.Unreadable {
		return SweepNothing
	}
	if v.Record != nil {
		switch v.Record.State {
		case messages.GoalSucceeded, messages.GoalCanceled:
			return SweepRemove
		case messages.GoalAborted:
			return SweepNothing // a dead letter: its message is what can be redriven
		case messages.GoalExecuting, messages.GoalCanceling:
			switch {
			case v.Holder != HolderGone:
				return SweepNothing
			case v.Exhausted > 0:
				return SweepBury
			}
			return SweepTake
		}
		if v.Stands < messages.Millis(v.Record.Pause)+SweepSettle {
			return SweepNothing
		}
	}
	switch {
	case v.Exhausted > 0:
		return SweepBury
	case !v.Delivered || v.Stands < SweepSettle:
		return SweepNothing // it waits for its turn, or may just have been delivered
	case v.Acked && v.Record == nil && v.Age > recordsKept:
		return SweepRemove
	case v.Acked, v.Passed, v.Idle && v.Looks > 2*SweepLooks:
		// Somebody acknowledged it. Where something before it in the queue is not
		// acknowledged that is not seen; but it was released and would have been taken, or
		// would have had its turn before those that came after it.
		return SweepRenew
	case v.Record == nil, v.Idle:
		// Nobody has written within SweepSettle that it runs, so nobody runs it: its executor
		// died early. Where it has none, it waits for a slot, and to release it does nothing.
		return SweepRelease
	}
	return SweepNothing
}

// Overdue reports whether a job that nobody runs should long have been delivered again, if
// its queue has delivered anything.
func (v JobView) Overdue() bool {
	if v.Unreadable || !v.Delivered {
		return false
	}
	if v.Record == nil {
		return v.Stands >= SweepPassed
	}
	return v.Record.State == messages.GoalAccepted && v.Stands >= messages.Millis(v.Record.Pause)+SweepPassed
}

// Wanting reports whether this look found something wrong.
func (v JobView) Wanting() bool { return v.wanting() != SweepNothing }

// Sweep decides what to do about a job. It is pure.
func (v JobView) Sweep() JobAct {
	act := v.wanting()
	if act != SweepRemove && v.Looks < SweepLooks {
		return SweepNothing
	}
	return act
}

// Taken is how the record of a job reads whose executor is gone, or that is buried after
// its queue has delivered it so often in vain (exhausted).
func Taken(job messages.Job, exhausted int) messages.Job {
	why := "agent " + job.Agent + " " + wentAway
	if job.Agent == "" {
		why = "its executors went away before they could say so"
	}
	next := job
	switch {
	case job.State == messages.GoalCanceling:
		next.State, next.Code, next.Reason = messages.GoalCanceled, messages.CodeCanceled, "canceled; "+why
		return next
	case exhausted > 0:
		next.State, next.Code = messages.GoalAborted, messages.CodeBackendFailed
		next.Reason = messages.Errorf(messages.CodeBackendFailed, "its queue has delivered it %d times, the most that its consumer allows, and nobody ended it: %s", exhausted, why).Message
		next.Remember(next.Code, next.Reason)
		return next
	}
	next.Remember(messages.CodeBackendFailed, why)
	next.State, next.Code, next.Reason, next.Pause = messages.GoalAccepted, messages.CodeBackendFailed, why, 0
	next.Agent, next.Inc = "", messages.Incarnation{}
	if pause := takenPause(next.History); pause > 0 {
		next.Pause = float64(pause) / float64(time.Millisecond)
	}
	return next
}

// wentAway ends the reason of an attempt that was taken away.
const wentAway = "went away while it ran"

// takenPause is the pause before a job is begun again whose last attempts were taken away.
func takenPause(history []messages.JobAttempt) (pause time.Duration) {
	for n := len(history) - 2; n >= 0 && strings.HasSuffix(history[n].Reason, wentAway); n-- {
		pause = min(max(TakenPause, 2*pause), TakenMost)
	}
	return pause
}

// Unbegun is how the record of a job reads that was delivered and of which nobody has written
// anything. The number of that attempt is taken, so that whatever it still writes is
// refused; it does not count, because most likely it was given back unbegun.
func Unbegun(job messages.Job, attempt int) messages.Job {
	next := job
	next.State, next.Attempt, next.Free = messages.GoalAccepted, max(1, attempt), 1
	next.Code, next.Reason = messages.CodeBackendFailed, "it was delivered, and nobody has written that it runs"
	return next
}

// Orphaned is how the record of a job reads whose message is gone before its end.
func Orphaned(job messages.Job) messages.Job {
	next := job
	next.State, next.Code = messages.GoalAborted, messages.CodeInternal
	next.Reason = "its message was deleted from its stream before it had ended, and its body with it; submit it again under another key"
	next.Remember(next.Code, next.Reason)
	return next
}
