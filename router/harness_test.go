package router

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Two of the server's are its own: one that it ends a moment later, and one of each file
	// store whose stream was deleted.
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"))
}

// wait bounds everything that a test waits for: far above what it takes.
const wait = 10 * time.Second

// fleet is a server with a plan, written by the test in place of a coordinator.
type fleet struct {
	t   testing.TB
	s   *natstest.Server
	nc  *nats.Conn
	bus *bus.Bus
	rev uint64

	over func() // the test ends: gates open
	ends chan struct{}
}

func newFleet(t testing.TB, opts ...natstest.Option) *fleet {
	t.Helper()
	s := natstest.Start(t, opts...)
	f := &fleet{t: t, s: s, nc: s.Connect(t), ends: make(chan struct{})}
	f.over = sync.OnceFunc(func() { close(f.ends) })
	var err error
	if f.bus, err = bus.New(f.nc, "f", 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func ctxFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	t.Cleanup(cancel)
	return ctx
}

// plan saves and broadcasts routes.
func (f *fleet) plan(tasks ...messages.TaskRoute) {
	f.t.Helper()
	f.rev++
	data, err := messages.Encode(&messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: f.rev, Tasks: tasks})
	if err != nil {
		f.t.Fatal(err)
	}
	kv, err := f.bus.KV(ctxFor(f.t), bus.RoutesKV)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := kv.Put(ctxFor(f.t), bus.KeyRoutes, data); err != nil {
		f.t.Fatal(err)
	}
	if err := f.nc.Publish(f.bus.Subject(messages.KindRoutes, messages.FleetSite).String(), data); err != nil {
		f.t.Fatal(err)
	}
}

// task is a route of a task to agents of site main, ranked as they are listed.
func task(class messages.Class, name string, agents ...string) messages.TaskRoute {
	r := messages.TaskRoute{Task: messages.Task{Name: name, Class: class, Concurrency: 4, Deadline: 5000}}
	for i, a := range agents {
		r.Replicas = append(r.Replicas, messages.Route{
			ID: messages.ReplicaID(name, a), Agent: a, Inc: incOf(a), Tier: messages.Robot, Site: "main", State: messages.ReplicaReady, Rank: i,
		})
	}
	return r
}

func straight(r messages.TaskRoute) messages.TaskRoute {
	r.Task.Delivery = messages.Direct
	return r
}

func incOf(agent string) messages.Incarnation {
	return messages.Incarnation{Epoch: 1, Revision: uint64(len(agent))}
}

// client runs a client until the test ends and waits until it is ready.
func (f *fleet) client(mod ...func(*Config)) *Client {
	f.t.Helper()
	cfg := Config{Fleet: "f", Origin: "tester", Logger: slog.New(slog.DiscardHandler)}
	for _, m := range mod {
		m(&cfg)
	}
	c := NewClient(f.s.Connect(f.t), cfg)
	f.run(c.Run)
	if err := c.Ready(ctxFor(f.t)); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// run runs something until the test ends.
func (f *fleet) run(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Run: %v", err)
		}
	})
}

// fake is an agent that speaks the wire and does what the test says.
type fake struct {
	f     *fleet
	id    string
	nc    *nats.Conn
	serve func(call) ([]byte, *messages.Error) // runs in a goroutine of its own
	admit func(call) *messages.Error           // refuses before it accepts; nil: never

	frozen    atomic.Bool // it does nothing at all, as after SIGSTOP
	began     chan call
	cancelled chan string

	mu    sync.Mutex
	held  map[string]bool
	calls []call
	gone  bool
	work  sync.WaitGroup // Add only under mu and while not gone
}

type call struct {
	messages.Request
	Body   string
	Queued bool
}

func echo(c call) ([]byte, *messages.Error) { return []byte("re:" + c.Body), nil }

func (f *fleet) agent(id string, serve func(call) ([]byte, *messages.Error)) *fake {
	f.t.Helper()
	a := &fake{f: f, id: id, nc: f.s.Connect(f.t), serve: serve, held: map[string]bool{}, began: make(chan call, 1000), cancelled: make(chan string, 1000)}
	a.on(messages.KindDo, a.onDo)
	a.on(messages.KindProbe, a.onProbe)
	a.on(messages.KindCancel, a.onCancel)
	if err := a.nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		a.nc.Close()
		a.end()
	})
	return a
}

// end lets all gates open and waits for what is being served.
func (a *fake) end() {
	a.f.over()
	a.mu.Lock()
	a.gone = true
	a.mu.Unlock()
	a.work.Wait()
}

func (a *fake) on(kind messages.Kind, h nats.MsgHandler) {
	s := a.f.bus.Subject(kind, "main")
	s.Agent = a.id
	if _, err := a.nc.Subscribe(s.String(), func(m *nats.Msg) {
		if !a.frozen.Load() {
			h(m)
		}
	}); err != nil {
		a.f.t.Fatal(err)
	}
}

