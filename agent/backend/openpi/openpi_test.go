package openpi

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/policy"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is the largest body in these tests: what NATS carries at most.
const limit = 8 << 20

// stand is a policy server for tests, with the suite's model as its policy.
type stand struct {
	backendtest.Model
	policy.Server
	web    *httptest.Server
	open   atomic.Int64 // connections
	most   atomic.Int64
	hangs  atomic.Bool // takes no connection any more
	over   chan struct{}
	once   sync.Once
	shaken atomic.Int64 // handshakes
}

func newStand(t *testing.T) *stand {
	s := &stand{over: make(chan struct{})}
	s.Metadata, s.Parallel = policy.Metadata(), true
	s.Server.Infer = func(ctx context.Context, observation []byte) ([]byte, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // its protocol tells it of no caller; the test's end does
			select {
			case <-s.over:
				cancel()
			case <-ctx.Done():
			}
		}()
		return s.Model.Serve(ctx, observation)
	}
	s.Misbehave = s.misbehave
	s.web = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.hangs.Load() {
			<-s.over
			return
		}
		s.shaken.Add(1)
		s.most.Store(max(s.most.Load(), s.open.Add(1)))
		defer s.open.Add(-1)
		s.ServeHTTP(w, r)
	}))
	s.web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.web.Start()
	t.Cleanup(func() { close(s.over); s.shut() })
	return s
}

// shut ends the server as a crash does.
func (s *stand) shut() {
	s.once.Do(func() {
		s.web.Listener.Close()
		s.CloseAll()
		s.web.CloseClientConnections()
		s.web.Close()
	})
}

func (s *stand) misbehave(c *openpiwire.Conn, r *http.Request, observation []byte) bool {
	switch string(observation[:min(len(observation), 64)]) {
	case "die":
		go s.shut()
		c.CloseNow()
	case "close":
		c.CloseNow()
	case "1011":
		_ = c.Close(1011, "out of memory")
	case "traceback":
		_ = c.Fail(r.Context(), "Traceback (most recent call last):\n  File \"model.py\"\njax.XlaRuntimeError: RESOURCE_EXHAUSTED\n\n")
	case "empty traceback":
		_ = c.Fail(r.Context(), "")
	case "unasked":
		_ = c.Write(r.Context(), observation)
		_ = c.Write(r.Context(), observation)
		return false
	case "large":
		_ = c.Write(r.Context(), make([]byte, limit+1))
	case "hang":
		s.hangs.Store(true)
		<-s.over
	default:
		return false
	}
	return true
}

func (s *stand) options() Options {
	return Options{Name: "suite", URL: "ws" + strings.TrimPrefix(s.web.URL, "http"), MaxBody: limit, HangTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)}
}

func start(change func(*stand, *Options)) func(*testing.T) backend.Handler {
	return func(t *testing.T) backend.Handler {
		s := newStand(t)
		o := s.options()
		if change != nil {
			change(s, &o)
		}
		return New(o)
	}
}

// raw is a server that answers the handshake as WebSocket and the first observation with
// bytes that are none.
func raw(answer string) func(*testing.T) backend.Handler {
	return func(t *testing.T) backend.Handler {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(r.Header.Get("Sec-WebSocket-Key")))
			fmt.Fprint(conn, "\x82\x01\x80") // an empty map of metadata
			var b [512]byte
			if _, err := conn.Read(b[:]); err == nil {
				fmt.Fprint(conn, answer)
			}
		}))
		t.Cleanup(s.Close)
		return New(Options{Name: "suite", URL: "ws" + strings.TrimPrefix(s.URL, "http"), MaxBody: limit, Logger: slog.New(slog.DiscardHandler)})
	}
}

func TestConformance(t *testing.T) {
	const failed = messages.CodeBackendFailed
	soon := func(o *Options) { o.ReadyTimeout = 300 * time.Millisecond }
	backendtest.Run(t, backendtest.Kind{
		Start: start(nil), Limit: limit, KeepsPlaces: true,
		Faults: []backendtest.Fault{
			{Name: "crash", Body: "die", Code: failed, Text: "gave no answer: the connection was closed without a word", Dies: "connection refused"},
			{Name: "closes", Body: "close", Code: failed, Text: "gave no answer: the connection was closed without a word"},
			{Name: "closes with 1011", Body: "1011", Code: failed, Text: "the other side closed with status 1011, out of memory"},
			{Name: "traceback", Body: "traceback", Code: failed, Text: "the policy raised an exception: jax.XlaRuntimeError: RESOURCE_EXHAUSTED"},
			{Name: "empty traceback", Body: "empty traceback", Code: failed, Text: "it gave no reason"},
			{Name: "large", Body: "large", Code: messages.CodePayloadTooLarge, Text: "a message of 8388609 bytes, allowed are 8388608; raise MaxBody"},
		},
		Unready: []backendtest.Unready{
			{Name: "nothing listens", Code: failed, Text: "was not ready within 300ms: dial tcp", Notes: "connection refused",
				Start: start(func(s *stand, o *Options) { soon(o); s.shut() })},
			{Name: "no WebSocket", Code: failed, Text: "the server answered 404 Not Found and not with a WebSocket: 404 page not found",
				Start: func(t *testing.T) backend.Handler {
					s := httptest.NewServer(http.NotFoundHandler())
					t.Cleanup(s.Close)
					o := Options{Name: "suite", URL: "ws" + strings.TrimPrefix(s.URL, "http")}
					soon(&o)
					return New(o)
				}},
			{Name: "silent", Code: failed, Text: "was not ready within 300ms", Start: start(func(s *stand, o *Options) { soon(o); s.hangs.Store(true) })},
			{Name: "wrong key", Code: failed, Text: "401 Unauthorized and not with a WebSocket: wrong key", Start: start(func(s *stand, o *Options) { soon(o); s.Key = "secret" })},
			{Name: "never warm", Code: failed, Text: "it has not answered the warm-up observation", Notes: "warms up",
				Start: start(func(_ *stand, o *Options) { soon(o); o.Warmup = backendtest.Hold("/no/such/file") })},
			{Name: "warm-up fails", Code: failed, Text: "did not take the warm-up observation: the policy raised an exception: ValueError: not an image",
				Start: start(func(_ *stand, o *Options) { o.Warmup = []byte(backendtest.Fail) })},
			{Name: "no url", Code: messages.CodeBadRequest, Text: "expected a URL like ws://127.0.0.1:8000", Start: start(func(_ *stand, o *Options) { o.URL = "http://x" })},
		},
		Late: func(t *testing.T) (backend.Handler, func()) {
			s := newStand(t)
			s.Key = "secret"
			o := s.options()
			o.Authorization = "Api-Key late"
			return New(o), func() { s.setKey("late") }
		},
	})
}

