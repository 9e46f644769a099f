package agent

import (
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// maxResult bounds a job's result, which is kept in its record: half of the server's
// default max_payload, so that the record around it fits too.
const maxResult = 512 << 10

// maxReason bounds what the record of a job says of its end, bytes: a panic and the top of
// its stack. With the history, of which every entry is bounded too, a record without its
// result so stays below 32 KiB, which fits into a message of any server.
const maxReason = 4 << 10

// cutReason makes a text fit for the record of a job.
func cutReason(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + "…"
}

// firstSure is the age up to which a job that its queue delivers for the first time, by its
// own account, is believed to have been begun by nobody. A queue may have forgotten what it
// delivered: it was deleted and made again, or its server was killed, whose notes lag by some
// 100 ms. Either takes about as long as this until agents pull again; should it be quicker,
// the fence is still the record, by which the second attempt's writes fail. What has waited
// in the queue for longer pays with one read.
const firstSure = time.Second

// seenJob says whether somebody may have begun a job before.
type seenJob int

const (
	seenNever   seenJob = iota // no: it has no record
	seenPerhaps                // its record tells
	seenBefore                 // yes
)

// jobSeen decides that of a delivery; age is the message's, where it is known. It is pure.
func jobSeen(delivered uint64, attempt int, age time.Duration, known bool) seenJob {
	switch {
	case delivered > 1 || attempt > 1:
		return seenBefore
	case !known || age > firstSure:
		return seenPerhaps
	}
	return seenNever
}

// jobStart is what to do with a job that was delivered again. It is pure.
type jobStart int

const (
	startDrop  jobStart = iota // it has ended: acknowledge
	startEnd                   // it ends before it begins: write the record, acknowledge
	startRun                   // write the record, run
	startStale                 // the record is older than the message: read it again later
)

// firstAttempt is the record of a job that nobody has begun, as its first attempt has it.
func firstAttempt(req messages.Request, s messages.Subject, stored time.Time, agent string, inc messages.Incarnation) messages.Job {
	job := messages.Job{
		ID: s.ID, Task: s.Task, Origin: s.Origin, Site: s.Site, State: messages.GoalExecuting, Attempt: req.Attempt,
		Agent: agent, Inc: inc, Created: stored.UTC(),
	}
	if s.Priority != messages.Normal {
		job.Priority = s.Priority
	}
	return job
}

// startJob decides what an agent does with a job out of the queue that may have been begun
// before, and how its record reads then. job is nil where there is no record; first is how
// it would read if this was the first attempt.
func startJob(job *messages.Job, first messages.Job, attempts int, fault *messages.Error) (messages.Job, jobStart) {
	if job == nil {
		// Somebody had it and has not written that: it was given back before it was begun, or its
		// executor died within moments. The number of that attempt is taken, so that its
		// result, if it comes late, is known by it; but it does not count, because a job that is
		// allowed one attempt must have it. It happens once: from now on there is a record.
		none := first
		job = &none
		job.State, job.Agent, job.Inc = messages.GoalAccepted, "", messages.Incarnation{}
		if fault != nil {
			job.Attempt--
		}
		job.Free = job.Attempt
	}
	if job.Dead() && job.Attempt < first.Attempt {
		// A message with a higher number was queued after it had ended: it was redriven. Only what
		// is ABORTED ever comes back. It is also the end of a job that ended before it was begun.
		return messages.Job{}, startStale
	}
	if job.State.Ended() {
		return messages.Job{}, startDrop
	}
	next := *job
	switch {
	case job.State == messages.GoalCanceling:
		next.State, next.Code, next.Reason = messages.GoalCanceled, messages.CodeCanceled, "canceled while it waited"
	case fault != nil:
		next.State, next.Code, next.Reason = messages.GoalAborted, fault.Code, cutReason(fault.Message)
	case job.Attempt-job.Free >= attempts:
		last := job.Reason
		if last == "" {
			last = "its executor went away while it ran"
		}
		if job.State == messages.GoalExecuting {
			next.Remember(messages.CodeBackendFailed, last)
		}
		next.State, next.Code = messages.GoalAborted, messages.CodeBackendFailed
		next.Reason = messages.Errorf(messages.CodeBackendFailed, "begun %d times, allowed are %d; the last one: %s", job.Attempt-job.Free, attempts, last).Message
	default:
		if job.State == messages.GoalExecuting {
			next.Remember(messages.CodeBackendFailed, "its executor went away while it ran")
		}
		next.State, next.Attempt, next.Agent, next.Inc = messages.GoalExecuting, job.Attempt+1, first.Agent, first.Inc
		next.Code, next.Reason, next.Pause = "", "", 0
		return next, startRun
	}
	return next, startEnd
}

// endJob decides how the record of a job reads after an attempt, and whether it is to
// be tried again after a pause. cut says that the attempt was ended for a reason that is
// not the job's: its agent leaves, or could not extend its lease.
func endJob(job messages.Job, resp backend.Response, fault *messages.Error, task messages.Task, cut bool) (next messages.Job, again bool, pause time.Duration) {
	next = job
	if fault == nil && len(resp.Body) > maxResult {
		fault = messages.Errorf(messages.CodePayloadTooLarge, "the result has %d bytes, allowed are %d; store it elsewhere and answer with a reference", len(resp.Body), maxResult)
	}
	switch {
	case fault == nil:
		next.State, next.Result, next.Type, next.Code, next.Reason = messages.GoalSucceeded, resp.Body, resp.ContentType, "", ""
		if len(next.Type) > maxContentType {
			next.Type = "" // a header with it would be dropped as malformed
		}
		next.Checkpoint = nil // nobody begins it again
		return next, false, 0
	case fault.Code == messages.CodeCanceled && !cut, job.State == messages.GoalCanceling:
		next.State, next.Code, next.Reason = messages.GoalCanceled, messages.CodeCanceled, cutReason(fault.Message)
		next.Checkpoint = nil
		return next, false, 0
	}
	next.Code, next.Reason = fault.Code, cutReason(fault.Message)
	if cut && (fault.Code == messages.CodeDraining || fault.Code == messages.CodeUnavailable) {
		// The job is not to blame, so the attempt does not count: a rolling restart must not
		// use up all that it has.
		next.State, next.Free = messages.GoalAccepted, job.Free+1
		return next, true, 0
	}
	next.Remember(fault.Code, fault.Message)
	// An error that sending again does not help is final; so is the last attempt.
	begun := job.Attempt - job.Free
	if fault.Code.Advice() == messages.Stop || begun >= task.Attempts() {
		next.State = messages.GoalAborted
		return next, false, 0
	}
	next.State = messages.GoalAccepted
	pause = task.RetryAfter(begun)
	next.Pause = float64(pause) / float64(time.Millisecond)
	return next, true, pause
}

// jobFate says to whom a job belongs whose record is not as this attempt has left it.
type jobFate int

const (
	fateMine   jobFate = iota // still to this attempt: write again, at the new revision
	fateBehind                // the record is older than what this attempt has written, or than its message: read again
	fateOver                  // it has ended, or this attempt's own last word is stored: say so to the queue
	fateLost                  // to another attempt: drop the result, say nothing
)

// judgeJob decides to whom a job belongs; now is nil where there is no record, wrote says
// that this attempt has written one.
func judgeJob(now *messages.Job, mine messages.Job, wrote bool) jobFate {
	switch {
	case now == nil && wrote, now != nil && now.Attempt < mine.Attempt && (wrote || now.Dead()):
		return fateBehind // an ABORTED one may have been redriven since
	case now == nil:
		return fateMine
	case now.State.Ended():
		return fateOver
	case now.Attempt < mine.Attempt:
		return fateMine // it was canceled, or redriven, before it was begun
	case now.Attempt != mine.Attempt || now.Agent != mine.Agent || now.Inc != mine.Inc:
		return fateLost
	case now.State == messages.GoalAccepted:
		return fateOver
	}
	return fateMine
}

// endAct is what to do when the end of a job was not written.
type endAct int

const (
	endWait     endAct = iota // try again after a pause
	endAgain                  // try again at once, at the revision that was read
	endAck                    // it has ended: acknowledge
	endGiveBack               // it is to be begun again: negatively acknowledge
	endTerm                   // nobody can read its record
	endLose                   // it belongs to another attempt
)

// judgeEnd decides that, from the error of the write and from what a read said after it;
// behind is how often, this time included, the leader has refused the write and the record
// seemed to be older than what this attempt has written. It is pure.
//
// Only a refusal says that somebody else has written. Without one the bucket may be without
// a leader, and what answers a read behind the one that was: the result waits for the next.
func judgeEnd(write error, fate jobFate, now *messages.Job, read error, behind int) endAct {
	refused := messages.CodeOf(write) == messages.CodeConflict
	switch {
	case messages.CodeOf(read) == messages.CodeBadRequest:
		return endTerm
	case read != nil:
		return endWait
	}
	switch fate {
	case fateOver:
		if now.State.Ended() {
			return endAck
		}
		return endGiveBack
	case fateLost:
		return endLose
	case fateBehind:
		if refused && behind > missingLooks {
			return endLose
		}
		return endWait
	}
	if refused {
		return endAgain
	}
	return endWait
}
