package agent_test

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/goleak"
)

// TestMain looks for goroutines that are left when all tests are over. Two of the
// server's are its own: one that it never ends, and one of each file store whose
// stream was deleted.
func TestMain(m *testing.M) {
	// These tests wait more than they compute, each for a server of its own.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"))
}

const (
	fleet = "f"
	site  = "main"
	// patience bounds every wait of these tests. It is far above what anything takes, so
	// that only a defect reaches it, also on a machine that runs other tests.
	patience = 20 * time.Second
)

// rig is a server, a connection of the test's own, and what the coordinator and the
// clients would do.
type rig struct {
	t     testing.TB
	s     *natstest.Server
	nc    *nats.Conn
	bus   *bus.Bus
	beats chan *messages.Heartbeat
	rev   uint64
}

func newRig(t testing.TB, opts ...natstest.Option) *rig {
	t.Helper()
	s := natstest.Start(t, opts...)
	nc := s.Connect(t)
	b, err := bus.New(nc, fleet, 1)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, s: s, nc: nc, bus: b, beats: make(chan *messages.Heartbeat, 1000)}
	g.subscribe(b.Subject(messages.KindHeartbeat, site).String(), func(m *nats.Msg) {
		h := new(messages.Heartbeat)
		if err := messages.Decode(m.Data, h); err != nil {
			t.Error(err)
			return
		}
		select {
		case g.beats <- h:
		default:
		}
	})
	return g
}

func (g *rig) subscribe(subject string, f func(*nats.Msg)) {
	g.t.Helper()
	if _, err := g.nc.Subscribe(subject, f); err != nil {
		g.t.Fatal(err)
	}
	if err := g.nc.Flush(); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	g.t.Cleanup(cancel)
	return ctx
}

// process is a running agent.
type process struct {
	t      testing.TB
	id     string
	a      *agent.Agent
	nc     *nats.Conn
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func environment(id string) messages.Environment {
	return messages.Environment{ID: id, Tier: messages.Edge, Capacity: messages.Resources{Compute: 100, Storage: 1000, Network: 100}, Latency: 10}
}

// quiet is the log of an agent: FLEETBUS_TEST_LOG=1 shows it.
func quiet() *slog.Logger {
	var w io.Writer = io.Discard
	if os.Getenv("FLEETBUS_TEST_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// run starts an agent on a connection of its own. It ends with the test.
func (g *rig) run(id string, change func(*agent.Config), handlers ...agent.Handler) *process {
	g.t.Helper()
	cfg := agent.Config{Fleet: fleet, Environment: environment(id), Host: "host-" + id, HandoverWait: -1, Logger: quiet()}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: g.t, id: id, nc: g.s.Connect(g.t), cancel: cancel, done: make(chan struct{})}
	p.a = agent.New(p.nc, cfg, handlers...)
	go func() {
		defer close(p.done)
		p.err = p.a.Run(ctx)
	}()
	g.t.Cleanup(func() { cancel(); <-p.done })
	return p
}

// wait returns what Run returned.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.t.Fatal("Run did not return")
		return nil
	}
}

func (p *process) stop() error {
	p.t.Helper()
	p.cancel()
	return p.wait()
}

// until reads heartbeats until one is as wanted.
func (g *rig) until(what string, ok func(*messages.Heartbeat) bool) *messages.Heartbeat {
	g.t.Helper()
	over := time.After(patience)
	var last *messages.Heartbeat
	for {
		select {
		case h := <-g.beats:
			if ok(h) {
				return h
			}
			last = h
		case <-over:
			g.t.Fatalf("no heartbeat with %s; the last: %+v", what, last)
		}
	}
}

// alive waits for the first heartbeat of an agent and returns its incarnation.
func (g *rig) alive(id string) messages.Incarnation {
	g.t.Helper()
	return g.until("agent "+id, func(h *messages.Heartbeat) bool { return h.Agent == id }).Inc
}

