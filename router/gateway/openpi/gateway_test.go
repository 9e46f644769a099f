package openpi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	backend "github.com/fleetbus/fleetbus/agent/backend/openpi"
	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/router/gateway"
	"github.com/fleetbus/fleetbus/testing/lab"
	"github.com/fleetbus/fleetbus/testing/policy"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"))
}

// pi0 is the task of these tests.
func pi0() messages.Task {
	return messages.Task{Name: "pi0", Class: messages.Inference, Demand: messages.Resources{Compute: 1, Storage: 1, Network: 1}, Delivery: messages.Direct, Concurrency: 4, Deadline: 20_000}
}

// door is a running door.
type door struct {
	*Gateway
	url  string // ws://…
	stop func() error
}

func open(t *testing.T, l *lab.Lab, change func(*Config), client ...func(*router.Config)) *door {
	t.Helper()
	cfg := Config{Task: "pi0", Logger: lab.Log()}
	if change != nil {
		change(&cfg)
	}
	g := New(l.Client("door", client...), 8<<20, cfg)
	ln, err := gateway.Listen(t.Context(), "127.0.0.1:0", cfg.Keys, 100)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx, ln, gateway.TLS{}) }()
	var once sync.Once
	var failed error
	d := &door{Gateway: g, url: "ws://" + ln.Addr().String()}
	d.stop = func() error {
		once.Do(func() { cancel(); failed = <-ended })
		return failed
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// server is a policy server that runs.
type server struct {
	*policy.Server
	url   string
	web   *httptest.Server
	crash func()
}

func serve(t *testing.T, infer func(context.Context, []byte) ([]byte, error)) *server {
	t.Helper()
	s := &server{Server: &policy.Server{Metadata: policy.Metadata(), Infer: infer}}
	s.web = httptest.NewServer(s)
	s.url = "ws" + strings.TrimPrefix(s.web.URL, "http")
	var once sync.Once
	s.crash = func() {
		once.Do(func() {
			s.web.Listener.Close()
			s.CloseAll()
			s.web.Close()
		})
	}
	t.Cleanup(s.crash)
	return s
}

func (s *server) handler() agent.Handler {
	return backend.New(backend.Options{Name: "pi0", URL: s.url, Logger: lab.Log()})
}

// answer is the policy of most tests: the id of the observation comes back.
func answer(_ context.Context, o []byte) ([]byte, error) { return policy.Answer(policy.IDOf(o)), nil }

func connect(t *testing.T, url string) *policy.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patience)
	defer cancel()
	c, err := policy.Connect(ctx, url, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseNow)
	return c
}

func infer(t *testing.T, c *policy.Client, o []byte) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patience)
	defer cancel()
	got, err := c.Infer(ctx, o)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("no answer")
	}
	return got, err
}

// wantEnd checks the traceback with which a client ends: its last line, and the close.
func wantEnd(t *testing.T, err error, parts ...string) {
	t.Helper()
	var traceback *openpiwire.Traceback
	if !errors.As(err, &traceback) {
		t.Fatalf("%v, want a traceback", err)
	}
	for _, p := range parts {
		if !strings.Contains(openpiwire.LastLine(traceback.Text), p) {
			t.Errorf("the last line of %q, want %q in it", traceback.Text, p)
		}
	}
}

// Whatever a client sends comes to the policy as it is, and the answer back, up to the
// payload limit; and one byte more ends with the sizes and what to raise.
func TestBytes(t *testing.T) {
	l := lab.New(t)
	echo := serve(t, func(_ context.Context, o []byte) ([]byte, error) { return o, nil })
	l.Agent("edge", pi0(), echo.handler())
	l.Place(pi0(), "edge")
	d := open(t, l, nil)
	c := connect(t, d.url)
	if !bytes.Equal(c.Metadata, policy.Metadata()) {
		t.Errorf("metadata % x", c.Metadata)
	}
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 0))
	limit := 8<<20 - roomForHeaders
	for _, n := range backendtest.Sizes(limit, dice) {
		body := backendtest.Random(n, dice)
		got, err := infer(t, c, body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("seed %d: %d bytes came back as %d others, %v", seed, n, len(got), err)
		}
	}
	golden := policy.Observation(4, 7)
	if got, err := infer(t, c, golden); err != nil || !bytes.Equal(got, golden) {
		t.Errorf("% x, %v", got, err)
	}
	_, err := infer(t, c, make([]byte, limit+1))
	wantEnd(t, err, "payload_too_large", fmt.Sprint(limit+1), fmt.Sprint(limit), "raise max_payload")
}