// What is no WebSocket, or ends inside a message, in the words that a user sees.
func TestBrokenFrames(t *testing.T) {
	for name, c := range map[string]struct{ frames, text string }{
		"garbage":      {"%PDF-1.4 garbage", "gave no answer: received header with unexpected rsv bits set"},
		"cut":          {"\x82\x64ten bytes.", "failed inside its answer: the connection was closed inside a message, after"},
		"cut header":   {"\x82", "gave no answer: the connection was closed without a word"},
		"continuation": {"\x80\x01x", "continuation frame without text or binary frame"},
	} {
		t.Run(name, func(t *testing.T) {
			s := backendtest.Open(t, raw(c.frames)(t))
			_, err := backendtest.Ask(t, s, []byte("x"))
			backendtest.WantError(t, err, messages.CodeBackendFailed, c.text)
		})
	}
}

// A server that stops answering anything has died, once an observation is overdue for long.
func TestHangs(t *testing.T) {
	st := newStand(t)
	o := st.options()
	o.HangTimeout, o.ReadyTimeout = 100*time.Millisecond, time.Minute
	s := backendtest.Open(t, New(o))
	if _, err := backendtest.Ask(t, s, []byte("x")); err != nil { // from now on it is warm
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Serve(ctx, backendtest.Request([]byte("hang"))); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	<-s.(backend.Dying).Done()
	if err := s.(backend.Dying).Err(); !strings.Contains(err.Error(), "it hangs: an observation was not answered within 100ms after its time was over") {
		t.Error(err)
	}
	_, err := backendtest.Ask(t, s, []byte("x"))
	backendtest.WantError(t, err, messages.CodeBackendFailed, "it hangs")
}

// A message that nobody asked for spoils its connection, and no other request.
func TestUnasked(t *testing.T) {
	st := newStand(t)
	s := backendtest.Open(t, New(st.options())).(*server)
	s.mu.Lock()
	first := s.idle[0]
	s.mu.Unlock()
	if _, err := backendtest.Ask(t, s, []byte("unasked")); err != nil {
		t.Fatal(err)
	}
	<-first.life.Done()
	if got, err := backendtest.Ask(t, s, []byte("x")); err != nil || string(got) != "x" {
		t.Fatalf("%q, %v", got, err)
	}
}

// A server that was restarted is connected to again, and its new metadata are taken.
func TestRestart(t *testing.T) {
	st := newStand(t)
	s := backendtest.Open(t, New(st.options())).(*server)
	if m, err := s.Describe(t.Context()); err != nil || !bytes.Equal(m.Body, policy.Metadata()) {
		t.Errorf("%q %v", m.Body, err)
	}
	st.setMetadata([]byte("\x80"))
	st.CloseAll()
	over := time.Now().Add(30 * time.Second)
	for {
		m, err := s.Describe(t.Context())
		if err == nil && string(m.Body) == "\x80" {
			break
		}
		if time.Now().After(over) {
			t.Fatalf("%q %v", m.Body, err)
		}
		<-time.After(time.Millisecond)
	}
	if got, err := backendtest.Ask(t, s, []byte("x")); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

// As many connections as requests at once, and with sessions one for each.
func TestConnections(t *testing.T) {
	st := newStand(t)
	s := backendtest.Open(t, New(st.options()))
	for range 10 {
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if _, err := backendtest.Ask(t, s, []byte("x")); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	if n := st.shaken.Load(); n > 3 {
		t.Errorf("%d connections for 3 requests at once", n)
	}
	o := st.options()
	o.Sessions, o.MaxSessions = true, 4
	with := backendtest.Open(t, New(o)).(*server)
	ask := func(key string) *conn {
		r := backendtest.Request([]byte("x"))
		r.Key = key
		if _, err := with.Serve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		with.mu.Lock()
		defer with.mu.Unlock()
		return with.idle[len(with.idle)-1]
	}
	a, b := ask("a"), ask("b")
	if a == b {
		t.Error("two sessions share a connection")
	}
	if ask("a") != a || ask("b") != b {
		t.Error("a session has another connection than before")
	}
	for i := range 10 {
		ask(fmt.Sprint("other", i))
	}
	with.mu.Lock()
	if n := len(with.conns); n > 5 {
		t.Errorf("%d connections are kept", n)
	}
	with.mu.Unlock()
}

func (s *stand) setKey(key string)        { s.Set(func(p *policy.Server) { p.Key = key }) }
func (s *stand) setMetadata(frame []byte) { s.Set(func(p *policy.Server) { p.Metadata = frame }) }

// acceptKey is the answer to a handshake, as RFC 6455 has it.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
