package httpio

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	"github.com/fleetbus/fleetbus/messages"
)

// faults are what can go wrong with any HTTP server, and what its callers see.
func faults() []backendtest.Fault {
	const failed = messages.CodeBackendFailed
	return []backendtest.Fault{
		{Name: "crash", Body: "die", Code: failed, Text: "closed the connection without an answer", Dies: "connection refused"},
		{Name: "hang", Body: "hang", Code: failed, Text: "it hangs: no answer to anything for", Dies: "it hangs"},
		{Name: "not ready any more", Body: "unload", Code: failed, Text: "ended while it served the request", Dies: "503 Service Unavailable: loading weights"},
		{Name: "no answer", Body: "nothing", Code: failed, Text: "closed the connection without an answer"},
		{Name: "garbage", Body: "garbage", Code: failed, Text: `malformed HTTP`},
		{Name: "cut", Body: "cut", Code: failed, Text: "closed the connection inside its answer (200 OK), after 10 of 100 bytes"},
		{Name: "cut chunk", Body: "cut chunk", Code: failed, Text: "closed the connection inside its answer (200 OK), after 10 of an unknown number of bytes"},
		{Name: "500", Body: "status 500", Code: failed, Text: "answered 500 Internal Server Error: because 500"},
		{Name: "503", Body: "status 503", Code: failed, Text: "answered 503 Service Unavailable: because 503"},
		{Name: "504", Body: "status 504", Code: failed, Text: "answered 504"},
		{Name: "302", Body: "status 302", Code: failed, Text: "redirects are not followed"},
		{Name: "400", Body: "status 400", Code: messages.CodeBadRequest, Text: "answered 400 Bad Request: because 400"},
		{Name: "422", Body: "status 422", Code: messages.CodeBadRequest, Text: "because 422"},
		{Name: "401", Body: "status 401", Code: failed, Text: `check the authorization of handler "suite"`},
		{Name: "404", Body: "status 404", Code: failed, Text: `check the URL of handler "suite"`},
		{Name: "413", Body: "status 413", Code: messages.CodePayloadTooLarge, Text: "has 10 bytes: raise the limit"},
		{Name: "429", Body: "status 429", Code: messages.CodeBusy, Text: "because 429"},
		{Name: "large", Body: "large", Code: messages.CodePayloadTooLarge, Text: "the result has 8388609 bytes"},
		{Name: "large chunks", Body: "large chunks", Code: messages.CodePayloadTooLarge, Text: "the result has more than 8388608 bytes"},
	}
}

func unready(oip bool) []backendtest.Unready {
	soon := func(_ *stand, o *Options) { o.ReadyTimeout = 300 * time.Millisecond }
	return []backendtest.Unready{
		{Name: "nothing listens", Code: messages.CodeBackendFailed, Text: "was not ready within 300ms: dial tcp", Notes: "connection refused",
			Start: start(oip, func(s *stand, o *Options) { soon(s, o); s.shut() })},
		{Name: "loads", Code: messages.CodeBackendFailed, Text: "says 503 Service Unavailable: loading weights; start it, check its URL, or raise the ready timeout", Notes: "waits for http://127.0.0.1:",
			Start: start(oip, func(s *stand, o *Options) { soon(s, o); s.ready.Store(false) })},
		{Name: "silent", Code: messages.CodeBackendFailed, Text: "no answer",
			Start: start(oip, func(s *stand, o *Options) { soon(s, o); s.hangs.Store(true) })},
		{Name: "no url", Code: messages.CodeBadRequest, Text: `found "ftp://x/y", expected a URL like`,
			Start: start(oip, func(_ *stand, o *Options) { o.URL = "ftp://x/y" })},
		{Name: "credentials in the url", Code: messages.CodeBadRequest, Text: "with credentials in it",
			Start: start(oip, func(_ *stand, o *Options) { o.URL = "http://a:b@127.0.0.1/y" })},
	}
}

func kind(oip bool) backendtest.Kind {
	return backendtest.Kind{
		Start: start(oip, nil), Limit: limit, SeesCancel: true, Faults: faults(), Unready: unready(oip),
		Late: func(t *testing.T) (backend.Handler, func()) {
			s := newStand(t)
			s.ready.Store(false)
			return New(s.options(oip)), func() { s.ready.Store(true) }
		},
	}
}

func TestPlain(t *testing.T) { backendtest.Run(t, kind(false)) }
func TestOIP(t *testing.T)   { backendtest.Run(t, kind(true)) }

// A server without a page for it is ready when it takes connections.
func TestReadyByConnection(t *testing.T) {
	open := start(false, func(_ *stand, o *Options) { o.ReadyURL = "" })
	s := backendtest.Open(t, open(t))
	if got, err := backendtest.Ask(t, s, []byte("x")); err != nil || string(got) != "x" {
		t.Error(got, err)
	}
	_, err := start(false, func(s *stand, o *Options) { o.ReadyURL, o.ReadyTimeout = "", 50*time.Millisecond; s.shut() })(t).
		Open(t.Context(), backend.Open{})
	backendtest.WantError(t, err, messages.CodeBackendFailed, "connection refused")
}