// A client that is there before anybody can serve it waits for the first ready replica.
func TestMetadataWaits(t *testing.T) {
	l := lab.New(t)
	d := open(t, l, nil)
	connected := make(chan *policy.Client, 1)
	go func() {
		c, err := policy.Connect(t.Context(), d.url, "")
		if err != nil {
			t.Error(err)
		}
		connected <- c
	}()
	for d.Stats().Clients == 0 {
		<-time.After(time.Millisecond)
	}
	l.Place(pi0()) // known, and placed nowhere
	s := serve(t, answer)
	l.Agent("edge", pi0(), s.handler())
	select {
	case <-connected:
		t.Fatal("metadata came before there was a replica")
	default:
	}
	l.Place(pi0(), "edge")
	c := <-connected
	defer c.CloseNow()
	if !bytes.Equal(c.Metadata, policy.Metadata()) {
		t.Errorf("metadata % x", c.Metadata)
	}
	// Where nobody comes, it ends with the reason.
	l.Place(pi0())
	short := open(t, l, func(c *Config) { c.Hold = 50 * time.Millisecond })
	_, err := policy.Connect(t.Context(), short.url, "")
	wantEnd(t, err, "no_capacity: no replica was ready within 50ms: task pi0 is placed nowhere: no machine has room")
	// What the operator says comes at once.
	said := open(t, l, func(c *Config) { c.Metadata = []byte{0x81, 0xa1, 'x', 1} })
	if c := connect(t, said.url); !bytes.Equal(c.Metadata, []byte{0x81, 0xa1, 'x', 1}) {
		t.Errorf("% x", c.Metadata)
	}
}

// Any handler serves policy clients; one without metadata has an empty map of them.
func TestGoHandler(t *testing.T) {
	l := lab.New(t)
	l.Agent("edge", pi0(), agent.Func("pi0", func(ctx context.Context, r *agent.Request) ([]byte, error) { return answer(ctx, r.Body) }))
	l.Place(pi0(), "edge")
	c := connect(t, open(t, l, nil).url)
	if !bytes.Equal(c.Metadata, []byte{0x80}) {
		t.Errorf("% x", c.Metadata)
	}
	if got, err := infer(t, c, policy.Observation(4, 5)); err != nil || policy.AnswerTo(got) != 5 {
		t.Error(policy.AnswerTo(got), err)
	}
}

// Agents and policy servers die and come back, one at a time; no client sees anything of
// it, and every answer is to its observation.
func TestClientsSurvive(t *testing.T) {
	l := lab.New(t)
	servers := map[string]*server{}
	start := func(id string) *lab.Agent {
		servers[id] = serve(t, answer)
		return l.Agent(id, pi0(), servers[id].handler())
	}
	agents := map[string]*lab.Agent{"a": start("a"), "b": start("b")}
	l.Place(pi0(), "a", "b")
	d := open(t, l, nil)
	over := make(chan struct{})
	var asked atomic.Int64
	var clients sync.WaitGroup
	for n := range 4 {
		c := connect(t, d.url)
		clients.Go(func() {
			for i := uint64(n) << 32; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				got, err := infer(t, c, policy.Observation(16, i))
				if err != nil || policy.AnswerTo(got) != i {
					t.Errorf("observation %x: answer to %x, %v", i, policy.AnswerTo(got), err)
					return
				}
				asked.Add(1)
			}
		})
	}
	step := func() {
		for at := asked.Load(); asked.Load() < at+100 && !t.Failed(); {
			<-time.After(time.Millisecond)
		}
	}
	for round := range 4 {
		id := string("ab"[round%2])
		step()
		if round < 2 {
			agents[id].Kill()
			step()
			servers[id].crash()
			agents[id] = start(id)
		} else { // the policy server alone
			servers[id].crash()
			step()
			agents[id].Stop()
			agents[id] = start(id)
		}
		l.Place(pi0(), "a", "b")
	}
	step()
	close(over)
	clients.Wait()
	if s := d.Stats(); s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// When nothing is left, a client gets the protocol's own error, with our code and reason.
