package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// certificate writes a certificate of loopback's own, and its key.
func certificate(t *testing.T) (files TLS, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files = TLS{CertFile: filepath.Join(t.TempDir(), "cert"), KeyFile: filepath.Join(t.TempDir(), "key")}
	for file, block := range map[string]*pem.Block{files.CertFile: {Type: "CERTIFICATE", Bytes: der}, files.KeyFile: {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return files, pool
}

// A door with a certificate speaks TLS, and stops when it is told to.
func TestTLS(t *testing.T) {
	files, pool := certificate(t)
	l, err := Listen(t.Context(), "127.0.0.1:0", Keys{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }), files, slog.New(slog.DiscardHandler))
	}()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
	resp.Body.Close()
	transport.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	l, err = Listen(t.Context(), "127.0.0.1:0", Keys{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	err = Serve(t.Context(), l, http.NotFoundHandler(), TLS{CertFile: "/no/such/file", KeyFile: "/no/such/file"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Error(err)
	}
	l.Close()
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
