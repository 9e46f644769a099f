package route

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func TestSweep(t *testing.T) {
	in := func(s messages.GoalState) *messages.Job {
		return &messages.Job{ID: "j", Task: "t", State: s, Attempt: 2, Agent: "a"}
	}
	paused := in(messages.GoalAccepted)
	paused.Pause = 60_000
	for _, c := range []struct {
		name string
		v    JobView
		want JobAct
		once bool // at the first look already
	}{
		{"it waits", JobView{Stands: time.Hour}, SweepNothing, false},
		{"it was just delivered", JobView{Delivered: true, Stands: time.Second}, SweepNothing, false},
		{"nobody writes that it runs", JobView{Delivered: true, Stands: time.Minute}, SweepRelease, false},
		{"somebody acknowledged it unbegun", JobView{Delivered: true, Acked: true, Stands: time.Minute}, SweepRenew, false},
		{"it ended long ago", JobView{Delivered: true, Acked: true, Stands: time.Minute, Age: 31 * 24 * time.Hour}, SweepRemove, true},
		{"it succeeded", JobView{Record: in(messages.GoalSucceeded)}, SweepRemove, true},
		{"it was canceled", JobView{Record: in(messages.GoalCanceled)}, SweepRemove, true},
		{"a dead letter", JobView{Record: in(messages.GoalAborted), Delivered: true, Acked: true, Stands: time.Hour}, SweepNothing, false},
		{"a record of nonsense", JobView{Unreadable: true, Delivered: true, Acked: true, Stands: time.Hour}, SweepNothing, false},
		{"it runs", JobView{Record: in(messages.GoalExecuting), Holder: HolderHas, Delivered: true, Stands: time.Hour}, SweepNothing, false},
		{"it runs, acknowledged by somebody else", JobView{Record: in(messages.GoalExecuting), Holder: HolderHas, Delivered: true, Acked: true, Stands: time.Hour}, SweepNothing, false},
		{"its agent is silent", JobView{Record: in(messages.GoalExecuting), Delivered: true, Stands: time.Hour}, SweepNothing, false},
		{"its agent is gone", JobView{Record: in(messages.GoalExecuting), Holder: HolderGone, Delivered: true}, SweepTake, false},
		{"likewise, and it is being canceled", JobView{Record: in(messages.GoalCanceling), Holder: HolderGone, Delivered: true}, SweepTake, false},
		{"it was taken away just now", JobView{Record: in(messages.GoalAccepted), Delivered: true, Idle: true, Stands: time.Second}, SweepNothing, false},
		{"it pauses", JobView{Record: paused, Delivered: true, Idle: true, Stands: time.Minute}, SweepNothing, false},
		{"its pause is over", JobView{Record: paused, Delivered: true, Idle: true, Stands: 63 * time.Second}, SweepRelease, false},
		{"all slots are taken", JobView{Record: in(messages.GoalAccepted), Delivered: true, Stands: time.Hour}, SweepNothing, false},
		{"those that came later are delivered", JobView{Record: in(messages.GoalAccepted), Delivered: true, Passed: true, Stands: time.Hour}, SweepRenew, false},
		{"likewise, and nobody has written that it runs", JobView{Delivered: true, Passed: true, Stands: time.Hour}, SweepRenew, false},
		{"likewise, and it runs", JobView{Record: in(messages.GoalExecuting), Holder: HolderHas, Delivered: true, Passed: true, Stands: time.Hour}, SweepNothing, false},
		{"somebody acknowledged it between attempts", JobView{Record: in(messages.GoalAccepted), Delivered: true, Acked: true, Stands: time.Hour}, SweepRenew, false},
		{"queued again, it waits", JobView{Record: in(messages.GoalAccepted), Stands: time.Hour}, SweepNothing, false},
		{"its queue gave it up", JobView{Record: in(messages.GoalAccepted), Delivered: true, Exhausted: 7, Stands: time.Hour}, SweepBury, false},
		{"its queue gave it up while it runs", JobView{Record: in(messages.GoalExecuting), Holder: HolderHas, Exhausted: 7, Stands: time.Hour}, SweepNothing, false},
		{"its queue gave it up, and its agent is gone", JobView{Record: in(messages.GoalExecuting), Holder: HolderGone, Exhausted: 7}, SweepBury, false},
	} {
		v := c.v
		for v.Looks = 1; v.Looks <= SweepLooks; v.Looks++ {
			want := c.want
			if v.Looks < SweepLooks && !c.once {
				want = SweepNothing
			}
			if got := v.Sweep(); got != want {
				t.Errorf("%s: look %d: %d, want %d", c.name, v.Looks, got, want)
			}
		}
		if v.Wanting() != (c.want != SweepNothing) {
			t.Errorf("%s: wanting is %v", c.name, v.Wanting())
		}
	}
	// Released again and again, pulls waiting: nobody will ever deliver it.
	if got := (JobView{Delivered: true, Idle: true, Stands: time.Hour, Looks: 2*SweepLooks + 1}).Sweep(); got != SweepRenew {
		t.Errorf("released in vain: %d", got)
	}
}

