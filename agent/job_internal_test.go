package agent

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

func TestJobSeen(t *testing.T) {
	for _, c := range []struct {
		name      string
		delivered uint64
		attempt   int
		age       time.Duration
		known     bool
		want      seenJob
	}{
		{"new", 1, 1, firstSure, true, seenNever},
		{"it waited, or its queue was made again", 1, 1, firstSure + 1, true, seenPerhaps},
		{"the server's clock was not read", 1, 1, 0, false, seenPerhaps},
		{"delivered before", 2, 1, 0, true, seenBefore},
		{"queued again", 1, 2, 0, true, seenBefore},
		{"queued again long ago", 1, 2, time.Hour, true, seenBefore},
	} {
		if got := jobSeen(c.delivered, c.attempt, c.age, c.known); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestStartJob(t *testing.T) {
	late := messages.Errorf(messages.CodeExpired, "late")
	for _, c := range []struct {
		name    string
		job     *messages.Job
		fault   *messages.Error
		do      jobStart
		state   messages.GoalState
		attempt int
		code    messages.Code
	}{
		{"delivered, and nobody wrote that", nil, nil, startRun, messages.GoalExecuting, 2, ""},
		{"too late, and nobody has begun it", nil, late, startEnd, messages.GoalAborted, 0, messages.CodeExpired},
		{"redriven", &messages.Job{State: messages.GoalAccepted, Attempt: 3, Free: 3}, nil, startRun, messages.GoalExecuting, 4, ""},
		{"ended", &messages.Job{State: messages.GoalSucceeded, Attempt: 1}, nil, startDrop, "", 0, ""},
		{"a dead letter", &messages.Job{State: messages.GoalAborted, Attempt: 1}, nil, startDrop, "", 0, ""},
		{"redriven, and the record is behind", &messages.Job{State: messages.GoalAborted}, nil, startStale, "", 0, ""},
		{"likewise, and too late", &messages.Job{State: messages.GoalAborted}, late, startStale, "", 0, ""},
		{"canceled before it was begun", &messages.Job{State: messages.GoalCanceled}, nil, startDrop, "", 0, ""},
		{"first", &messages.Job{State: messages.GoalAccepted}, nil, startRun, messages.GoalExecuting, 1, ""},
		{"its executor died", &messages.Job{State: messages.GoalExecuting, Attempt: 1, Agent: "other"}, nil, startRun, messages.GoalExecuting, 2, ""},
		{"last", &messages.Job{State: messages.GoalAccepted, Attempt: 2, Code: messages.CodeBackendFailed, Reason: "no"}, nil, startRun, messages.GoalExecuting, 3, ""},
		{"too often", &messages.Job{State: messages.GoalExecuting, Attempt: 3}, nil, startEnd, messages.GoalAborted, 3, messages.CodeBackendFailed},
		{"canceled while it waited", &messages.Job{State: messages.GoalCanceling}, nil, startEnd, messages.GoalCanceled, 0, messages.CodeCanceled},
		{"too late", &messages.Job{State: messages.GoalAccepted}, late, startEnd, messages.GoalAborted, 0, messages.CodeExpired},
	} {
		next, do := startJob(c.job, messages.Job{ID: "j", Task: "t", State: messages.GoalExecuting, Attempt: 1, Agent: "me"}, 3, c.fault)
		if do != c.do || next.State != c.state || next.Attempt != c.attempt || next.Code != c.code {
			t.Errorf("%s: %d, %+v", c.name, do, next)
		}
		if do == startRun && (next.Agent != "me" || next.Reason != "") {
			t.Errorf("%s: %+v", c.name, next)
		}
	}
}

// A job that was delivered and not begun, as far as anybody knows, has all its attempts.
func TestStartJobWithoutRecord(t *testing.T) {
	for _, attempt := range []int{1, 2, 7} {
		next, do := startJob(nil, messages.Job{ID: "j", Task: "t", State: messages.GoalExecuting, Attempt: attempt, Agent: "me"}, 1, nil)
		if do != startRun || next.Attempt != attempt+1 || next.Free != attempt {
			t.Errorf("attempt %d: %d, %+v", attempt, do, next)
		}
		// And no more than that: its executor dies.
		if end, do := startJob(&next, messages.Job{ID: "j", Agent: "other"}, 1, nil); do != startEnd || end.State != messages.GoalAborted {
			t.Errorf("attempt %d, once more: %d, %+v", attempt, do, end)
		}
	}
}

func TestEndJob(t *testing.T) {
	failed := messages.Errorf(messages.CodeBackendFailed, "no")
	task := messages.Task{MaxAttempts: 3}
	for _, c := range []struct {
		name    string
		attempt int
		state   messages.GoalState
		body    int
		fault   *messages.Error
		cut     bool
		end     messages.GoalState
		code    messages.Code
		again   bool
		pause   time.Duration
	}{
		{"good", 1, messages.GoalExecuting, 10, nil, false, messages.GoalSucceeded, "", false, 0},
		{"good though canceled", 1, messages.GoalCanceling, 10, nil, false, messages.GoalSucceeded, "", false, 0},
		{"good though the agent leaves", 1, messages.GoalExecuting, 10, nil, true, messages.GoalSucceeded, "", false, 0},
		{"too large", 1, messages.GoalExecuting, maxResult + 1, nil, false, messages.GoalAborted, messages.CodePayloadTooLarge, false, 0},
		{"failed", 2, messages.GoalExecuting, 0, failed, false, messages.GoalAccepted, messages.CodeBackendFailed, true, 2 * time.Second},
		{"failed for the last time", 3, messages.GoalExecuting, 0, failed, false, messages.GoalAborted, messages.CodeBackendFailed, false, 0},
		{"failed for good", 1, messages.GoalExecuting, 0, messages.Errorf(messages.CodeBadRequest, "no"), false, messages.GoalAborted, messages.CodeBadRequest, false, 0},
		{"canceled", 1, messages.GoalExecuting, 0, messages.Errorf(messages.CodeCanceled, "x"), false, messages.GoalCanceled, messages.CodeCanceled, false, 0},
		{"failed while canceling", 1, messages.GoalCanceling, 0, failed, false, messages.GoalCanceled, messages.CodeCanceled, false, 0},
		{"cut off", 1, messages.GoalExecuting, 0, messages.Errorf(messages.CodeDraining, "x"), true, messages.GoalAccepted, messages.CodeDraining, true, 0},
		{"its checkpoint cannot be read", 3, messages.GoalExecuting, 0, messages.Errorf(messages.CodeUnavailable, "x"), true, messages.GoalAccepted, messages.CodeUnavailable, true, 0},
		{"cut off in its last attempt", 3, messages.GoalExecuting, 0, messages.Errorf(messages.CodeDraining, "x"), true, messages.GoalAccepted, messages.CodeDraining, true, 0},
	} {
		job := messages.Job{ID: "j", State: c.state, Attempt: c.attempt, Agent: "me"}
		next, again, pause := endJob(job, backend.Response{Body: make([]byte, c.body)}, c.fault, task, c.cut)
		if next.State != c.end || next.Code != c.code || again != c.again || pause != c.pause || next.Attempt != c.attempt {
			t.Errorf("%s: %v %v, %+v", c.name, again, pause, next)
		}
		// An attempt that the agent cut off is not the job's fault; every other is remembered.
		if free := c.cut && c.fault != nil; (next.Free == 1) != free || len(next.History) != b2i(c.fault != nil && !free && next.State != messages.GoalCanceled || c.body > maxResult) {
			t.Errorf("%s: %+v", c.name, next)
		}
		if (next.State == messages.GoalSucceeded) != (len(next.Result) > 0) {
			t.Errorf("%s: a result of %d bytes with state %s", c.name, len(next.Result), next.State)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestJudgeEnd(t *testing.T) {
	conflict, away, garbage := messages.Errorf(messages.CodeConflict, "x"), messages.Errorf(messages.CodeUnavailable, "x"), messages.Errorf(messages.CodeBadRequest, "x")
	ended, again := &messages.Job{State: messages.GoalSucceeded}, &messages.Job{State: messages.GoalAccepted}
	for _, c := range []struct {
		name   string
		write  *messages.Error
		fate   jobFate
		now    *messages.Job
		read   error
		behind int
		want   endAct
	}{
		{"its revision has changed", conflict, fateMine, again, nil, 0, endAgain},
		{"no leader", away, fateMine, again, nil, 0, endWait},
		{"nobody answers", away, fateBehind, nil, away, 0, endWait},
		{"no leader, and a server that is behind", away, fateBehind, nil, nil, 1000, endWait},
		{"refused, and a server that is behind", conflict, fateBehind, nil, nil, missingLooks, endWait},
		{"refused, and the record is gone", conflict, fateBehind, nil, nil, missingLooks + 1, endLose},
		{"stored, and the answer lost", away, fateOver, ended, nil, 0, endAck},
		{"likewise, of one that is begun again", conflict, fateOver, again, nil, 0, endGiveBack},
		{"taken over", conflict, fateLost, again, nil, 0, endLose},
		{"a record that nobody can read", conflict, fateBehind, nil, garbage, 0, endTerm},
	} {
		if got := judgeEnd(c.write, c.fate, c.now, c.read, c.behind); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// Whatever a handler says, the record of its job fits into a message.
func TestRecordIsBounded(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	job := messages.Job{ID: "j", Task: "t", Attempt: 1, State: messages.GoalExecuting}
	for range messages.MaxHistory {
		job, _, _ = endJob(job, backend.Response{}, messages.Errorf(messages.CodeBackendFailed, "%s", long), messages.Task{MaxAttempts: 100}, false)
		job.State, job.Attempt = messages.GoalExecuting, job.Attempt+1
	}
	canceled, _, _ := endJob(job, backend.Response{}, messages.Errorf(messages.CodeCanceled, "%s", long), messages.Task{}, false)
	spent, _ := startJob(&job, job, 1, nil)
	late, _ := startJob(&job, job, 1, messages.Errorf(messages.CodeExpired, "%s", long))
	good, _, _ := endJob(job, backend.Response{ContentType: long}, nil, messages.Task{}, false)
	for name, j := range map[string]messages.Job{"failed": job, "canceled": canceled, "spent": spent, "late": late, "good": good} {
		data, err := messages.Encode(&j)
		if err != nil || len(data) > 32<<10 || !utf8.ValidString(j.Reason) || len(j.Type) > maxContentType {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}

func TestJudgeJob(t *testing.T) {
	inc := messages.Incarnation{Epoch: 1, Revision: 2}
	mine := messages.Job{ID: "j", State: messages.GoalExecuting, Attempt: 2, Agent: "me", Inc: inc}
	with := func(f func(*messages.Job)) *messages.Job {
		j := mine
		f(&j)
		return &j
	}
	for _, c := range []struct {
		name  string
		now   *messages.Job
		wrote bool
		want  jobFate
	}{
		{"no record yet", nil, false, fateMine},
		{"a read from a server that is behind", nil, true, fateBehind},
		{"likewise", with(func(j *messages.Job) { j.Attempt = 1 }), true, fateBehind},
		{"canceled before it was begun", with(func(j *messages.Job) { j.Attempt, j.State = 0, messages.GoalCanceled }), false, fateOver},
		{"redriven, and the record is behind", with(func(j *messages.Job) { j.Attempt, j.State = 1, messages.GoalAborted }), false, fateBehind},
		{"redriven meanwhile", with(func(j *messages.Job) { j.Attempt, j.State = 1, messages.GoalAccepted }), false, fateMine},
		{"own write, not confirmed", with(func(*messages.Job) {}), false, fateMine},
		{"being canceled", with(func(j *messages.Job) { j.State = messages.GoalCanceling }), true, fateMine},
		{"own last word, not confirmed", with(func(j *messages.Job) { j.State = messages.GoalAccepted }), true, fateOver},
		{"ended", with(func(j *messages.Job) { j.State = messages.GoalSucceeded }), true, fateOver},
		{"a newer attempt", with(func(j *messages.Job) { j.Attempt = 3 }), true, fateLost},
		{"taken away", with(func(j *messages.Job) { j.Agent, j.State = "", messages.GoalAccepted }), true, fateLost},
		{"a later life of this agent", with(func(j *messages.Job) { j.Inc.Revision = 3 }), true, fateLost},
	} {
		if got := judgeJob(c.now, mine, c.wrote); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
