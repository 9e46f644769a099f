package router

import (
	"sync/atomic"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// execute plays an executor: it takes the jobs that come and ends each as end says.
func (f *fleet) execute(end func(job messages.Job, req messages.Request)) {
	f.t.Helper()
	sub, err := f.nc.Subscribe("fb.f.main.jobs.>", func(m *nats.Msg) {
		s, err := messages.ParseSubject(m.Subject)
		if err != nil {
			f.t.Error(err)
			return
		}
		req, err := messages.ParseJob(s, messages.Header(m.Header))
		if err != nil {
			f.t.Error(err)
			return
		}
		go end(messages.Job{ID: s.ID, Task: s.Task, Origin: s.Origin, Site: s.Site, Agent: "cloud", Attempt: 1}, req)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := f.nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
}

// Whoever waits for a job is told by its executor, or finds its record.
func TestDo(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	mode := make(chan string, 10)
	f.execute(func(job messages.Job, req messages.Request) {
		how := <-mode
		job.State, job.Result = messages.GoalSucceeded, []byte("weights")
		if how == "fails" {
			job.State, job.Result, job.Code, job.Reason = messages.GoalAborted, nil, messages.CodeBackendFailed, "no"
		}
		f.change(job.ID, func(j *messages.Job) { *j = job })
		if how == "silent" {
			return // its word is lost
		}
		r := messages.Reply{Kind: messages.ReplyResult, ID: job.ID, Job: job.ID, Attempt: 1}
		if job.Code != "" {
			r.Err = &messages.Error{Code: job.Code, Message: job.Reason}
		}
		s := f.bus.Subject(messages.KindReply, "main")
		s.Agent, s.Origin, s.ID = "cloud", req.Origin, req.Inbox
		if err := f.nc.PublishMsg(&nats.Msg{Subject: s.String(), Header: nats.Header(r.Header()), Data: job.Result}); err != nil {
			t.Error(err)
		}
	})
	for _, how := range []string{"told", "silent", "told", "fails"} { // the first makes the stream
		mode <- how
		job, err := c.Do(ctxFor(t), Job{Task: "learn", Body: []byte("x")}, nil)
		want := messages.GoalSucceeded
		if how == "fails" {
			want = messages.GoalAborted
		}
		if err != nil || job.State != want || job.Agent != "cloud" || job.Site != "main" || want == messages.GoalSucceeded && string(job.Result) != "weights" {
			t.Errorf("%s: %+v, %v", how, job, err)
		}
	}
	if n := c.manyWait(); n != 0 {
		t.Errorf("%d are still waited for", n)
	}
	// A stream that is gone is made again.
	if err := f.bus.JS.DeleteStream(ctxFor(t), "FB__f__main__jobs"); err != nil {
		t.Fatal(err)
	}
	mode <- "told"
	if job, err := c.Do(ctxFor(t), Job{Task: "learn"}, nil); err != nil || job.State != messages.GoalSucceeded {
		t.Errorf("%+v, %v", job, err)
	}
	_, err := c.Do(ctxFor(t), Job{Task: "lern"}, nil)
	wantCode(t, err, messages.CodeNotFound)
}

// Two wait for one job on one client: both hear of it, and the second one's going takes
// nothing from the first.
func TestDoTwice(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	var begun atomic.Bool
	f.execute(func(job messages.Job, req messages.Request) {
		if begun.Swap(true) {
			return // what the stream refuses comes here, too
		}
		job.State, job.Result = messages.GoalSucceeded, []byte("weights")
		f.change(job.ID, func(j *messages.Job) { *j = job })
		r := messages.Reply{Kind: messages.ReplyResult, ID: job.ID, Job: job.ID, Attempt: 1}
		s := f.bus.Subject(messages.KindReply, "main")
		s.Agent, s.Origin, s.ID = "cloud", req.Origin, req.Inbox
		if err := f.nc.PublishMsg(&nats.Msg{Subject: s.String(), Header: nats.Header(r.Header()), Data: job.Result}); err != nil {
			t.Error(err)
		}
	})
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			job, err := c.Do(ctxFor(t), Job{Task: "learn", Key: "run-7"}, nil)
			if err == nil && (job.State != messages.GoalSucceeded || string(job.Result) != "weights") {
				err = messages.Errorf(messages.CodeInternal, "it is %+v", job)
			}
			ended <- err
		}()
	}
	for range 2 {
		if err := next(t, "its end", ended); err != nil {
			t.Error(err)
		}
	}

	// Whichever of them comes first, each hears of all.
	one, two := c.expectJob("j"), c.expectJob("j")
	c.forgetJob("j", two)
	three := c.expectJob("j")
	c.jobAcked("j", &nats.Msg{Data: []byte(`{"stream":"S","seq":7}`)})
	c.jobAcked("j", &nats.Msg{Data: []byte(`{"error":{"code":400,"err_code":10071}}`)})
	c.jobEnded(messages.Subject{Agent: "cloud"}, messages.Reply{Job: "j"}, nil)
	for _, e := range []*ending{one, three} {
		if len(e.end) != 1 || !e.stored.Load() || len(e.refused) != 0 {
			t.Errorf("ended %d, stored %v, refused %d", len(e.end), e.stored.Load(), len(e.refused))
		}
		c.forgetJob("j", e)
	}
	if len(two.end) != 0 || c.manyWait() != 0 {
		t.Errorf("who is gone was told %d times; %d wait", len(two.end), c.manyWait())
	}
}

func (c *Client) manyWait() int {
	c.ends.mu.Lock()
	defer c.ends.mu.Unlock()
	return len(c.ends.m)
}
