package gateway

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func TestKeys(t *testing.T) {
	k, err := ParseKeys([]byte("# of the lab\nfirst-key\n\n  second-key  \n"))
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]bool{
		"Api-Key first-key": true, "api-key second-key": true, "Bearer first-key": true,
		"": false, "first-key": false, "Basic first-key": false, "Api-Key": false, "Api-Key first-ke": false, "Api-Key third-key": false, "Api-Key # of the lab": false,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", header)
		if k.Allow(r) != want {
			t.Errorf("%q: %v", header, !want)
		}
	}
	if !(Keys{}).Allow(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)) {
		t.Error("a door without keys lets nobody in")
	}
	for text, want := range map[string]string{"": "found no key", "# x\n": "found no key", "short\n": "line 1 is no key: found 5 bytes", "a\nlong enough": "line 1", "with a space\n": "line 1 is no key"} {
		if _, err := ParseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestBucket(t *testing.T) {
	now := time.Unix(0, 0)
	b := Bucket{Rate: 2}
	for i, c := range []struct{ after, wait time.Duration }{
		{0, 0}, {0, 0}, {0, 500*time.Millisecond + 1}, {250 * time.Millisecond, 250*time.Millisecond + 1}, {251 * time.Millisecond, 0},
		{0, 499*time.Millisecond + 1}, {time.Hour, 0}, {0, 0}, {0, 500*time.Millisecond + 1},
	} {
		now = now.Add(c.after)
		if wait := b.Take(now); wait < c.wait-time.Microsecond || wait > c.wait+time.Microsecond {
			t.Errorf("step %d: wait %v, want %v", i, wait, c.wait)
		}
	}
	slow := Bucket{Rate: 0.5}
	if slow.Take(now) != 0 || slow.Take(now) < time.Second {
		t.Error("less than one a second")
	}
	if new(Bucket).Take(now) != 0 {
		t.Error("no bound bounds")
	}
}

// Beyond loopback a door wants keys.
func TestListen(t *testing.T) {
	keys, err := ParseKeys([]byte("a-secret-key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		address string
		keys    Keys
		want    string
	}{
		{"127.0.0.1:0", Keys{}, ""}, {"[::1]:0", Keys{}, ""}, {"localhost:0", Keys{}, ""}, {"127.9.9.9:0", Keys{}, ""},
		{"0.0.0.0:0", keys, ""},
		{"0.0.0.0:0", Keys{}, "and no key; give one, or listen on 127.0.0.1"}, {":0", Keys{}, "and no key"}, {"example.com:1", Keys{}, "and no key"},
		{"8000", Keys{}, `found "8000", expected HOST:PORT`}, {"127.0.0.1:99999", Keys{}, "invalid port"},
	} {
		l, err := Listen(t.Context(), c.address, c.keys, 1)
		if err == nil {
			l.Close()
		}
		if c.want == "" && err != nil && !(c.address == "[::1]:0") { // a machine may have no IPv6
			t.Errorf("%s: %v", c.address, err)
		}
		if c.want != "" && (messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.address, err, c.want)
		}
	}
}

// No more connections than allowed are open; one that ends makes room.
func TestLimited(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0", Keys{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(t.Context(), l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), TLS{}, slog.New(slog.DiscardHandler))
	}()
	ask := func(keep bool) (*http.Transport, error) {
		tr := &http.Transport{DisableKeepAlives: !keep}
		c := http.Client{Transport: tr, Timeout: 100 * time.Millisecond}
		if !keep {
			c.Timeout = 30 * time.Second
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), nil)
		if err != nil {
			return tr, err
		}
		resp, err := c.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return tr, err
	}
	first, err := ask(true) // stays open
	if err != nil {
		t.Fatal(err)
	}
	second, err := ask(true)
	if err == nil {
		t.Error("two connections where one is allowed")
	}
	second.CloseIdleConnections()
	first.CloseIdleConnections()
	if _, err := ask(false); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := <-ended; err == nil {
		t.Error("a listener that was closed under it is no error")
	}
}