// pull takes work of a task out of the queue, as many as slots at once.
func (a *fake) pull(task string, rank, slots int) *fake {
	a.f.t.Helper()
	a.f.bus.Forget() // the server may have restarted
	if _, err := a.f.bus.Consumer(ctxFor(a.f.t), "main", messages.Inference, task); err != nil {
		a.f.t.Fatal(err)
	}
	inbox := a.nc.NewInbox()
	ask := func() {
		_ = a.nc.PublishRequest(a.f.bus.PullSubject("main", messages.Inference, task), inbox, bus.PullRequest(nil, 1, rank))
	}
	if _, err := a.nc.Subscribe(inbox, func(m *nats.Msg) {
		if a.frozen.Load() || m.Header.Get("Status") != "" {
			return
		}
		a.begin(m, true, func() {
			_ = m.Ack()
			ask()
		})
	}); err != nil {
		a.f.t.Fatal(err)
	}
	for range slots {
		ask()
	}
	if err := a.nc.Flush(); err != nil {
		a.f.t.Fatal(err)
	}
	return a
}

func (a *fake) reply(r messages.Request, kind messages.ReplyKind, err *messages.Error) messages.Reply {
	return messages.Reply{Kind: kind, ID: r.ID, Attempt: r.Attempt, Agent: a.id, Inc: incOf(a.id), Err: err}
}

func (a *fake) begin(m *nats.Msg, queued bool, done func()) {
	on, err := messages.ParseSubject(m.Subject)
	if err != nil {
		a.f.t.Errorf("agent %s: %v", a.id, err)
		return
	}
	req, err := messages.ParseRequest(on, messages.Header(m.Header))
	if err != nil {
		a.f.t.Errorf("agent %s: %v", a.id, err)
		return
	}
	c := call{req, string(m.Data), queued}
	s := a.f.bus.Subject(messages.KindReply, "main")
	s.Agent, s.Origin, s.ID = a.id, req.Origin, req.Inbox
	word := s.String()
	if !queued {
		word = m.Reply
	}
	if a.admit != nil {
		if err := a.admit(c); err != nil {
			a.say(word, a.reply(req, messages.ReplyResult, err), nil)
			done()
			return
		}
	}
	a.mu.Lock()
	if a.gone {
		a.mu.Unlock()
		return
	}
	a.held[req.ID] = true
	a.calls = append(a.calls, c)
	a.work.Add(1)
	a.mu.Unlock()
	a.say(word, a.reply(req, messages.ReplyAccepted, nil), nil)
	select {
	case a.began <- c:
	default:
	}
	go func() {
		defer a.work.Done()
		body, fault := a.serve(c)
		if !a.frozen.Load() {
			r := a.reply(req, messages.ReplyResult, fault)
			r.Service, r.ContentType = time.Millisecond, req.ContentType
			a.say(s.String(), r, body)
		}
		a.mu.Lock()
		delete(a.held, req.ID)
		a.mu.Unlock()
		done()
	}()
}

func (a *fake) say(subject string, r messages.Reply, body []byte) {
	err := a.nc.PublishMsg(&nats.Msg{Subject: subject, Header: nats.Header(r.Header()), Data: body})
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrReconnectBufExceeded) {
		a.f.t.Errorf("agent %s: %v", a.id, err)
	}
}

func (a *fake) onDo(m *nats.Msg) { a.begin(m, false, func() {}) }

func (a *fake) onProbe(m *nats.Msg) {
	var p messages.Probe
	if err := messages.Decode(m.Data, &p); err != nil {
		a.f.t.Errorf("agent %s: %v", a.id, err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out := messages.Probe{Inc: incOf(a.id)}
	for _, id := range p.IDs {
		if a.held[id] {
			out.IDs = append(out.IDs, id)
		}
	}
	data, err := messages.Encode(&out)
	if err != nil {
		a.f.t.Errorf("agent %s: %v", a.id, err)
		return
	}
	_ = m.Respond(data) // a closed connection is the test's wish
}

func (a *fake) onCancel(m *nats.Msg) {
	var p messages.Probe
	if err := messages.Decode(m.Data, &p); err != nil {
		a.f.t.Errorf("agent %s: %v", a.id, err)
		return
	}
	for _, id := range p.IDs {
		a.cancelled <- id
	}
}

func (a *fake) served() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

func next[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(wait):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// gate is a handler that answers when it is opened, or the test ends.
type gate struct {
	open func()
	c    chan struct{}
	ends chan struct{}
}

func (g gate) serve(c call) ([]byte, *messages.Error) {
	select {
	case <-g.c:
	case <-g.ends:
	}
	return echo(c)
}

func (f *fleet) gate() gate {
	c := make(chan struct{})
	return gate{open: sync.OnceFunc(func() { close(c) }), c: c, ends: f.ends}
}

func wantCode(t *testing.T, err error, code messages.Code) {
	t.Helper()
	var e *messages.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	if e.Message == "" {
		t.Fatalf("%s says nothing", code)
	}
}