// What a server is told beside the body, and what it says beside its answer.
func TestHeaders(t *testing.T) {
	st := newStand(t)
	o := st.options(true)
	o.Authorization = "Bearer secret"
	s := backendtest.Open(t, New(o))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := backendtest.Request([]byte("{}binary"))
	req.Attempt, req.Key, req.Seq, req.Episode, req.Traceparent = 2, "camera", 7, "run", "00-1-2-03"
	req.ContentType = messages.AddParam("application/octet-stream", messages.ParamBinary, "2")
	resp, err := s.Serve(ctx, req)
	if err != nil || string(resp.Body) != "{}binary" || resp.ContentType != req.ContentType {
		t.Fatalf("%+v, %v", resp, err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", headerBinary: "2", "Authorization": "Bearer secret", "Fb-Id": "id", "Fb-Task": "suite", "Fb-Class": "inference",
		"Fb-Origin": "robot", "Fb-Attempt": "2", "Fb-Key": "camera", "Fb-Seq": "7", "Fb-Episode": "run", "Traceparent": "00-1-2-03",
	} {
		if got := st.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if left := st.header.Get("Fb-Left-Ms"); len(left) != 5 || left > "60000" {
		t.Errorf("left: %q", left)
	}
	if st.header.Get("Accept-Encoding") != "" {
		t.Error("it asks for compression, which would change bytes")
	}
	d := s.(backend.Describer)
	if m, err := d.Describe(ctx); err != nil || string(m.Body) != metadata || m.ContentType != "application/json" {
		t.Errorf("%+v, %v", m, err)
	}
	plain := backendtest.Open(t, start(false, nil)(t))
	_, err = plain.(backend.Describer).Describe(ctx)
	backendtest.WantError(t, err, messages.CodeBadRequest, "has no metadata")
}

func TestVersions(t *testing.T) {
	for _, c := range []struct{ url, version, want string }{
		{"http://h/v2/models/m", "", "http://h/v2/models/m/infer"},
		{"http://h/v2/models/m", "3", "http://h/v2/models/m/versions/3/infer"},
		{"http://h/v2/models/m", "a/b", "http://h/v2/models/m/versions/a%2Fb/infer"},
		{"http://h/v2/models/m/versions/3", "3", "http://h/v2/models/m/versions/3/infer"},
		{"http://h/v2/models/m/versions/3", "", "http://h/v2/models/m/versions/3/infer"},
		{"http://h/v2/models/m/versions/3", "4", ""},
	} {
		s := &server{o: Options{URL: c.url}}
		at, err := s.modelURL(c.version, "/infer")
		if at != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s, %s: %s, %v", c.url, c.version, at, err)
		}
	}
	st := newStand(t)
	s := backendtest.Open(t, New(st.options(true)))
	req := backendtest.Request([]byte("status 404"))
	req.ContentType = messages.AddParam("a/b", messages.ParamVersion, "9")
	_, err := s.Serve(t.Context(), req)
	backendtest.WantError(t, err, messages.CodeNotFound, "version 9 of the model was asked for")
}

// A server that all replicas of a handler share is asked for no more at once than it takes.
func TestConcurrency(t *testing.T) {
	st := newStand(t)
	o := st.options(false)
	o.Concurrency = 1
	h := New(o)
	a, b := backendtest.Open(t, h), backendtest.Open(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan error, 1)
	go func() { _, err := a.Serve(ctx, backendtest.Request(backendtest.Hold("/no/such/file"))); held <- err }()
	over := time.Now().Add(30 * time.Second)
	for st.Requests() == 0 && time.Now().Before(over) {
		<-time.After(time.Millisecond)
	}
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := b.Serve(short, backendtest.Request([]byte("x"))); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second request at once: %v", err)
	}
	cancel()
	if err := <-held; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got, err := backendtest.Ask(t, b, []byte("x")); err != nil || string(got) != "x" {
		t.Error(got, err)
	}
}

// Connections are kept: a hundred requests need no more than there are slots.
func TestConnectionsAreKept(t *testing.T) {
	st := newStand(t)
	s := backendtest.Open(t, New(st.options(true)))
	seen := map[string]bool{}
	for range 100 {
		if _, err := backendtest.Ask(t, s, []byte("x")); err != nil {
			t.Fatal(err)
		}
		st.mu.Lock()
		seen[st.last] = true
		st.mu.Unlock()
	}
	if len(seen) > 2 {
		t.Errorf("%d connections for requests one after the other", len(seen))
	}
}

func TestSaid(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"\n\n":                       "",
		`{"error":"no such tensor"}`: ": no such tensor",
		`{"detail":[{"loc":"x"}]}`:   `: {"detail":[{"loc":"x"}]}`,
		`{"detail":"Not Found"}`:     ": Not Found",
		"<html>\n<body>":             ": <html>",
		"a\x00b\xff":                 ": a.b.",
		strings.Repeat("ä", 300):     ": " + strings.Repeat("ä", 200) + "…",
	} {
		if got := said(strings.NewReader(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A body is not touched any more when Serve has returned, whatever the transport does.
func TestLentBodyIsGivenBack(t *testing.T) {
	l := lend([]byte("abc"))
	r := l.reader()
	var b [2]byte
	if n, err := r.Read(b[:]); n != 2 || err != nil {
		t.Error(n, err)
	}
	l.back()
	if n, err := r.Read(b[:]); n != 0 || err == nil {
		t.Error(n, err)
	}
	if !bytes.Equal(b[:], []byte("ab")) {
		t.Errorf("%q", b)
	}
}
