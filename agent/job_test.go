package agent_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

func training(name string) messages.Task {
	t := inference(name)
	t.Class = messages.Training
	return t
}

// submit submits a job as a client does and returns its id.
func (c *caller) submit(task, body string) string {
	c.t.Helper()
	req := c.request(messages.Training, task)
	req.ID, req.Inbox, req.Left = nuid.Next(), "", messages.NoDeadline
	c.queue(req, body)
	return req.ID
}

// job returns the record of a job once ok holds.
func (g *rig) job(id, what string, ok func(messages.Job) bool) messages.Job {
	g.t.Helper()
	kv, err := g.bus.KV(g.ctx(), bus.Jobs)
	if err != nil {
		g.t.Fatal(err)
	}
	var job messages.Job
	natstest.Eventually(g.t, patience, what, func() bool {
		e, err := kv.Get(g.ctx(), id)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return false // it waits for its first attempt, or is short
		}
		if err != nil {
			g.t.Fatal(err)
		}
		job = messages.Job{}
		if err := messages.Decode(e.Value(), &job); err != nil {
			g.t.Fatal(err)
		}
		return ok(job)
	})
	return job
}

// submitAt is submit with a priority.
func (c *caller) submitAt(p messages.Priority, task, body string) string {
	c.t.Helper()
	req := c.request(messages.Training, task)
	req.ID, req.Inbox, req.Left = nuid.Next(), "", messages.NoDeadline
	if err := c.bus.Stream(c.ctx(), site, req.Class); err != nil {
		c.t.Fatal(err)
	}
	s := c.bus.Subject(messages.KindJob, site)
	s.Priority, s.Task, s.Origin, s.ID = p, req.Task, req.Origin, req.ID
	if _, err := c.bus.JS.PublishMsg(c.ctx(), &nats.Msg{Subject: s.String(), Header: nats.Header(req.Header()), Data: []byte(body)}); err != nil {
		c.t.Fatal(err)
	}
	return req.ID
}

func (g *rig) jobEnds(id string) messages.Job {
	g.t.Helper()
	return g.job(id, "the job to end", func(j messages.Job) bool { return j.State.Ended() })
}

// queued is how many jobs wait in the queue or run.
func (g *rig) queued() uint64 {
	g.t.Helper()
	c, err := g.bus.Consumer(g.ctx(), site, messages.Training, "fit")
	if err != nil {
		g.t.Fatal(err)
	}
	info := c.CachedInfo()
	return info.NumPending + uint64(info.NumAckPending)
}

func (g *rig) queueIsEmpty() {
	g.t.Helper()
	natstest.Eventually(g.t, patience, "the queue to be empty", func() bool { return g.queued() == 0 })
}

func TestJobIsStoredBeforeItLeavesTheQueue(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	fit := agent.Func("fit", func(ctx context.Context, r *agent.Request) ([]byte, error) {
		r.Progress(0.5, "half way")
		at.entered <- r
		return []byte(<-at.open), nil
	})
	g.run("cloud", nil, fit)
	g.place("cloud", training("fit"))
	progress := make(chan messages.Progress, 10)
	g.subscribe(g.bus.Subject(messages.KindProgress, site).String(), func(m *nats.Msg) {
		var p messages.Progress
		if err := messages.Decode(m.Data, &p); err != nil {
			t.Error(err)
		}
		progress <- p
	})
	id := g.caller("lab").submit("fit", "data")
	if r := at.in(t); r.ID != id || r.Attempt != 1 || string(r.Body) != "data" {
		t.Errorf("%+v", r.Request)
	}
	if p := <-progress; p.Job != id || p.Done != 0.5 || p.Note != "half way" || p.Agent != "cloud" || p.Attempt != 1 {
		t.Errorf("%+v", p)
	}
	j := g.job(id, "the job to run", func(j messages.Job) bool { return j.State == messages.GoalExecuting })
	if j.Attempt != 1 || j.Agent != "cloud" || g.queued() != 1 {
		t.Errorf("%+v", j)
	}
	at.open <- "weights"
	if j := g.jobEnds(id); j.State != messages.GoalSucceeded || string(j.Result) != "weights" {
		t.Errorf("%+v", j)
	}
	g.queueIsEmpty()
}

