package vtime_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var silent = slog.New(slog.DiscardHandler)

// jobBench is two agents that train, each on a link of its own, a client and a sweeper.
type jobBench struct {
	t      *testing.T
	s      *natstest.Server
	b      *bus.Bus
	links  map[string]*natstest.Link
	client *router.Client
	fit    func(ctx context.Context, agent string, r *agent.Request) ([]byte, error)
}

func newJobBench(t *testing.T, s *natstest.Server, b *bus.Bus, task messages.Task, sweepers int) *jobBench {
	t.Helper()
	task.Name, task.Class = "fit", messages.Training
	j := &jobBench{t: t, s: s, b: b, links: make(map[string]*natstest.Link)}
	check(t, b.Stream(within(t, time.Minute), site, messages.Training))
	routes := messages.TaskRoute{Task: task}
	for _, id := range []string{"a1", "a2"} {
		doc := messages.Placement{Agent: id, Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1, Replicas: []messages.PlacedReplica{{ID: "fit/" + id, Task: task}}}
		j.put(bus.Placements, id, &doc)
		routes.Replicas = append(routes.Replicas, messages.Route{ID: "fit/" + id, Agent: id, Tier: messages.Cloud, Site: site, State: messages.ReplicaReady})
	}
	j.put(bus.RoutesKV, bus.KeyRoutes, &messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1, Tasks: []messages.TaskRoute{routes}})
	j.client = router.NewClient(s.Connect(t), router.Config{Fleet: fleet, Origin: origin, Logger: silent})
	j.run(j.client.Run)
	check(t, j.client.Ready(within(t, time.Minute)))
	for range sweepers {
		j.run(must[*router.Sweeper](t)(router.NewSweeper(s.Connect(t), router.Config{Fleet: fleet, Logger: silent})).Run)
	}
	return j
}

func (j *jobBench) put(b bus.Bucket, key string, m messages.Message) {
	j.t.Helper()
	kv := must[bus.KV](j.t)(j.b.KV(within(j.t, time.Minute), b))
	must[uint64](j.t)(kv.Put(within(j.t, time.Minute), key, must[[]byte](j.t)(messages.Encode(m))))
}

func (j *jobBench) run(f func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { gone <- f(ctx) }()
	end = sync.OnceFunc(func() {
		for _, l := range j.links {
			l.Mend()
		}
		cancel()
		if err := <-gone; err != nil { // an agent whose handler was cut off says so
			j.t.Log(err)
		}
	})
	j.t.Cleanup(end)
	return end
}

// agent starts an agent that runs j.fit.
func (j *jobBench) agent(id string) (end func()) {
	j.t.Helper()
	link := j.links[id]
	if link == nil {
		link = j.s.Link(id)
		j.links[id] = link
	}
	a := agent.New(j.s.Connect(j.t, link.Dial()), agent.Config{
		Fleet: fleet, Environment: messages.Environment{ID: id, Tier: messages.Cloud}, HandoverWait: -1, DrainTimeout: time.Second, Logger: silent,
	}, agent.Func("fit", func(ctx context.Context, r *agent.Request) ([]byte, error) { return j.fit(ctx, id, r) }))
	end = j.run(a.Run)
	pass(time.Second)
	return end
}

func (j *jobBench) submit(job router.Job) string {
	j.t.Helper()
	job.Task = "fit"
	return must[string](j.t)(j.client.Submit(within(j.t, time.Minute), job))
}

// job waits until the job is as it should be, and returns how long that took.
func (j *jobBench) job(id, what string, ok func(messages.Job) bool) (messages.Job, time.Duration) {
	j.t.Helper()
	begun := time.Now()
	for {
		job, err := j.client.Job(within(j.t, time.Minute), id)
		if err != nil && messages.CodeOf(err) != messages.CodeUnavailable { // the server restarts
			j.t.Fatal(err)
		}
		if err == nil && ok(job) {
			return job, time.Since(begun)
		}
		if time.Since(begun) > 5*time.Minute {
			j.t.Fatalf("waited in vain for %s: %+v", what, job)
		}
		pass(50 * time.Millisecond)
	}
}