func TestOverdue(t *testing.T) {
	in := func(s messages.GoalState, pause float64) *messages.Job { return &messages.Job{State: s, Pause: pause} }
	for _, c := range []struct {
		name string
		v    JobView
		want bool
	}{
		{"it waits for its turn", JobView{Stands: time.Hour}, false},
		{"it runs", JobView{Record: in(messages.GoalExecuting, 0), Delivered: true, Stands: time.Hour}, false},
		{"it was given back just now", JobView{Record: in(messages.GoalAccepted, 0), Delivered: true, Stands: 59 * time.Second}, false},
		{"it was given back long ago", JobView{Record: in(messages.GoalAccepted, 0), Delivered: true, Stands: time.Minute}, true},
		{"it pauses", JobView{Record: in(messages.GoalAccepted, 60_000), Delivered: true, Stands: 119 * time.Second}, false},
		{"its pause is over", JobView{Record: in(messages.GoalAccepted, 60_000), Delivered: true, Stands: 2 * time.Minute}, true},
		{"nobody has written anything", JobView{Delivered: true, Stands: time.Minute}, true},
		{"a record of nonsense", JobView{Unreadable: true, Delivered: true, Stands: time.Hour}, false},
	} {
		if c.v.Overdue() != c.want {
			t.Errorf("%s: %v", c.name, !c.want)
		}
	}
}

func TestTaken(t *testing.T) {
	job := messages.Job{ID: "j", Task: "t", State: messages.GoalExecuting, Attempt: 2, Agent: "cloud", Inc: messages.Incarnation{Epoch: 1}}
	if got := Taken(job, 0); got.State != messages.GoalAccepted || got.Attempt != 2 || got.Agent != "" || !got.Inc.IsZero() || len(got.History) != 1 || got.History[0].Agent != "cloud" {
		t.Errorf("%+v", got)
	}
	if got := Taken(job, 7); got.State != messages.GoalAborted || !strings.Contains(got.Reason, "delivered it 7 times") || len(got.History) != 1 {
		t.Errorf("%+v", got)
	}
	if got := Orphaned(job); got.State != messages.GoalAborted || got.Reason == "" {
		t.Errorf("%+v", got)
	}
	// Taken again and again, it pauses; whatever else happens to it in between ends that.
	again, want := job, []float64{0, 5000, 10_000, 20_000, 40_000, 60_000, 60_000}
	for n, pause := range want {
		again = Taken(again, 0)
		if again.Pause != pause {
			t.Errorf("taken %d times: %v ms, want %v", n+1, again.Pause, pause)
		}
		again.State, again.Agent, again.Attempt = messages.GoalExecuting, "edge", again.Attempt+1
	}
	again.Remember(messages.CodeBackendFailed, "no")
	if again = Taken(again, 0); again.Pause != 0 {
		t.Errorf("%+v", again)
	}
	if got := Unbegun(messages.Job{ID: "j", Task: "t", State: messages.GoalAccepted}, 3); got.State != messages.GoalAccepted || got.Attempt != 3 || got.Free != 1 || got.Reason == "" {
		t.Errorf("%+v", got)
	}
	job.State = messages.GoalCanceling
	if got := Taken(job, 0); got.State != messages.GoalCanceled {
		t.Errorf("%+v", got)
	}
}