func TestJobsThatFail(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	fit := agent.Func("fit", func(ctx context.Context, r *agent.Request) ([]byte, error) {
		switch string(r.Body) {
		case "twice":
			if r.Attempt == 1 {
				return nil, errors.New("out of memory")
			}
			return []byte("done"), nil
		case "panic":
			panic("diverged")
		case "large":
			return make([]byte, 600<<10), nil
		}
		return nil, messages.Errorf(messages.CodeBadRequest, "no data")
	})
	task := training("fit")
	task.Concurrency, task.MaxAttempts = 4, 2
	g.run("cloud", nil, fit)
	g.place("cloud", task)
	c := g.caller("lab")
	twice, panics, large, bad := c.submit("fit", "twice"), c.submit("fit", "panic"), c.submit("fit", "large"), c.submit("fit", "bad")

	j := g.job(twice, "the first attempt to fail", func(j messages.Job) bool { return j.State == messages.GoalAccepted && j.Reason != "" })
	if j.Code != messages.CodeBackendFailed || !strings.Contains(j.Reason, "out of memory") || j.Attempt != 1 {
		t.Errorf("%+v", j)
	}
	if j := g.jobEnds(twice); j.State != messages.GoalSucceeded || j.Attempt != 2 || j.Reason != "" {
		t.Errorf("%+v", j)
	}
	for _, s := range []struct {
		id, text string
		attempt  int
		code     messages.Code
	}{
		{panics, "diverged", 2, messages.CodeBackendFailed},
		{large, "the result has 614400 bytes, allowed are 524288", 1, messages.CodePayloadTooLarge},
		{bad, "no data", 1, messages.CodeBadRequest},
	} {
		if j := g.jobEnds(s.id); j.State != messages.GoalAborted || j.Code != s.code || j.Attempt != s.attempt || !strings.Contains(j.Reason, s.text) {
			t.Errorf("%+v, want %+v", j, s)
		}
	}
	g.queueIsEmpty()
}

func TestJobsThatMustNotRun(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	ran := make(chan string, 10)
	fit := agent.Func("fit", func(_ context.Context, r *agent.Request) ([]byte, error) { ran <- r.ID; return nil, nil })
	c := g.caller("lab")
	again := func() string {
		req := c.request(messages.Training, "fit")
		req.ID, req.Inbox, req.Left, req.Attempt = nuid.Next(), "", messages.NoDeadline, 2
		c.queue(req, "")
		return req.ID
	}
	ended, canceling, spent := again(), again(), again()
	record := messages.Job{Task: "fit", Origin: "lab", Site: site}
	for id, change := range map[string]func(*messages.Job){
		ended:     func(j *messages.Job) { j.State, j.Result = messages.GoalSucceeded, []byte("old") },
		canceling: func(j *messages.Job) { j.State = messages.GoalCanceling },
		spent:     func(j *messages.Job) { j.State, j.Attempt = messages.GoalExecuting, messages.DefaultMaxAttempts },
	} {
		j := record
		j.ID = id
		change(&j)
		g.put(bus.Jobs, id, &j)
	}
	g.run("cloud", nil, fit)
	g.place("cloud", training("fit"))
	g.queueIsEmpty()
	if j := g.jobEnds(ended); string(j.Result) != "old" {
		t.Errorf("%+v", j)
	}
	if j := g.jobEnds(canceling); j.State != messages.GoalCanceled {
		t.Errorf("%+v", j)
	}
	if j := g.jobEnds(spent); j.State != messages.GoalAborted || !strings.Contains(j.Reason, "begun 5 times, allowed are 5") {
		t.Errorf("%+v", j)
	}
	if len(ran) > 0 {
		t.Errorf("%s ran", <-ran)
	}
}

// TestRedrivenJobWhoseRecordIsBehind: the server that is asked for the record has not heard
// yet that the job was redriven. The delivery is not acknowledged, so the job is begun.
func TestRedrivenJobWhoseRecordIsBehind(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	c := g.caller("lab")
	req := c.request(messages.Training, "fit")
	req.ID, req.Inbox, req.Left, req.Attempt = nuid.Next(), "", messages.NoDeadline, 2
	record := messages.Job{ID: req.ID, Task: "fit", Origin: "lab", Site: site, State: messages.GoalAborted, Attempt: 1}
	g.put(bus.Jobs, req.ID, &record)
	c.queue(req, "")
	g.run("cloud", nil, at.handler("fit"))
	g.place("cloud", training("fit"))
	natstest.Eventually(t, patience, "the job to be given back", func() bool {
		consumer, err := g.bus.Consumer(g.ctx(), site, messages.Training, "fit")
		return err == nil && consumer.CachedInfo().NumRedelivered > 0
	})
	record.State, record.Free, record.Redriven = messages.GoalAccepted, 1, 1
	g.put(bus.Jobs, req.ID, &record)
	if r := at.in(t); r.ID != req.ID || r.Attempt != 2 {
		t.Errorf("%+v", r.Request)
	}
	at.open <- "done"
	if j := g.jobEnds(req.ID); j.State != messages.GoalSucceeded || j.Redriven != 1 {
		t.Errorf("%+v", j)
	}
	g.queueIsEmpty()
}