func (j *jobBench) ends(id string) (messages.Job, time.Duration) {
	j.t.Helper()
	return j.job(id, "its end", func(job messages.Job) bool { return job.State.Ended() })
}

func (j *jobBench) executing(id string) {
	j.t.Helper()
	j.job(id, "it to run", func(job messages.Job) bool { return job.State == messages.GoalExecuting })
}

// messagesLeft is how many jobs stand in the stream.
func (j *jobBench) messagesLeft() uint64 {
	s := must[jetstream.Stream](j.t)(j.b.JS.Stream(within(j.t, time.Minute), bus.StreamName(fleet, site, messages.Training)))
	return s.CachedInfo().State.Msgs
}

// A job whose agent is gone is begun again elsewhere at once, not after the ack wait, and
// from its last checkpoint. The agent that comes back ends its handler; what it returns all the
// same is dropped.
func TestJobMovesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{}, 3)
		ended := make(chan error, 1)
		late := make(chan error, 1)
		j.fit = func(ctx context.Context, id string, r *agent.Request) ([]byte, error) {
			old, err := r.Restore(ctx)
			if err != nil {
				return nil, err
			}
			if id == "a1" {
				if old != nil {
					return nil, errors.New("a checkpoint of nobody")
				}
				if err := r.Checkpoint(ctx, strings.NewReader("half")); err != nil {
					return nil, err
				}
				<-ctx.Done()
				ended <- context.Cause(ctx)
				late <- r.Checkpoint(context.WithoutCancel(ctx), strings.NewReader("late"))
				return []byte("late"), nil
			}
			if old == nil {
				return nil, errors.New("no checkpoint")
			}
			defer old.Close()
			data, err := io.ReadAll(old)
			return append(data, " done"...), err
		}
		j.agent("a1")
		id := j.submit(router.Job{Body: []byte("x")})
		j.job(id, "a checkpoint", func(job messages.Job) bool { return job.Checkpoint != nil && job.Agent == "a1" })
		j.agent("a2")
		j.links["a1"].Break()
		job, took := j.ends(id)
		if job.State != messages.GoalSucceeded || string(job.Result) != "half done" || job.Agent != "a2" || job.Attempt != 2 || len(job.History) != 1 || job.Checkpoint != nil {
			t.Errorf("%+v", job)
		}
		if took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		j.links["a1"].Mend()
		check(t, nilIf(<-ended, context.Canceled))
		if err := <-late; err == nil {
			t.Error("a checkpoint of an attempt that had lost the job was stored")
		}
		pass(5 * time.Second)
		if after, _ := j.ends(id); string(after.Result) != "half done" || j.messagesLeft() != 0 {
			t.Errorf("%+v, %d messages left", after, j.messagesLeft())
		}
	})
}

// Agents that are silent, however many, keep nobody from a job whose agent is gone.
func TestSilentAgentsHideNobody(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{}, 1)
		c := must[jetstream.Consumer](t)(b.Consumer(within(t, time.Minute), site, messages.Training, "fit"))
		const silent = 40
		var gone string
		for n := range silent + 1 {
			id := j.submit(router.Job{})
			job := messages.Job{ID: id, Task: "fit", Origin: origin, Site: site, State: messages.GoalExecuting, Attempt: 1, Agent: "gone"}
			if gone = id; n < silent {
				job.Agent = "silent-" + strconv.Itoa(n)
				at := b.Subject(messages.KindProbe, site)
				at.Agent, at.Origin = job.Agent, ""
				must[*nats.Subscription](t)(b.Conn.SubscribeSync(at.String()))
			}
			j.put(bus.Jobs, id, &job)
		}
		check(t, b.Conn.Flush())
		if got := pull(t, c, 0, silent+1, time.Second); len(got) != silent+1 {
			t.Fatalf("%d were delivered", len(got))
		}
		if _, took := j.job(gone, "it to be taken", func(job messages.Job) bool { return job.State == messages.GoalAccepted }); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// An agent that cannot extend its lease ends its handler before the job is given to another.
