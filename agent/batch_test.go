package agent_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
)

// batchGate is a handler of batches that tells what it was called with and answers when it
// is let.
type batchGate struct {
	entered chan []string
	open    chan struct{}
}

func newBatchGate() *batchGate {
	return &batchGate{make(chan []string, 100), make(chan struct{}, 100)}
}

func (g *batchGate) handler(name string) agent.Handler {
	return agent.BatchFunc(name, func(ctx context.Context, reqs []*agent.Request) ([][]byte, error) {
		var bodies []string
		var answers [][]byte
		for _, r := range reqs {
			bodies = append(bodies, string(r.Body))
			answers = append(answers, append([]byte("re:"), r.Body...))
		}
		slices.Sort(bodies)
		g.entered <- bodies
		select {
		case <-g.open:
			return answers, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
}

func (g *batchGate) in(t testing.TB) []string {
	t.Helper()
	select {
	case b := <-g.entered:
		return b
	case <-time.After(patience):
		t.Fatal("the handler was not called")
		return nil
	}
}

func batched(name string, most int, wait time.Duration) messages.Task {
	t := inference(name)
	t.MaxBatch, t.MaxWait = most, float64(wait)/float64(time.Millisecond)
	return t
}

// results waits for n results and returns their bodies or codes, by request.
func (c *caller) results(n int) map[string]string {
	c.t.Helper()
	all := make(map[string]string)
	for len(all) < n {
		a := c.result()
		if all[a.ID] = string(a.body); a.Err != nil {
			all[a.ID] = string(a.Err.Code)
		}
	}
	return all
}

// What waits in the queue is served together, up to max_batch; while a call runs nothing
// more is taken; direct requests go along.
func TestBatch(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	h := newBatchGate()
	g.run("edge", nil, h.handler("see"))
	g.place("edge", batched("see", 3, 5*time.Second)) // a full batch does not wait for it
	c := g.caller("robot")
	var ids []string
	queue := func(body string) {
		req := c.request(messages.Inference, "see")
		ids = append(ids, req.ID)
		c.queue(req, body)
	}
	for _, body := range []string{"a", "b", "c", "d", "e"} {
		queue(body)
	}
	first := h.in(t)
	if len(first) != 3 {
		t.Fatalf("the first call has %q", first)
	}
	if r := c.do("edge", c.request(messages.Inference, "see"), "x"); r.Err == nil || r.Err.Code != messages.CodeBusy || r.Err.RetryAfter <= 0 {
		t.Fatalf("taken while a call runs: %+v", r)
	}
	h.open <- struct{}{}
	// The two that wait, and one that comes straight.
	for {
		req := c.request(messages.Inference, "see")
		if r := c.do("edge", req, "f"); r.Err == nil {
			ids = append(ids, req.ID)
			break
		}
	}
	second := h.in(t)
	if all := slices.Sorted(slices.Values(append(first, second...))); len(second) != 3 || strings.Join(all, "") != "abcdef" {
		t.Fatalf("the calls had %q and %q", first, second)
	}
	h.open <- struct{}{}
	got := c.results(6)
	for i, id := range ids {
		if want := "re:" + string(rune('a'+i)); got[id] != want {
			t.Errorf("request %d: %q, want %q", i, got[id], want)
		}
	}
	status := g.until("six served", func(b *messages.Heartbeat) bool { return len(b.Replicas) == 1 && b.Replicas[0].Served == 6 }).Replicas[0]
	if status.InFlight != 0 || status.Latency <= 0 {
		t.Errorf("%+v", status)
	}
}

// A batch that does not fill begins after max_wait, and before that where a request has
// no more time.
func TestBatchDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	h := newBatchGate()
	g.run("edge", nil, h.handler("see"), h.handler("look"))
	g.place("edge", batched("see", 8, 20*time.Millisecond), batched("look", 8, 10*time.Second))
	c := g.caller("robot")
	begun := time.Now()
	c.queue(c.request(messages.Inference, "see"), "a")
	h.in(t)
	if took := time.Since(begun); took < 20*time.Millisecond {
		t.Errorf("began after %v, before max_wait", took)
	}
	h.open <- struct{}{}
	c.result().want(t, "", "re:a")

	req := c.request(messages.Inference, "look")
	req.Left = 300 * time.Millisecond // far under the max_wait of look
	c.queue(req, "b")
	if a := c.result(); a.Err == nil || a.Err.Code != messages.CodeExpired || !strings.Contains(a.Err.Message, "max_wait") {
		// It began in its last moment, and the handler had no time left.
		a.want(t, messages.CodeDeadline, "")
	}
}

// Newest wins in a batch that is being filled, too: the older one is told at once.
func TestBatchKeepsNewest(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	h := newBatchGate()
	g.run("edge", nil, h.handler("see"))
	g.place("edge", batched("see", 3, 10*time.Second))
	c := g.caller("robot")
	send := func(key string, seq uint64, body string) string {
		req := c.request(messages.Inference, "see")
		req.Key, req.Seq = key, seq
		if r := c.do("edge", req, body); r.Err != nil {
			t.Fatal(r.Err)
		}
		return req.ID
	}
	old := send("cam", 1, "old")
	send("cam", 2, "new")
	if a := c.result(); a.ID != old || a.Err == nil || a.Err.Code != messages.CodeSuperseded {
		t.Fatalf("%+v", a)
	}
	// The place that it gave away is free: four observations, one batch of three.
	send("left", 1, "l")
	send("right", 1, "r")
	if got := h.in(t); !slices.Equal(got, []string{"l", "new", "r"}) {
		t.Fatalf("called with %q", got)
	}
	h.open <- struct{}{}
	c.results(3)
}

// Who gives up in a batch has given up alone; when all have, the handler's context ends.
func TestBatchCanceled(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	type call struct {
		ctx  context.Context
		reqs []*agent.Request
	}
	calls := make(chan call, 10)
	g.run("edge", nil, agent.BatchFunc("see", func(ctx context.Context, reqs []*agent.Request) ([][]byte, error) {
		calls <- call{ctx, reqs}
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	g.place("edge", batched("see", 2, 10*time.Second))
	c := g.caller("robot")
	cancel := func(ids ...string) {
		s := g.bus.Subject(messages.KindCancel, site)
		s.Agent, s.Origin = "edge", c.origin
		data, err := messages.Encode(&messages.Probe{IDs: ids})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.nc.RequestWithContext(g.ctx(), s.String(), data); err != nil {
			t.Fatal(err)
		}
	}
	one, two := c.request(messages.Inference, "see"), c.request(messages.Inference, "see")
	for _, q := range []messages.Request{one, two} {
		if r := c.do("edge", q, "x"); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	in := <-calls
	cancel(one.ID)
	for _, r := range in.reqs {
		if r.ID == one.ID {
			<-r.Done
		}
	}
	if in.ctx.Err() != nil {
		t.Fatal("the whole call was ended, and somebody waits for its other request")
	}
	cancel(two.ID)
	<-in.ctx.Done()
	for id, code := range c.results(2) {
		if code != string(messages.CodeCanceled) {
			t.Errorf("%s: %s", id, code)
		}
	}
}

// What is wrong with a call is every request's error: an error, a panic, a wrong number of
// answers, a goroutine that is ended. Afterwards the replica serves.
func TestBatchFails(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, agent.BatchFunc("see", func(_ context.Context, reqs []*agent.Request) ([][]byte, error) {
		switch string(reqs[0].Body) {
		case "fail":
			return nil, errors.New("no GPU")
		case "panic":
			panic("no GPU")
		case "few":
			return [][]byte{nil}, nil
		}
		return [][]byte{bytes.ToUpper(reqs[0].Body), bytes.ToUpper(reqs[1].Body)}, nil
	}))
	g.place("edge", batched("see", 2, 10*time.Second))
	c := g.caller("robot")
	for _, s := range []struct{ body, says string }{{"fail", "no GPU"}, {"panic", "panicked in ServeBatch: no GPU"}, {"few", "answered 1 of 2"}, {"fine", ""}} {
		for range 2 {
			c.queue(c.request(messages.Inference, "see"), s.body)
		}
		for range 2 {
			if a := c.result(); s.says == "" {
				a.want(t, "", "FINE")
			} else if a.Err == nil || a.Err.Code != messages.CodeBackendFailed || !strings.Contains(a.Err.Message, s.says) {
				t.Errorf("%s: %+v", s.body, a.Reply)
			}
		}
	}
}

// A handler that takes one request at a time cannot serve a task with max_batch, and says
// what to do.
func TestBatchNeedsABatcher(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("see"))
	if ack := g.send(g.document("edge", placed(batched("see", 2, 0)))); ack.Error != "" {
		t.Fatal(ack.Error)
	}
	if s := g.replicaIs("edge", "see/0", messages.ReplicaFailed); !strings.Contains(s.Reason, "leave max_batch out") {
		t.Errorf("%+v", s)
	}
}

// Under load on two lanes every request is answered once, and calls have company.
func TestBatchUnderLoad(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var mu sync.Mutex
	calls, most, running := 0, 0, 0
	g.run("edge", nil, agent.BatchFunc("see", func(_ context.Context, reqs []*agent.Request) ([][]byte, error) {
		mu.Lock()
		calls++
		running++
		most = max(most, running)
		mu.Unlock()
		defer func() {
			mu.Lock()
			running--
			mu.Unlock()
		}()
		if len(reqs) > 8 {
			t.Errorf("%d requests in a call", len(reqs))
		}
		answers := make([][]byte, len(reqs))
		for i, r := range reqs {
			answers[i] = r.Body
		}
		return answers, nil
	}))
	task := batched("see", 8, 2*time.Millisecond)
	task.Concurrency = 2
	g.place("edge", task)
	c := g.caller("robot")
	const n = 400
	want := make(map[string]string)
	for range n {
		req := c.request(messages.Inference, "see")
		want[req.ID] = req.ID
		c.queue(req, req.ID)
	}
	for id, body := range c.results(n) {
		if body != want[id] {
			t.Fatalf("request %s was answered %q", id, body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if calls > n/2 || most > 2 {
		t.Errorf("%d calls for %d requests, %d at once", calls, n, most)
	}
}
