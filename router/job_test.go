package router

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// change writes the record of a job, as its executor does.
func (f *fleet) change(id string, mod func(*messages.Job)) {
	f.t.Helper()
	kv, err := f.bus.KV(ctxFor(f.t), bus.Jobs)
	if err != nil {
		f.t.Fatal(err)
	}
	job, _, bad := readJob(ctxFor(f.t), kv, id)
	if messages.CodeOf(bad) == messages.CodeNotFound {
		job = messages.Job{ID: id, Task: "learn", Origin: "tester", Site: "main", State: messages.GoalAccepted}
	} else if bad != nil {
		f.t.Fatal(bad)
	}
	mod(&job)
	data, err := messages.Encode(&job)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := kv.Put(ctxFor(f.t), id, data); err != nil {
		f.t.Fatal(err)
	}
}

// queued returns the work items in the training queue.
func (f *fleet) queued() []*jetstream.RawStreamMsg {
	f.t.Helper()
	s, err := f.bus.JS.Stream(ctxFor(f.t), "FB__f__main__jobs")
	if err != nil {
		f.t.Fatal(err)
	}
	info, err := s.Info(ctxFor(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	var list []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		if m, err := s.GetMsg(ctxFor(f.t), seq); err == nil {
			list = append(list, m)
		}
	}
	return list
}

func TestSubmit(t *testing.T) {
	f := newFleet(t)
	f.plan(messages.TaskRoute{Task: messages.Task{Name: "learn", Class: messages.Training}}) // nobody serves it yet: it waits
	c := f.client()
	id, err := c.Submit(ctxFor(t), Job{Task: "learn", Body: []byte("epochs=1"), ContentType: "text/plain"})
	if err != nil {
		t.Fatal(err)
	}
	job, err := c.Job(ctxFor(t), id)
	if err != nil || job.State != messages.GoalAccepted || job.Task != "learn" || job.Origin != "tester" || job.Site != "main" || job.Attempt != 0 {
		t.Fatalf("got %+v, %v", job, err)
	}
	work := f.queued()
	if len(work) != 1 || work[0].Subject != "fb.f.main.jobs.normal.learn.tester."+id || string(work[0].Data) != "epochs=1" {
		t.Fatalf("got %+v", work)
	}
	at, err := messages.ParseSubject(work[0].Subject)
	if err != nil {
		t.Fatal(err)
	}
	req, err := messages.ParseJob(at, messages.Header(work[0].Header))
	if err != nil || req.ID != id || req.Left != messages.NoDeadline || req.Inbox != "" || req.ContentType != "text/plain" {
		t.Fatalf("got %+v, %v", req, err)
	}
}

func TestSubmitAgain(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"), task(messages.Training, "prune", "cloud"))
	c := f.client()
	job := Job{Task: "learn", Body: []byte("x"), Key: "run-7"}
	first, err := c.Submit(ctxFor(t), job)
	if err != nil {
		t.Fatal(err)
	}
	other := f.client(func(cfg *Config) { cfg.Origin = "somebody" })
	for range 3 {
		again, err := c.Submit(ctxFor(t), job)
		if err != nil || again != first {
			t.Fatalf("got %s, %v", again, err)
		}
	}
	theirs, err := other.Submit(ctxFor(t), job)
	if err != nil || theirs == first {
		t.Fatalf("got %s, %v", theirs, err)
	}
	if n := len(f.queued()); n != 2 {
		t.Fatalf("%d are queued", n)
	}
	_, err = c.Submit(ctxFor(t), Job{Task: "prune", Key: "run-7"})
	wantCode(t, err, messages.CodeConflict)

	// One that has ended is not begun again.
	f.change(first, func(j *messages.Job) { j.State, j.Attempt = messages.GoalSucceeded, 1 })
	if again, err := c.Submit(ctxFor(t), job); err != nil || again != first {
		t.Fatalf("got %s, %v", again, err)
	}
}

// One that has ended and has left its queue is not begun again.
func TestSubmitAgainAfterItsEnd(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	id, err := c.Submit(ctxFor(t), Job{Task: "learn", Key: "run-7"})
	if err != nil {
		t.Fatal(err)
	}
	f.change(id, func(j *messages.Job) { j.State, j.Attempt = messages.GoalSucceeded, 1 })
	w, err := c.work(ctxFor(t), messages.Subject{ID: id})
	for range 2 {
		if err == nil {
			err = f.bus.Remove(ctxFor(t), w)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Submit(ctxFor(t), Job{Task: "learn", Key: "run-7"}); err != nil || got != id {
		t.Fatalf("got %s, %v", got, err)
	}
	if n := len(f.queued()); n != 0 {
		t.Fatalf("%d are queued", n)
	}
	// Nor does it wait for what was told already.
	if job, err := c.Do(ctxFor(t), Job{Task: "learn", Key: "run-7"}, nil); err != nil || job.State != messages.GoalSucceeded {
		t.Fatalf("got %+v, %v", job, err)
	}
}

// The word that a job is stored is lost, and it ends and leaves its queue before it is
// published again: it does not run a second time.
func TestPublishedAgainAfterItsEnd(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	s, bad := c.prepare("tester", Job{Task: "learn", Key: "run-7"})
	if bad == nil {
		bad = c.publishJob(ctxFor(t), s, false)
	}
	if bad != nil {
		t.Fatal(bad)
	}
	f.change(s.req.ID, func(j *messages.Job) { j.State, j.Attempt = messages.GoalSucceeded, 1 })
	remove := func() {
		w, err := c.work(ctxFor(t), messages.Subject{ID: s.req.ID})
		if err == nil {
			err = f.bus.Remove(ctxFor(t), w)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	remove()
	// It was looked for a moment too early: the stream remembers it.
	if bad := c.publishJob(ctxFor(t), s, false); bad != nil || len(f.queued()) != 0 {
		t.Fatalf("%v, %d are queued", bad, len(f.queued()))
	}
	// The stream has forgotten it: its record tells.
	if err := f.bus.JS.DeleteStream(ctxFor(t), "FB__f__main__jobs"); err != nil {
		t.Fatal(err)
	}
	c.bus.Forget()
	if err := c.bus.Stream(ctxFor(t), "main", messages.Training); err != nil {
		t.Fatal(err)
	}
	if bad := c.publishJob(ctxFor(t), s, true); bad != nil || len(f.queued()) != 0 {
		t.Fatalf("%v, %d are queued", bad, len(f.queued()))
	}
	// Somebody has deleted one that nobody has begun: that is said, and not that it is stored.
	s, bad = c.prepare("tester", Job{Task: "learn", Key: "run-8"})
	if bad == nil {
		bad = c.publishJob(ctxFor(t), s, false)
	}
	if bad != nil {
		t.Fatal(bad)
	}
	remove()
	wantCode(t, c.publishJob(ctxFor(t), s, false), messages.CodeConflict)
}

// A queue that refuses: there is an error, and no record that would wait for ever.
func TestSubmitRefused(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	if _, err := f.bus.JS.CreateStream(ctxFor(t), jetstream.StreamConfig{
		Name: "FB__f__main__jobs", Subjects: []string{"fb.f.main.jobs.>"}, MaxMsgSize: 10,
	}); err != nil {
		t.Fatal(err)
	}
	c := f.client()
	_, err := c.Submit(ctxFor(t), Job{Task: "learn", Key: "run-7"})
	wantCode(t, err, messages.CodeUnavailable)
	_, err = c.Job(ctxFor(t), jobID("tester", "run-7"))
	wantCode(t, err, messages.CodeNotFound)
	_, err = c.Submit(ctxFor(t), Job{Task: "learn", Body: make([]byte, 9<<20)})
	wantCode(t, err, messages.CodePayloadTooLarge)
	_, err = c.Submit(ctxFor(t), Job{Task: "lern"})
	wantCode(t, err, messages.CodeNotFound)
}

func TestWait(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	id, err := c.Submit(ctxFor(t), Job{Task: "learn"})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan messages.Progress, 100)
	type end struct {
		job messages.Job
		err error
	}
	done := make(chan end, 1)
	go func() {
		job, err := c.Wait(ctxFor(t), id, func(p messages.Progress) { seen <- p })
		done <- end{job, err}
	}()
	s := f.bus.Subject(messages.KindProgress, "main")
	s.Agent, s.ID = "cloud", id
	data, err := messages.Encode(&messages.Progress{Job: id, Agent: "cloud", Attempt: 1, Done: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, wait, "a report", func() bool {
		if err := f.nc.Publish(s.String(), data); err != nil {
			t.Fatal(err)
		}
		select {
		case p := <-seen:
			return p.Done == 0.5
		default:
			return false
		}
	})
	f.change(id, func(j *messages.Job) { j.State, j.Attempt, j.Agent = messages.GoalExecuting, 1, "cloud" })
	f.change(id, func(j *messages.Job) { j.State, j.Result = messages.GoalSucceeded, []byte("weights") })
	e := next(t, "the end", done)
	if e.err != nil || e.job.State != messages.GoalSucceeded || string(e.job.Result) != "weights" {
		t.Fatalf("got %+v, %v", e.job, e.err)
	}
	if job, err := c.Wait(ctxFor(t), id, nil); err != nil || job.Agent != "cloud" { // it has ended already
		t.Fatalf("got %+v, %v", job, err)
	}
}

func TestWaitEnds(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	_, err := c.Wait(ctxFor(t), "nothing", nil)
	wantCode(t, err, messages.CodeNotFound)
	_, err = c.Wait(ctxFor(t), "a.b", nil)
	wantCode(t, err, messages.CodeBadRequest)
	id, err := c.Submit(ctxFor(t), Job{Task: "learn"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	job, err := c.Wait(ctx, id, nil)
	wantCode(t, err, messages.CodeDeadline)
	if job.State != messages.GoalAccepted {
		t.Fatalf("got %+v", job)
	}
}

// The server restarts while somebody waits.
func TestWaitThroughRestart(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	id, err := c.Submit(ctxFor(t), Job{Task: "learn"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		job, err := c.Wait(ctxFor(t), id, nil)
		if err == nil && job.State != messages.GoalSucceeded {
			err = messages.Errorf(messages.CodeInternal, "it is %s", job.State)
		}
		done <- err
	}()
	f.s.Restart(t)
	natstest.Eventually(t, wait, "the connection", func() bool { return f.nc.Stats().Reconnects > 0 && f.nc.IsConnected() })
	f.change(id, func(j *messages.Job) { j.State = messages.GoalSucceeded })
	if err := next(t, "the end", done); err != nil {
		t.Fatal(err)
	}
}

// A redrive whose answer was lost, and which finds its own record, has succeeded.
func TestRedrivable(t *testing.T) {
	in := func(state messages.GoalState, redriven int) messages.Job {
		return messages.Job{ID: "j", State: state, Redriven: redriven}
	}
	for _, c := range []struct {
		name  string
		job   messages.Job
		wrote int
		want  messages.Code // "": it is written
		done  bool
	}{
		{"a dead letter", in(messages.GoalAborted, 0), 0, "", false},
		{"one that was redriven before", in(messages.GoalAborted, 2), 0, "", false},
		{"one that was not written yet", in(messages.GoalAborted, 0), 1, "", false},
		{"one that waits", in(messages.GoalAccepted, 1), 0, messages.CodeConflict, false},
		{"one that was changed by somebody else", in(messages.GoalCanceled, 0), 1, messages.CodeConflict, false},
		{"one that this call has redriven", in(messages.GoalAccepted, 1), 1, "", true},
		{"likewise, and it runs", in(messages.GoalExecuting, 3), 3, "", true},
		{"likewise, and it failed again", in(messages.GoalAborted, 1), 1, "", true},
	} {
		err := redrivable(c.job, c.wrote)
		if errors.Is(err, errUnchanged) != c.done || !c.done && messages.CodeOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