func TestLeaseEndsHandler(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{}, 0) // nobody sweeps: the ack wait alone
		var ended, begun time.Time
		j.fit = func(ctx context.Context, id string, r *agent.Request) ([]byte, error) {
			if id == "a1" {
				<-ctx.Done()
				ended = time.Now()
				return nil, ctx.Err()
			}
			begun = time.Now()
			return []byte("done"), nil
		}
		j.agent("a1")
		id := j.submit(router.Job{})
		j.executing(id)
		pass(time.Minute) // the lease is extended all the time
		j.executing(id)
		j.agent("a2")
		cut := time.Now()
		j.links["a1"].Cut()
		job, _ := j.ends(id)
		if job.Agent != "a2" || job.Attempt != 2 || ended.IsZero() || !ended.Before(begun) {
			t.Errorf("%+v; a1 ended %v and a2 began %v after the cut", job, ended.Sub(cut), begun.Sub(cut))
		}
	})
}

// The server is away for longer than a moment: what runs goes on, and its end is stored
// when it is back.
func TestJobOutlivesServer(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{}, 2)
		j.fit = func(ctx context.Context, _ string, r *agent.Request) ([]byte, error) {
			r.Log("begun")
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(30 * time.Second):
				return []byte("done"), nil
			}
		}
		j.agent("a1")
		j.agent("a2")
		var ids []string
		for range 4 { // two run, two wait
			ids = append(ids, j.submit(router.Job{}))
		}
		pass(10 * time.Second)
		s.Restart(t)
		for _, id := range ids {
			if job, _ := j.ends(id); job.State != messages.GoalSucceeded || job.Attempt != 1 {
				t.Errorf("%+v", job)
			}
		}
		var said []string
		check(t, j.client.JobLog(within(t, time.Minute), ids[0], false, func(x router.JobText) { said = append(said, x.Text) }))
		if strings.Join(said, "") != "begun\n" {
			t.Errorf("it said %q", said)
		}
	})
}

// An agent acknowledges, or ends for good, what it has not done: the job is queued again.
func TestStolenAcks(t *testing.T) {
	for _, word := range [][]byte{bus.Ack, bus.Term} {
		bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
			j := newJobBench(t, s, b, messages.Task{}, 2)
			j.fit = func(context.Context, string, *agent.Request) ([]byte, error) { return []byte("done"), nil }
			first, second := j.submit(router.Job{Body: []byte("one")}), j.submit(router.Job{Body: []byte("two")})
			c := must[jetstream.Consumer](t)(b.Consumer(within(t, time.Minute), site, messages.Training, "fit"))
			got := pull(t, c, 0, 2, time.Second)
			if len(got) != 2 {
				t.Fatalf("%d were delivered", len(got))
			}
			// The second: the first, which is not acknowledged, hides it from the ack floor.
			check(t, b.Conn.Publish(got[1].Reply(), word))
			j.agent("a1")
			for _, id := range []string{first, second} {
				if job, took := j.ends(id); job.State != messages.GoalSucceeded || took > 15*time.Second {
					t.Errorf("after %s: %+v after %v", word, job, took)
				}
			}
			pass(3 * time.Second)
			if n := j.messagesLeft(); n != 0 {
				t.Errorf("%d messages are left", n)
			}
		})
	}
}