// TestJobWhoseResultIsTooLargeForTheServer: the record cannot hold it, however often it
// is tried, so the job ends with an error that says so.
func TestJobWhoseResultIsTooLargeForTheServer(t *testing.T) {
	t.Parallel()
	g := newRig(t, natstest.MaxPayload(64<<10))
	g.run("cloud", nil, agent.Func("fit", func(context.Context, *agent.Request) ([]byte, error) { return make([]byte, 64<<10), nil }))
	g.place("cloud", training("fit"))
	id := g.caller("lab").submit("fit", "")
	if j := g.jobEnds(id); j.State != messages.GoalAborted || j.Code != messages.CodePayloadTooLarge || !strings.Contains(j.Reason, "max_payload is 65536") {
		t.Errorf("%+v", j)
	}
	g.queueIsEmpty()
}

// TestJobThatLostItsRecord: another attempt owns the record when this one ends. Its
// result is dropped, and the job stays in the queue for the other to acknowledge.
func TestJobThatLostItsRecord(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	ends := make(chan agent.ServeEvent, 10)
	p := g.run("cloud", func(c *agent.Config) {
		c.OnServe = func(e agent.ServeEvent) {
			if !e.Begin {
				ends <- e
			}
		}
	}, at.handler("fit"))
	g.place("cloud", training("fit"))
	id := g.caller("lab").submit("fit", "")
	at.in(t)
	g.job(id, "the job to run", func(j messages.Job) bool { return j.State == messages.GoalExecuting })
	g.put(bus.Jobs, id, &messages.Job{ID: id, Task: "fit", Origin: "lab", Site: site, State: messages.GoalExecuting, Attempt: 2, Agent: "other"})
	at.open <- "late"
	<-ends
	if err := p.stop(); err != nil { // the attempt has ended when Run has returned
		t.Fatal(err)
	}
	if j := g.job(id, "the record", func(messages.Job) bool { return true }); j.Agent != "other" || j.State != messages.GoalExecuting {
		t.Errorf("%+v", j)
	}
	if g.queued() != 1 {
		t.Error("the job has left the queue")
	}
}

// TestJobMovesWhenItsAgentLeaves: the time to drain is over before the job is, so it
// begins again elsewhere at once, and the attempt that was cut off does not count.
func TestJobMovesWhenItsAgentLeaves(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	first, second := newGate(), newGate()
	p := g.run("first", func(c *agent.Config) { c.DrainTimeout = 2 * time.Second }, first.handler("fit"))
	g.place("first", training("fit"))
	id := g.caller("lab").submit("fit", "")
	first.in(t)
	g.run("second", nil, second.handler("fit"))
	g.place("second", training("fit"))
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if r := second.in(t); r.ID != id || r.Attempt != 2 {
		t.Errorf("%+v", r.Request)
	}
	second.open <- "done"
	if j := g.jobEnds(id); j.Agent != "second" || string(j.Result) != "done" || j.Free != 1 {
		t.Errorf("%+v", j)
	}
}

// TestJobPriorities: what waits is begun by priority, whatever came first; one of a higher
// priority is begun at once where a slot is free.
func TestJobPriorities(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var back atomic.Int64 // deliveries of which the agent has said what became of them
	g.subscribe("$JS.ACK.>", func(m *nats.Msg) {
		if !bytes.Equal(m.Data, bus.Progress) {
			back.Add(1)
		}
	})
	at := newGate()
	g.run("cloud", nil, at.handler("fit"))
	g.place("cloud", training("fit"))
	c := g.caller("lab")
	for _, p := range []messages.Priority{messages.High, messages.Low, messages.Normal, messages.High} {
		id := c.submitAt(p, "fit", string(p))
		if r := at.in(t); r.ID != id {
			t.Errorf("%s: %+v", p, r.Request)
		}
		at.open <- "done"
		g.jobEnds(id)
	}
	for round := range 3 {
		c.submitAt(messages.Normal, "fit", "first")
		at.in(t)
		for _, p := range []messages.Priority{messages.Low, messages.Normal, messages.Low, messages.High, messages.Normal, messages.High} {
			c.submitAt(p, "fit", string(p))
		}
		// What its pulls for a free slot still bring goes back; a job that ends within that
		// moment may be followed by what is on its way. Asking twice gives the server the time
		// to take in what went back.
		for range 2 {
			natstest.Eventually(t, patience, "no pull to wait, and nothing on its way", func() bool {
				waiting, delivered := 0, int64(0)
				for _, p := range messages.Priorities() {
					consumer, err := g.bus.ConsumerOf(g.ctx(), site, messages.Training, "fit", p)
					if err != nil {
						t.Fatal(err)
					}
					info := consumer.CachedInfo()
					waiting += info.NumWaiting
					delivered += int64(info.Delivered.Consumer)
				}
				return waiting == 0 && delivered == back.Load()+1 // the one that runs
			})
		}
		var order []string
		for range 6 {
			at.open <- "done"
			order = append(order, string(at.in(t).Body))
		}
		at.open <- "done"
		if want := []string{"high", "high", "normal", "normal", "low", "low"}; !slices.Equal(order, want) {
			t.Errorf("round %d: begun in order %q", round, order)
		}
	}
}