func TestNothingLeft(t *testing.T) {
	l := lab.New(t)
	var slow atomic.Bool
	s := serve(t, func(ctx context.Context, o []byte) ([]byte, error) {
		if policy.IDOf(o) == 13 {
			return nil, errors.New("no such camera")
		}
		if slow.Load() {
			<-time.After(300 * time.Millisecond)
		}
		return answer(ctx, o)
	})
	a := l.Agent("edge", pi0(), s.handler())
	l.Place(pi0(), "edge")
	d := open(t, l, func(c *Config) { c.Deadline, c.FirstDeadline = 100*time.Millisecond, time.Minute })

	// An exception of the policy.
	c := connect(t, d.url)
	_, err := infer(t, c, policy.Observation(4, 13))
	wantEnd(t, err, "backend_failed", "the policy raised an exception: ValueError: no such camera")
	if _, err := infer(t, c, policy.Observation(4, 1)); err == nil {
		t.Error("the connection is still there")
	}

	// A model that is too slow: the first observation has more time, as it may be cold.
	c = connect(t, d.url)
	slow.Store(true)
	if _, err := infer(t, c, policy.Observation(4, 1)); err != nil {
		t.Fatal(err)
	}
	_, err = infer(t, c, policy.Observation(4, 2))
	wantEnd(t, err, "deadline_exceeded")
	slow.Store(false)

	// Nobody there any more.
	c = connect(t, d.url)
	if _, err := infer(t, c, policy.Observation(4, 3)); err != nil {
		t.Fatal(err)
	}
	a.Kill()
	_, err = infer(t, c, policy.Observation(4, 4))
	wantEnd(t, err, "deadline_exceeded", "within 100ms")
	if s := d.Stats(); s.Failed != 3 {
		t.Errorf("%+v", s)
	}
}