// Somebody acknowledges a job between two attempts, and its queue is never idle: when those
// that came after it have their turn, it is queued again.
func TestStolenAckInBusyQueue(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{}, 2)
		j.fit = func(ctx context.Context, _ string, r *agent.Request) ([]byte, error) {
			last := map[string]time.Duration{"before": time.Hour, "after": 40 * time.Second}[string(r.Body)]
			select {
			case <-time.After(last):
			case <-ctx.Done():
			}
			return nil, ctx.Err()
		}
		j.agent("a1")
		before := j.submit(router.Job{Body: []byte("before")}) // it runs, and hides the other from the ack floor
		j.executing(before)
		stolen := j.submit(router.Job{Body: []byte("stolen")})
		c := must[jetstream.Consumer](t)(b.Consumer(within(t, time.Minute), site, messages.Training, "fit"))
		got := pull(t, c, 0, 1, time.Second)
		if len(got) != 1 {
			t.Fatalf("%d were delivered", len(got))
		}
		job := messages.Job{ID: stolen, Task: "fit", Origin: origin, Site: site, State: messages.GoalAccepted, Attempt: 1}
		j.put(bus.Jobs, stolen, &job)
		check(t, b.Conn.Publish(got[0].Reply(), bus.Ack))
		for range 10 {
			j.submit(router.Job{Body: []byte("after")})
		}
		j.agent("a2")
		at := messages.Subject{Kind: messages.KindJob, Fleet: fleet, Site: site, Priority: messages.Normal, Task: "fit", Origin: origin, ID: stolen}
		old := must[bus.Work](t)(b.Find(within(t, time.Minute), at))
		pass(2*time.Minute + 30*time.Second) // three of the ten; it is overdue after the first minute
		if now := must[bus.Work](t)(b.Find(within(t, time.Minute), at)); now.Seq == old.Seq {
			t.Error("it was not queued again")
		}
	})
}

// A stream is deleted and made again: its jobs are swept as those before.
func TestJobsStreamMadeAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{}, 1)
		j.fit = func(context.Context, string, *agent.Request) ([]byte, error) { return []byte("done"), nil }
		end := j.agent("a1")
		for range 5 {
			j.ends(j.submit(router.Job{}))
		}
		end()
		pass(5 * time.Second)
		check(t, b.JS.DeleteStream(within(t, time.Minute), bus.StreamName(fleet, site, messages.Training)))
		b.Forget()
		check(t, b.Stream(within(t, time.Minute), site, messages.Training))
		j.agent("a1")
		j.ends(j.submit(router.Job{}))
		pass(15 * time.Second)
		if n := j.messagesLeft(); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// Somebody deletes the message of a job: its record says so, for who waits.
func TestMessageOfJobDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{RetryPause: 3_600_000, RetryMost: 3_600_000}, 1)
		j.fit = func(context.Context, string, *agent.Request) ([]byte, error) { return nil, errors.New("no") }
		end := j.agent("a1")
		id := j.submit(router.Job{})
		j.job(id, "its first attempt to fail", func(job messages.Job) bool { return job.Reason != "" })
		end()
		stream := must[jetstream.Stream](t)(b.JS.Stream(within(t, time.Minute), bus.StreamName(fleet, site, messages.Training)))
		check(t, stream.Purge(within(t, time.Minute)))
		pass(11 * time.Minute) // as often as all records are read
		if job := must[messages.Job](t)(j.client.Job(within(t, time.Minute), id)); job.State != messages.GoalAborted || !strings.Contains(job.Reason, "deleted") {
			t.Errorf("%+v", job)
		}
	})
}

// A job that fails for good is a dead letter, with its history; redriven, it has all its
// attempts again and is begun again.
func TestDeadLetters(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{MaxAttempts: 2, RetryPause: 4000}, 2)
		healed := false
		var begun []time.Time
		j.fit = func(_ context.Context, _ string, r *agent.Request) ([]byte, error) {
			begun = append(begun, time.Now())
			if healed {
				return r.Body, nil
			}
			return nil, errors.New("the disk is full")
		}
		j.agent("a1")
		id := j.submit(router.Job{Body: []byte("body")})
		job, _ := j.ends(id)
		if job.State != messages.GoalAborted || !job.Dead() || len(job.History) != 2 || job.History[0].Attempt != 1 || !strings.Contains(job.History[1].Reason, "disk is full") {
			t.Errorf("%+v", job)
		}
		if pause := begun[1].Sub(begun[0]); pause < 4*time.Second || pause > 6*time.Second {
			t.Errorf("begun again after %v", pause)
		}
		pass(time.Minute)
		if j.messagesLeft() != 1 {
			t.Error("the dead letter is not kept")
		}
		healed = true
		job = must[messages.Job](t)(j.client.Redrive(within(t, time.Minute), id))
		if job.State != messages.GoalAccepted || job.Redriven != 1 {
			t.Errorf("%+v", job)
		}
		if job, _ = j.ends(id); job.State != messages.GoalSucceeded || string(job.Result) != "body" || job.Attempt != 3 || len(job.History) != 2 {
			t.Errorf("%+v", job)
		}
		if _, err := j.client.Redrive(within(t, time.Minute), id); messages.CodeOf(err) != messages.CodeConflict {
			t.Errorf("a job that succeeded was redriven: %v", err)
		}
	})
}

