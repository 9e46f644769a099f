package httpio

import (
	"fmt"
	"io"
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
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is the largest body in these tests: what NATS carries at most.
const limit = 8 << 20

const metadata = `{"name":"suite","versions":["1"],"platform":"stand-in","inputs":[],"outputs":[]}`

// stand is a model server for tests, with the pages of the Open Inference Protocol.
type stand struct {
	backendtest.Model
	*httptest.Server
	ready  atomic.Bool
	hangs  atomic.Bool
	over   chan struct{} // closed with the test: what hangs ends
	once   sync.Once
	header http.Header // of the last inference
	last   string      // its connection
	count  atomic.Int64
	mu     sync.Mutex
}

func newStand(t *testing.T) *stand {
	s := &stand{over: make(chan struct{})}
	s.ready.Store(true)
	s.Server = httptest.NewServer(s)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(func() { close(s.over); s.shut() })
	return s
}

// Requests is how many inferences have come.
func (s *stand) Requests() int { return int(s.count.Load()) }

func (s *stand) shut() {
	s.once.Do(func() {
		s.Listener.Close()
		s.CloseClientConnections()
		s.Server.Close()
	})
}

func (s *stand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.hangs.Load() {
		<-s.over
		return
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/ready"):
		if !s.ready.Load() {
			http.Error(w, `{"error":"loading weights"}`, http.StatusServiceUnavailable)
		}
		return
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, metadata)
		return
	}
	s.mu.Lock()
	s.header, s.last = r.Header.Clone(), r.RemoteAddr
	s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was given up
	}
	s.count.Add(1)
	if s.misbehave(w, r, string(body[:min(len(body), 64)])) {
		return
	}
	answer, err := s.Serve(r.Context(), body)
	if err != nil {
		http.Error(w, `{"error":"`+err.Error()+`"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	if n := r.Header.Get(headerBinary); n != "" {
		w.Header().Set(headerBinary, n)
	}
	_, _ = w.Write(answer) // whoever has gone needs none
}

// misbehave does what a body asks for instead of an answer.
func (s *stand) misbehave(w http.ResponseWriter, r *http.Request, body string) bool {
	raw := func(text string) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			fmt.Fprint(conn, text)
			conn.Close()
		}
	}
	var code int
	switch {
	case body == "die":
		go s.shut()
		<-r.Context().Done()
	case body == "hang":
		s.hangs.Store(true)
		<-s.over
	case body == "unload":
		s.ready.Store(false)
		<-r.Context().Done()
	case body == "nothing":
		raw("")
	case body == "garbage":
		raw("%PDF-1.4\r\n\r\n")
	case body == "cut":
		raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.")
	case body == "cut chunk":
		raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nten bytes.")
	case body == "large":
		w.Header().Set("Content-Length", fmt.Sprint(limit+1))
		_, _ = w.Write(make([]byte, limit+1)) // it is refused by its length
	case body == "large chunks":
		w.(http.Flusher).Flush()
		_, _ = w.Write(make([]byte, limit+1)) // it is refused by its length
	default:
		if _, err := fmt.Sscanf(body, "status %d", &code); err != nil {
			return false
		}
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(code)
		fmt.Fprintf(w, "{\"detail\":\"because %d\"}\n", code)
	}
	return true
}

// options are those of a handler for the stand-in.
func (s *stand) options(oip bool) Options {
	o := Options{Name: "suite", URL: s.URL + "/predict", ReadyURL: s.URL + "/ready", MaxBody: limit,
		HangTimeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	if oip {
		o.OIP, o.URL, o.ReadyURL = true, s.URL+"/v2/models/suite", ""
	}
	return o
}

func start(oip bool, change func(*stand, *Options)) func(*testing.T) backend.Handler {
	return func(t *testing.T) backend.Handler {
		s := newStand(t)
		o := s.options(oip)
		if change != nil {
			change(s, &o)
		}
		return New(o)
	}
}