// While a cold model computes, pings are answered, and a client that goes away takes its
// request with it.
func TestPingsAndGoing(t *testing.T) {
	l := lab.New(t)
	entered, left := make(chan struct{}, 10), make(chan error, 10)
	l.Agent("edge", pi0(), agent.Func("pi0", func(ctx context.Context, _ *agent.Request) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		left <- ctx.Err()
		return nil, ctx.Err()
	}))
	l.Place(pi0(), "edge")
	d := open(t, l, nil)
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patience)
	defer cancel()
	wire, err := openpiwire.Dial(ctx, d.url, "", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.CloseNow()
	if _, err := wire.Read(ctx); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = wire.Read(ctx) }() // reads the pongs, until it is closed
	if err := wire.Write(ctx, policy.Observation(4, 1)); err != nil {
		t.Fatal(err)
	}
	<-entered
	for range 3 {
		if err := wire.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wire.CloseNow()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for d.Stats().Clients > 0 {
		<-time.After(time.Millisecond)
	}
	if s := d.Stats(); s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// Sessions stay with their agent; strictly in turn, nothing is ever superseded.
func TestSticky(t *testing.T) {
	for _, kind := range []Sticky{StickyPrefer, StickyOnly} {
		t.Run(string(kind), func(t *testing.T) {
			l := lab.New(t)
			var mu sync.Mutex
			seen := map[string]map[string]int{} // key → agent → observations
			var hung atomic.Int32               // requests that went elsewhere, because an agent looked dead on a busy machine
			handler := func(id string) agent.Handler {
				return agent.Func("pi0", func(_ context.Context, r *agent.Request) ([]byte, error) {
					mu.Lock()
					defer mu.Unlock()
					if seen[r.Key] == nil {
						seen[r.Key] = map[string]int{}
					}
					seen[r.Key][id]++
					return []byte(id), nil
				})
			}
			agents := map[string]*lab.Agent{}
			for _, id := range []string{"a", "b", "c"} {
				agents[id] = l.Agent(id, pi0(), handler(id))
			}
			l.Place(pi0(), "a", "b", "c")
			d := open(t, l, func(c *Config) { c.Sticky, c.Deadline, c.FirstDeadline = kind, time.Second, time.Second }, func(c *router.Config) {
				c.Trace = func(e router.TraceEvent) {
					if e.Kind == router.TraceHung || e.Kind == router.TraceLost {
						hung.Add(1)
					}
				}
			})
			var all sync.WaitGroup
			for range 4 {
				c := connect(t, d.url)
				all.Go(func() {
					for i := range uint64(50) {
						if _, err := infer(t, c, policy.Observation(4, i)); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			mu.Lock()
			if len(seen) != 4 {
				t.Errorf("%d sessions, want 4", len(seen))
			}
			for key, by := range seen {
				if moved := len(by) != 1 && (kind == StickyOnly || hung.Load() == 0); moved || key == "" {
					t.Errorf("session %q was at %v", key, by)
				}
			}
			mu.Unlock()

			c := connect(t, d.url)
			at, err := infer(t, c, policy.Observation(4, 1))
			if err != nil {
				t.Fatal(err)
			}
			agents[string(at)].Kill()
			var rest []string
			for id := range agents {
				if id != string(at) {
					rest = append(rest, id)
				}
			}
			l.Place(pi0(), rest...)
			now, err := infer(t, c, policy.Observation(4, 2))
			if kind == StickyPrefer {
				if err != nil || string(now) == string(at) {
					t.Errorf("moved from %s to %s, %v", at, now, err)
				}
				return
			}
			wantEnd(t, err, "this session belongs to agent "+string(at)+", and its state with it; begin a new one")
		})
	}
}

// With sessions on the agent, too, every client has a connection of its own to the policy
// server, which may keep its state there.
func TestSessionsReachTheirConnection(t *testing.T) {
	l := lab.New(t)
	var mu sync.Mutex
	seen := map[*openpiwire.Conn]map[uint64]int{} // connection → client → observations
	s := serve(t, answer)
	s.Parallel = true
	s.Misbehave = func(c *openpiwire.Conn, _ *http.Request, o []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if seen[c] == nil {
			seen[c] = map[uint64]int{}
		}
		seen[c][policy.IDOf(o)>>32]++
		return false
	}
	l.Agent("edge", pi0(), backend.New(backend.Options{Name: "pi0", URL: s.url, Sessions: true, Logger: lab.Log()}))
	l.Place(pi0(), "edge")
	d := open(t, l, func(c *Config) { c.Sticky = StickyPrefer })
	var all sync.WaitGroup
	for n := range uint64(3) {
		c := connect(t, d.url)
		all.Go(func() {
			for i := range uint64(20) {
				if _, err := infer(t, c, policy.Observation(4, n<<32|i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 3 {
		t.Errorf("%d connections served 3 clients", len(seen))
	}
	for _, by := range seen {
		if len(by) != 1 {
			t.Errorf("a connection served %d clients", len(by))
		}
	}
}

// Who may come in, how many, and what a probe sees.
func TestEntrance(t *testing.T) {
	l := lab.New(t)
	l.Agent("edge", pi0(), serve(t, answer).handler())
	l.Place(pi0(), "edge")
	keys, err := gateway.ParseKeys([]byte("a-secret-key\n"))
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, l, func(c *Config) { c.Keys, c.MaxConns = keys, 2 })
	web := "http" + strings.TrimPrefix(d.url, "ws")
	page := func(path, key string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Api-Key "+key)
		}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(text))
	}
	if got := page("/healthz", ""); got != "200 OK\n" {
		t.Errorf("%q", got)
	}
	if got := page("/", ""); !strings.HasPrefix(got, "401 unauthorized: send a header Authorization: Api-Key") {
		t.Errorf("%q", got)
	}
	if got := page("/", "a-secret-key"); !strings.HasPrefix(got, "426 ") { // no WebSocket
		t.Errorf("%q", got)
	}
	if _, err := policy.Connect(t.Context(), d.url, "another-key"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Error(err)
	}
	var clients []*policy.Client
	for range 2 {
		c, err := policy.Connect(t.Context(), d.url, "a-secret-key")
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	if _, err := policy.Connect(t.Context(), d.url, "a-secret-key"); err == nil || !strings.Contains(err.Error(), "busy: this gateway has 2 clients already") {
		t.Error(err)
	}
	for _, c := range clients {
		c.CloseNow()
	}
	for d.Stats().Clients > 0 {
		<-time.After(time.Millisecond)
	}
	c, err := policy.Connect(t.Context(), d.url, "a-secret-key")
	if err != nil {
		t.Fatal(err)
	}
	// A door that stops says goodbye.
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if _, err := c.Infer(t.Context(), policy.Observation(4, 1)); err == nil || !strings.Contains(err.Error(), "1001") && !strings.Contains(err.Error(), "clos") && !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("after the stop: %v", err)
	}
	c.CloseNow()
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(d.url, "ws://"), time.Second); err == nil {
		t.Error("it still listens")
	}
}

// What goes wrong with a policy server, in the words that its client sees at the end.
func TestFaults(t *testing.T) {
	l := lab.New(t)
	s := serve(t, answer)
	s.Misbehave = func(c *openpiwire.Conn, r *http.Request, o []byte) bool {
		switch string(o[:min(len(o), 16)]) {
		case "close":
			c.CloseNow()
		case "1011":
			_ = c.Close(1011, "out of memory")
		case "text":
			_ = c.Fail(r.Context(), "Traceback\nKeyError: 'prompt'")
		default:
			return false
		}
		return true
	}
	l.Agent("edge", pi0(), s.handler())
	l.Place(pi0(), "edge")
	d := open(t, l, nil)
	for body, text := range map[string]string{
		"close": "gave no answer: the connection was closed without a word", "1011": "the other side closed with status 1011, out of memory", "text": "KeyError: 'prompt'",
	} {
		_, err := infer(t, connect(t, d.url), []byte(body))
		wantEnd(t, err, "backend_failed", text)
	}
	if got, err := infer(t, connect(t, d.url), policy.Observation(4, 9)); err != nil || policy.AnswerTo(got) != 9 {
		t.Errorf("afterwards: %v", err)
	}
	// And with a client.
	ws, resp, err := websocket.Dial(t.Context(), d.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		resp.Body.Close()
	}
	defer ws.CloseNow()
	if _, _, err := ws.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	kind, text, err := ws.Read(t.Context())
	if err != nil || kind != websocket.MessageText || !strings.Contains(string(text), "fleetbus.Error: bad_request: found a text message of 5 bytes, expected an observation as a binary message") {
		t.Errorf("%v %q %v", kind, text, err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusInternalError {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		text   string
	}{
		"task":     {func(c *Config) { c.Task = "" }, "task"},
		"deadline": {func(c *Config) { c.Deadline = -1 }, "deadline: found -1ns"},
		"sticky":   {func(c *Config) { c.Sticky = "yes" }, `sticky: found "yes", allowed are off, prefer, only`},
		"body":     {func(c *Config) { c.MaxBody = 2 << 20 }, "raise max_payload"},
		"rate":     {func(c *Config) { c.Rate = -1 }, "allowed is more than 0"},
	} {
		cfg := Config{Task: "pi0"}
		c.change(&cfg)
		if _, err := cfg.normal(1 << 20); messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAgain(t *testing.T) {
	var a again
	for i, c := range []struct {
		code  messages.Code
		after time.Duration
		pause time.Duration
		ok    bool
	}{
		{messages.CodeNotPlaced, 0, 5 * time.Millisecond, true},
		{messages.CodeBusy, 40 * time.Millisecond, 40 * time.Millisecond, true},
		{messages.CodeBusy, time.Hour, pauseMost, true},
		{messages.CodeBackendFailed, 0, 40 * time.Millisecond, true},
		{messages.CodeBackendFailed, 0, 80 * time.Millisecond, true},
		{messages.CodeUnavailable, 0, 160 * time.Millisecond, true},
		{messages.CodeBackendFailed, 0, 0, false},
		{messages.CodeDeadline, 0, 0, false},
		{messages.CodeBadRequest, 0, 0, false},
		{messages.CodeSuperseded, 0, 0, false},
	} {
		pause, ok := a.next(&messages.Error{Code: c.code, RetryAfter: c.after})
		if pause != c.pause || ok != c.ok {
			t.Errorf("step %d: %v %v, want %v %v", i, pause, ok, c.pause, c.ok)
		}
	}
}
