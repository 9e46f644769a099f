package messages

import (
	"strings"
	"testing"
	"time"
)

// A job needs no header; what stands in one must agree with the subject.
func TestParseJob(t *testing.T) {
	s := Subject{Kind: KindJob, Fleet: "demo", Site: "main", Priority: High, Task: "fit", Origin: "lab", ID: "j1"}
	want := Request{ID: "j1", Class: Training, Task: "fit", Origin: "lab", Attempt: 1, Left: NoDeadline}
	if got, err := ParseJob(s, nil); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	want.Inbox, want.Key, want.ContentType, want.Traceparent = "x1", "night-1", "text/plain", "00-1"
	if got, err := ParseJob(s, new(Headers).Job(&want)); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseJob(s, want.Header()); err != nil || got != want {
		t.Errorf("with all that a request has: %+v, %v", got, err)
	}
	if got, err := ParseJob(s, Header{HeaderAttempt: {"3"}, HeaderLeft: {"1500"}}); err != nil || got.Attempt != 3 || got.Left != 1500*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}
	for _, h := range []Header{
		{HeaderTask: {"other"}}, {HeaderOrigin: {"somebody"}}, {HeaderID: {"j2"}}, {HeaderClass: {"inference"}}, {HeaderID: {"j1", "j1"}},
		{HeaderAttempt: {"0"}}, {HeaderAttempt: {"x"}}, {HeaderLeft: {"-1"}}, {HeaderInbox: {"a.b"}},
	} {
		if got, err := ParseJob(s, h); CodeOf(err) != CodeBadRequest {
			t.Errorf("%v: %+v, %v", h, got, err)
		}
	}
	if _, err := ParseJob(Subject{Kind: KindWork}, nil); CodeOf(err) != CodeBadRequest {
		t.Errorf("of another kind: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		task Task
		n    int
		want time.Duration
	}{
		{Task{}, 1, time.Second}, {Task{}, 3, 4 * time.Second}, {Task{}, 1000, time.Minute},
		{Task{RetryPause: 500}, 2, time.Second}, {Task{RetryPause: 300_000}, 9, 5 * time.Minute},
		{Task{RetryPause: 1000, RetryMost: 3000}, 3, 3 * time.Second}, {Task{RetryMost: 1}, 1, time.Millisecond},
	} {
		if got := c.task.RetryAfter(c.n); got != c.want {
			t.Errorf("%+v after %d: %v, want %v", c.task, c.n, got, c.want)
		}
	}
	if err := (Task{Name: "t", Class: Inference, RetryPause: 1}).Check("task."); err == nil || !strings.Contains(err.Error(), "only jobs wait") {
		t.Errorf("%v", err)
	}
}

// A record remembers the last attempts, and copies of it do not share what they remember.
func TestRemember(t *testing.T) {
	var job Job
	for n := range MaxHistory + 5 {
		job.Attempt = n + 1
		job.Remember(CodeBackendFailed, "line\nend")
	}
	if len(job.History) != MaxHistory || job.History[0].Attempt != 6 || job.History[MaxHistory-1].Reason != "line end" {
		t.Errorf("%+v", job.History)
	}
	one, two := job, job
	one.Remember(CodeBackendFailed, "one")
	two.Remember(CodeBackendFailed, "two")
	if one.History[MaxHistory-1].Reason != "one" || two.History[MaxHistory-1].Reason != "two" {
		t.Error("they share it")
	}
}
