package agent

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

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
		{"withdrawn", nil, nil, startDrop, "", 0, ""},
		{"ended", &messages.Job{State: messages.GoalSucceeded, Attempt: 1}, nil, startDrop, "", 0, ""},
		{"first", &messages.Job{State: messages.GoalAccepted}, nil, startRun, messages.GoalExecuting, 1, ""},
		{"its executor died", &messages.Job{State: messages.GoalExecuting, Attempt: 1, Agent: "other"}, nil, startRun, messages.GoalExecuting, 2, ""},
		{"last", &messages.Job{State: messages.GoalAccepted, Attempt: 2, Code: messages.CodeBackendFailed, Reason: "no"}, nil, startRun, messages.GoalExecuting, 3, ""},
		{"too often", &messages.Job{State: messages.GoalExecuting, Attempt: 3}, nil, startEnd, messages.GoalAborted, 3, messages.CodeBackendFailed},
		{"canceled while it waited", &messages.Job{State: messages.GoalCanceling}, nil, startEnd, messages.GoalCanceled, 0, messages.CodeCanceled},
		{"too late", &messages.Job{State: messages.GoalAccepted}, late, startEnd, messages.GoalAborted, 0, messages.CodeExpired},
	} {
		next, do := startJob(c.job, "me", 3, c.fault)
		if do != c.do || next.State != c.state || next.Attempt != c.attempt || next.Code != c.code {
			t.Errorf("%s: %d, %+v", c.name, do, next)
		}
		if do == startRun && (next.Agent != "me" || next.Reason != "") {
			t.Errorf("%s: %+v", c.name, next)
		}
	}
}

// attempts is what a record counts after an attempt: one that the agent cut off, because
// it leaves, is not the job's fault.
func attempts(begun int, cut bool) int {
	if cut {
		return begun - 1
	}
	return begun
}

func TestEndJob(t *testing.T) {
	failed := messages.Errorf(messages.CodeBackendFailed, "no")
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
		{"cut off in its last attempt", 3, messages.GoalExecuting, 0, messages.Errorf(messages.CodeDraining, "x"), true, messages.GoalAccepted, messages.CodeDraining, true, 0},
	} {
		job := messages.Job{ID: "j", State: c.state, Attempt: c.attempt, Agent: "me"}
		next, again, pause := endJob(job, backend.Response{Body: make([]byte, c.body)}, c.fault, 3, c.cut)
		if next.State != c.end || next.Code != c.code || again != c.again || pause != c.pause || next.Attempt != attempts(c.attempt, c.cut && c.fault != nil) {
			t.Errorf("%s: %v %v, %+v", c.name, again, pause, next)
		}
		if (next.State == messages.GoalSucceeded) != (len(next.Result) > 0) {
			t.Errorf("%s: a result of %d bytes with state %s", c.name, len(next.Result), next.State)
		}
	}
}