// A redrive whose program died after the record: a sweeper queues the job.
func TestRedriveIsHealed(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{MaxAttempts: 1}, 2)
		j.fit = func(_ context.Context, _ string, r *agent.Request) ([]byte, error) {
			if r.Attempt == 1 {
				return nil, errors.New("no")
			}
			return []byte("done"), nil
		}
		j.agent("a1")
		id := j.submit(router.Job{})
		job, _ := j.ends(id)
		job.State, job.Free, job.Redriven = messages.GoalAccepted, job.Attempt, 1
		j.put(bus.Jobs, id, &job)
		// As often as the record of a dead letter is looked at.
		if job, took := j.ends(id); job.State != messages.GoalSucceeded || took > 90*time.Second {
			t.Errorf("%+v after %v", job, took)
		}
	})
}

// A consumer whose settings somebody has changed gives a job up: it is a dead letter.
func TestMaxDeliveries(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{}, 2)
		c := must[jetstream.Consumer](t)(b.Consumer(within(t, time.Minute), site, messages.Training, "fit"))
		cfg := c.CachedInfo().Config
		cfg.MaxDeliver = 2
		must[jetstream.Consumer](t)(b.JS.UpdateConsumer(within(t, time.Minute), bus.StreamName(fleet, site, messages.Training), cfg))
		id := j.submit(router.Job{})
		for range 2 {
			got := pull(t, c, 0, 1, time.Second)
			if len(got) != 1 {
				t.Fatal("it was not delivered")
			}
			check(t, b.Conn.Publish(got[0].Reply(), bus.Nak))
		}
		_ = pull(t, c, 0, 1, time.Second)
		if job, _ := j.ends(id); job.State != messages.GoalAborted || !strings.Contains(job.Reason, "delivered it 2 times") {
			t.Errorf("%+v", job)
		}
	})
}

// A job is canceled while it waits, while it runs, between attempts, and while its agent
// is gone.
func TestCancelJob(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		j := newJobBench(t, s, b, messages.Task{RetryPause: 60_000}, 2)
		j.fit = func(ctx context.Context, _ string, r *agent.Request) ([]byte, error) {
			if string(r.Body) == "fail" {
				return nil, errors.New("no")
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		cancel := func(id string) messages.Job {
			t.Helper()
			return must[messages.Job](t)(j.client.Cancel(within(t, time.Minute), id))
		}
		j.agent("a1")
		fails := j.submit(router.Job{Body: []byte("fail")})
		j.job(fails, "its first attempt to fail", func(job messages.Job) bool { return job.Reason != "" })
		runs := j.submit(router.Job{})
		j.executing(runs)
		waits := j.submit(router.Job{})
		for _, id := range []string{waits, fails} {
			if job := cancel(id); job.State != messages.GoalCanceled {
				t.Errorf("%+v", job)
			}
			cancel(id) // a second time is no error
		}
		if job := cancel(runs); job.State != messages.GoalCanceling {
			t.Errorf("%+v", job)
		}
		if job, took := j.ends(runs); job.State != messages.GoalCanceled || took > time.Second {
			t.Errorf("%+v after %v", job, took)
		}
		gone := j.submit(router.Job{})
		j.executing(gone)
		j.links["a1"].Break()
		cancel(gone)
		if job, took := j.ends(gone); job.State != messages.GoalCanceled || took > 5*time.Second {
			t.Errorf("%+v after %v", job, took)
		}
		pass(5 * time.Second)
		if n := j.messagesLeft(); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// nilIf is nil where err is the one that was expected.
func nilIf(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return err
}
