package router

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// Where so many wait that a request would come too late it is refused at once, with the
// time after which it may be tried; and only then.
func TestRefusedEarly(t *testing.T) {
	f := newFleet(t)
	r := task(messages.Inference, "see", "edge")
	r.Task.Concurrency = 1
	f.plan(r)
	g := f.gate()
	f.agent("edge", func(c call) ([]byte, *messages.Error) { // it says that it took 1 ms
		if c.Body == "quick" {
			return echo(c)
		}
		return g.serve(c)
	}).pull("see", 0, 1)
	c := f.client()
	quick := func(deadline time.Duration) error {
		_, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("quick"), Deadline: deadline})
		return err
	}
	if err := quick(0); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	ended := make(chan error, 300)
	for range cap(ended) {
		waiting.Go(func() {
			_, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("slow"), Deadline: wait})
			ended <- err
		})
	}
	natstest.Eventually(t, wait, "a refusal", func() bool { return messages.CodeOf(quick(40*time.Millisecond)) == messages.CodeBusy })
	begun := time.Now()
	err := quick(40 * time.Millisecond)
	for messages.CodeOf(err) == messages.CodeDeadline { // the reading was too old for a moment
		begun, err = time.Now(), quick(40*time.Millisecond)
	}
	wantCode(t, err, messages.CodeBusy)
	if e := messages.AsError(err, ""); e.RetryAfter <= 0 || e.RetryAfter > time.Second || time.Since(begun) > 39*time.Millisecond {
		t.Errorf("after %v: %+v", time.Since(begun), e)
	}
	g.open()
	waiting.Wait()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Fatalf("one with time enough: %v", err)
		}
	}
	natstest.Eventually(t, wait, "the queue to be empty again", func() bool { return quick(time.Second) == nil })
}

// A late request of an idempotent task goes to a second agent as well; the first answer
// counts, the other is dropped and counted.
func TestHedge(t *testing.T) {
	f := newFleet(t)
	r := straight(task(messages.Inference, "see", "one", "two"))
	r.Task.Idempotent = true
	f.plan(r)
	g := f.gate()
	one := f.agent("one", func(c call) ([]byte, *messages.Error) {
		if c.Body == "slow" {
			return g.serve(c)
		}
		return echo(c)
	})
	two := f.agent("two", echo)
	causes := make(chan string, 100)
	c := f.client(func(cfg *Config) {
		cfg.Trace = func(e TraceEvent) {
			if e.Kind == TraceRetry {
				causes <- e.Cause
			}
		}
	})
	ask := func(body string) *Answer {
		t.Helper()
		ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		return ans
	}
	for i := range 40 {
		ask(fmt.Sprint(i))
	}
	// One that is streamed is not sent twice, although it waits longer than the other.
	n, before := two.served(), one.served()
	streamed := make(chan *Answer, 1)
	go func() {
		ans, _ := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("slow"), OnPartial: func(Partial) {}})
		streamed <- ans
	}()
	natstest.Eventually(t, wait, "the streamed one at its agent", func() bool { return one.served() > before })
	for len(causes) > 0 {
		<-causes
	}
	if ans := ask("slow"); ans.Agent != "two" || ans.Attempt != 2 {
		t.Fatalf("got %+v", ans)
	}
	if cause := next(t, "why", causes); cause != "hedge" || two.served() != n+1 {
		t.Errorf("sent because of %s", cause)
	}
	next(t, "the cancellation of the other", one.cancelled)
	g.open()
	if ans := next(t, "the streamed answer", streamed); ans == nil || ans.Agent != "one" || ans.Attempt != 1 || two.served() != n+1 {
		t.Errorf("streamed: %+v, %d at the second agent", ans, two.served()-n)
	}
	natstest.Eventually(t, wait, "the late result to be counted", func() bool { return c.Stats().Late >= 1 })
}

// A replica that only fails is asked last after a while.
func TestEjected(t *testing.T) {
	f := newFleet(t)
	f.plan(straight(task(messages.Inference, "see", "bad", "good")))
	bad := f.agent("bad", func(call) ([]byte, *messages.Error) {
		return nil, messages.Errorf(messages.CodeBackendFailed, "no GPU")
	})
	f.agent("good", echo)
	c := f.client()
	for i := range 6 {
		ans, err := c.Infer(ctxFor(t), Inference{Task: "see"})
		if err != nil || ans.Agent != "good" {
			t.Fatalf("request %d: %+v, %v", i, ans, err)
		}
	}
	if n := bad.served(); n != 3 {
		t.Errorf("the one that fails was asked %d times of 6", n)
	}
}

// The queue takes a request in and delivers nothing, as after the death of the server
// that led its consumer: the request goes straight to an agent.
func TestQueueDeliversNothing(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	if _, err := f.bus.Consumer(ctxFor(t), "main", messages.Inference, "see"); err != nil {
		t.Fatal(err)
	}
	a := f.agent("edge", echo) // which does not pull
	c := f.client()
	begun := time.Now()
	ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: []byte("x"), Deadline: wait})
	if err != nil || ans.Agent != "edge" || ans.Attempt != 2 || a.served() != 1 {
		t.Fatalf("after %v: %+v, %v", time.Since(begun), ans, err)
	}
}

// What a backend says of itself takes no time of the model's: neither a queue nor a replica
// seems quicker for it.
func TestMetadataIsNoServiceTime(t *testing.T) {
	f := newFleet(t)
	r := task(messages.Inference, "see", "edge")
	f.plan(r)
	f.agent("edge", echo).pull("see", 0, 1) // it says that it took 1 ms
	c := f.client()
	for _, x := range []struct {
		content string
		want    time.Duration
	}{{messages.MetadataType, 0}, {"image/png", time.Millisecond}} {
		if _, err := c.Infer(ctxFor(t), Inference{Task: "see", ContentType: x.content}); err != nil {
			t.Fatal(err)
		}
		if got := c.loads.load(time.Now(), "edge", &r.Task, time.Second).Latency; got != x.want {
			t.Errorf("after %s: a latency of %v", x.content, got)
		}
	}
}