// replicaIs waits until an agent says that a replica is in a state.
func (g *rig) replicaIs(id, replica string, state messages.ReplicaState) messages.ReplicaStatus {
	g.t.Helper()
	var found messages.ReplicaStatus
	g.until(replica+" "+string(state), func(h *messages.Heartbeat) bool {
		for _, r := range h.Replicas {
			if h.Agent == id && r.ID == replica && r.State == state {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

func placed(tasks ...messages.Task) []messages.PlacedReplica {
	var list []messages.PlacedReplica
	for _, t := range tasks {
		list = append(list, messages.PlacedReplica{ID: messages.ReplicaID(t.Name, "0"), Task: t})
	}
	return list
}

// document makes the next document for an agent.
func (g *rig) document(id string, replicas []messages.PlacedReplica) *messages.Placement {
	g.rev++
	return &messages.Placement{Agent: id, Term: messages.Term{Epoch: 1, Revision: 1}, Rev: g.rev, Replicas: replicas}
}

// send sends a document as a coordinator does and returns the acknowledgement.
func (g *rig) send(doc *messages.Placement) messages.PlacementAck {
	g.t.Helper()
	s := g.bus.Subject(messages.KindPlace, site)
	s.Agent = doc.Agent
	data, err := messages.Encode(doc)
	if err != nil {
		g.t.Fatal(err)
	}
	var m *nats.Msg
	natstest.Eventually(g.t, patience, "agent "+doc.Agent+" to answer", func() bool {
		m, err = g.nc.RequestWithContext(g.ctx(), s.String(), data)
		return err == nil
	})
	var ack messages.PlacementAck
	if err := messages.Decode(m.Data, &ack); err != nil {
		g.t.Fatal(err)
	}
	return ack
}

// place places tasks on an agent that runs, and waits until they are ready.
func (g *rig) place(id string, tasks ...messages.Task) {
	g.t.Helper()
	if ack := g.send(g.document(id, placed(tasks...))); ack.Error != "" {
		g.t.Fatal(ack.Error)
	}
	for _, t := range tasks {
		g.replicaIs(id, messages.ReplicaID(t.Name, "0"), messages.ReplicaReady)
	}
}

// put saves a value in a bucket.
func (g *rig) put(b bus.Bucket, key string, m messages.Message) uint64 {
	g.t.Helper()
	kv, err := g.bus.KV(g.ctx(), b)
	if err != nil {
		g.t.Fatal(err)
	}
	data, err := messages.Encode(m)
	if err != nil {
		g.t.Fatal(err)
	}
	rev, err := kv.Put(g.ctx(), key, data)
	if err != nil {
		g.t.Fatal(err)
	}
	return rev
}

// caller is a client with one inbox for all its requests.
type caller struct {
	*rig
	origin, inbox string
	replies       chan answer
	firsts        sync.Map // by request id: chan messages.Reply of do, which takes nothing out of replies
}

type answer struct {
	messages.Reply
	body []byte
	from string // the subject
}

func (g *rig) caller(origin string) *caller {
	c := &caller{rig: g, origin: origin, inbox: nuid.Next(), replies: make(chan answer, 1000)}
	g.subscribe(messages.Subject{Kind: messages.KindReply, Fleet: fleet, Origin: origin, ID: c.inbox}.String(), func(m *nats.Msg) {
		r, err := messages.ParseReply(messages.Header(m.Header))
		if err != nil {
			g.t.Error(err)
			return
		}
		if s, err := messages.ParseSubject(m.Subject); err == nil && r.Agent == "" {
			r.Agent = s.Agent // which is what the server vouches for
		}
		if r.Attempt == 0 {
			r.Attempt = 1 // which is what its absence means
		}
		c.replies <- answer{r, m.Data, m.Subject}
		if do, ok := c.firsts.Load(r.ID); ok && r.Kind == messages.ReplyResult {
			select {
			case do.(chan messages.Reply) <- r:
			default:
			}
		}
	})
	return c
}

func (c *caller) request(class messages.Class, task string) messages.Request {
	return messages.Request{ID: nuid.Next(), Class: class, Task: task, Origin: c.origin, Inbox: c.inbox, Attempt: 1, Left: patience}
}

// queue publishes a request to the work queue.
func (c *caller) queue(req messages.Request, body string) {
	c.t.Helper()
	if err := c.bus.Stream(c.ctx(), site, req.Class); err != nil {
		c.t.Fatal(err)
	}
	s := c.bus.Subject(messages.KindWork, site)
	if req.Class == messages.Training {
		s.Kind, s.Priority = messages.KindJob, messages.Normal
	}
	s.Class, s.Task, s.Origin, s.ID = req.Class, req.Task, req.Origin, req.ID
	if req.Key != "" {
		s.ID = req.Key
	}
	m := &nats.Msg{Subject: s.String(), Header: nats.Header(req.Header()), Data: []byte(body)}
	if _, err := c.bus.JS.PublishMsg(c.ctx(), m); err != nil {
		c.t.Fatal(err)
	}
}

// do sends a request straight to an agent and returns the first word on it: on the reply
// subject, or the result, which is there for result to find.
func (c *caller) do(agent string, req messages.Request, body string) messages.Reply {
	c.t.Helper()
	s := c.bus.Subject(messages.KindDo, site)
	s.Agent, s.Origin, s.Task = agent, req.Origin, req.Task
	word, result := make(chan *nats.Msg, 1), make(chan messages.Reply, 1)
	c.firsts.Store(req.ID, result)
	defer c.firsts.Delete(req.ID)
	inbox := c.nc.NewInbox()
	sub, err := c.nc.ChanSubscribe(inbox, word)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishMsg(&nats.Msg{Subject: s.String(), Reply: inbox, Header: nats.Header(req.Header()), Data: []byte(body)}); err != nil {
		c.t.Fatal(err)
	}
	select {
	case m := <-word:
		r, err := messages.ParseReply(messages.Header(m.Header))
		if err != nil {
			c.t.Fatal(err)
		}
		return r
	case r := <-result:
		return r
	case <-time.After(patience):
		c.t.Fatalf("no word on request %s", req.ID)
		return messages.Reply{}
	}
}

// next returns the next reply of a kind; others are dropped.
func (c *caller) next(kind messages.ReplyKind) answer {
	c.t.Helper()
	over := time.After(patience)
	for {
		select {
		case a := <-c.replies:
			if a.Kind == kind {
				return a
			}
		case <-over:
			c.t.Fatalf("no reply of kind %s", kind)
		}
	}
}

func (c *caller) result() answer { c.t.Helper(); return c.next(messages.ReplyResult) }

// want checks the code and the body of a result.
func (a answer) want(t testing.TB, code messages.Code, body string) {
	t.Helper()
	if messages.CodeOf(asError(a.Err)) != code || string(a.body) != body {
		t.Fatalf("result %q with error %v, want %q with code %q", a.body, a.Err, body, code)
	}
}

// asError keeps a nil *Error from becoming an error that is not nil.
func asError(e *messages.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// gate is a handler that tells when it has a request and answers when it is let.
type gate struct {
	entered chan *agent.Request
	open    chan string
}

func newGate() *gate { return &gate{make(chan *agent.Request, 100), make(chan string, 100)} }

func (g *gate) handler(name string) agent.Handler {
	return agent.Func(name, func(ctx context.Context, r *agent.Request) ([]byte, error) {
		g.entered <- r
		select {
		case s := <-g.open:
			return []byte(s), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
}

// in waits until the handler has a request.
func (g *gate) in(t testing.TB) *agent.Request {
	t.Helper()
	select {
	case r := <-g.entered:
		return r
	case <-time.After(patience):
		t.Fatal("the handler was not called")
		return nil
	}
}

func echo(name string) agent.Handler {
	return agent.Func(name, func(_ context.Context, r *agent.Request) ([]byte, error) { return r.Body, nil })
}

func inference(name string) messages.Task {
	return messages.Task{Name: name, Class: messages.Inference, Demand: messages.Resources{Compute: 1, Storage: 1, Network: 1}}
}
