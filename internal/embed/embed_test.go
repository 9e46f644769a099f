package embed_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for that should come at once.
const patience = 10 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// quiet are the options of most tests: a random port and no log.
func quiet(t *testing.T) embed.Options {
	return embed.Options{Port: embed.RandomPort, StoreDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
}

func newServer(t *testing.T, o embed.Options) *embed.Server {
	t.Helper()
	s, err := embed.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, o embed.Options) *embed.Server {
	t.Helper()
	s := newServer(t, o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// checkError wants an error of ours with a code, whose message has all of the words
// and is one line.
func checkError(t *testing.T, err error, code messages.Code, words ...string) {
	t.Helper()
	var e *messages.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error %v, want one with code %s", err, code)
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			t.Errorf("error %q, want it to say %q", e.Message, w)
		}
	}
	if strings.Contains(e.Message, "\n") {
		t.Errorf("error %q has several lines", e.Message)
	}
}

func TestRun(t *testing.T) {
	o := quiet(t)
	o.HTTPPort = embed.RandomPort
	s := newServer(t, o)
	if s.ClientURL() != "" {
		t.Errorf("URL %q before the random port is known", s.ClientURL())
	}
	if _, err := s.Connect(); err == nil {
		t.Error("connected to a server that does not run")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if err := s.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if nc.MaxPayload() != embed.DefaultMaxPayload {
		t.Errorf("payload limit %d, want %d", nc.MaxPayload(), embed.DefaultMaxPayload)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get(s.MonitorURL() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("healthz: %s %s", resp.Status, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v, want nil", err)
	}
	if s.MonitorURL() != "" {
		t.Error("a stopped server has a monitoring page")
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	checkError(t, s.Ready(ctx), messages.CodeUnavailable, "does not run")
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run again, with a context that is over: %v, want nil", err)
	}
}

func TestInProcess(t *testing.T) {
	o := quiet(t)
	o.DontListen, o.User, o.Password = true, "u", "p"
	s := start(t, o)
	if s.ClientURL() != "" {
		t.Errorf("URL %q of a server that does not listen", s.ClientURL())
	}
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AccountInfo(within(t)); err != nil {
		t.Errorf("JetStream: %v", err)
	}
	checkError(t, s.Start(), messages.CodeConflict, "runs already")
	if _, leader := s.MetaLeader(); leader || s.LeadsStream("S") {
		t.Error("a server outside of a cluster leads something")
	}
}

// The way back for JetStream's answers is there before anybody asks. Made by the first who
// ask, all at once, it loses answers now and then.
func TestAnswersTheFirstQuestions(t *testing.T) {
	o := quiet(t)
	o.HTTPPort, o.Token = embed.RandomPort, "secret"
	s := start(t, o)
	if err := s.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, s.MonitorURL()+"/subsz?subs=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), `"subject": "_R_.`) {
		t.Errorf("nobody listens to answers yet:\n%s", page)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestCredentials(t *testing.T) {
	o := quiet(t)
	o.User, o.Password = "u", "p"
	s := start(t, o)
	for _, who := range []nats.Option{nats.UserInfo("u", "wrong"), nats.Token("p"), nats.Name("nobody")} {
		if _, err := nats.Connect(s.ClientURL(), who); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("error %v, want %v", err, nats.ErrAuthorization)
		}
	}
	nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("u", "p"))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestRefusedOptions(t *testing.T) {
	dir := t.TempDir()
	cluster := embed.Cluster{Name: "c", Port: 6222, Routes: []string{"127.0.0.1:6222"}}
	for name, c := range map[string]struct {
		o    embed.Options
		says string
	}{
		"no directory":               {embed.Options{}, "storage directory"},
		"every address":              {embed.Options{StoreDir: dir, Host: "0.0.0.0"}, "not loopback"},
		"every address, IPv6":        {embed.Options{StoreDir: dir, Host: "::"}, "not loopback"},
		"an address of the network":  {embed.Options{StoreDir: dir, Host: "192.168.1.7"}, "set a token"},
		"a name":                     {embed.Options{StoreDir: dir, Host: "robot.local"}, "not loopback"},
		"a cluster on the network":   {embed.Options{StoreDir: dir, Host: "10.0.0.1", Cluster: cluster}, "not loopback"},
		"user without password":      {embed.Options{StoreDir: dir, User: "u"}, "both or none"},
		"password without user":      {embed.Options{StoreDir: dir, Password: "p"}, "both or none"},
		"token and user":             {embed.Options{StoreDir: dir, Token: "t", User: "u", Password: "p"}, "one of them"},
		"certificate without key":    {embed.Options{StoreDir: dir, TLSCert: "c.pem"}, "both or none"},
		"port":                       {embed.Options{StoreDir: dir, Port: 70_000}, "65535"},
		"payload":                    {embed.Options{StoreDir: dir, MaxPayload: 1 << 30}, "payload limit"},
		"name":                       {embed.Options{StoreDir: dir, Name: "my server"}, "space"},
		"routes without cluster":     {embed.Options{StoreDir: dir, Cluster: embed.Cluster{Routes: cluster.Routes}}, "name"},
		"cluster without port":       {embed.Options{StoreDir: dir, Cluster: embed.Cluster{Name: "c", Routes: cluster.Routes}}, "cluster port"},
		"cluster without routes":     {embed.Options{StoreDir: dir, Cluster: embed.Cluster{Name: "c", Port: 1}}, "routes"},
		"cluster with a bad route":   {embed.Options{StoreDir: dir, Cluster: embed.Cluster{Name: "c", Port: 1, Routes: []string{"x"}}}, "host:port"},
		"cluster name":               {embed.Options{StoreDir: dir, Cluster: embed.Cluster{Name: "a b", Port: 1, Routes: cluster.Routes}}, "space"},
		"cluster that listens not":   {embed.Options{StoreDir: dir, DontListen: true, Cluster: cluster}, "does not listen"},
		"monitoring port":            {embed.Options{StoreDir: dir, HTTPPort: -2}, "65535"},
		"cluster port is not random": {embed.Options{StoreDir: dir, Cluster: embed.Cluster{Name: "c", Port: -1, Routes: cluster.Routes}}, "cluster port"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := embed.New(c.o)
			checkError(t, err, messages.CodeBadRequest, c.says)
		})
	}
	for _, o := range []embed.Options{
		{Host: "localhost"}, {Host: "::1"}, {Host: "127.0.0.2"}, {Host: "0.0.0.0", Token: "t"},
		{Host: "10.0.0.1", User: "u", Password: "p"}, {Host: "0.0.0.0", DontListen: true}, {Cluster: cluster},
	} {
		o.StoreDir = dir
		if _, err := embed.New(o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for what, change := range map[string]func(*embed.Options){
		"clients":    func(o *embed.Options) { o.Port = port },
		"monitoring": func(o *embed.Options) { o.HTTPPort = port },
		"cluster": func(o *embed.Options) {
			o.Cluster = embed.Cluster{Name: "c", Port: port, Routes: []string{l.Addr().String()}}
		},
	} {
		o := quiet(t)
		change(&o)
		checkError(t, newServer(t, o).Start(), messages.CodeConflict, what, strconv.Itoa(port), "another program", "choose another port")
	}
	o := quiet(t)
	o.Host, o.Token = "192.0.2.1", "t"
	o.Port = port
	checkError(t, newServer(t, o).Start(), messages.CodeUnavailable, "192.0.2.1")
}

func TestStoreDir(t *testing.T) {
	o := quiet(t)
	file := filepath.Join(o.StoreDir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		bad := o
		bad.StoreDir = dir
		checkError(t, newServer(t, bad).Start(), messages.CodeUnavailable, dir, "is a file")
	}

	o.StoreDir = filepath.Join(o.StoreDir, "made", "if", "missing")
	first := start(t, o)
	second := newServer(t, o)
	checkError(t, second.Start(), messages.CodeConflict, o.StoreDir, "process "+strconv.Itoa(os.Getpid()), "another directory")
	first.Stop()
	if err := second.Start(); err != nil {
		t.Errorf("start after the other one has stopped: %v", err)
	}
	second.Stop()

	// A directory that JetStream itself cannot use.
	broken := quiet(t)
	if err := os.WriteFile(filepath.Join(broken.StoreDir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, broken)
	checkError(t, s.Start(), messages.CodeUnavailable, "JetStream", broken.StoreDir)
	if err := os.Remove(filepath.Join(broken.StoreDir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Errorf("start after the repair: %v", err)
	}
	s.Stop()
}

func TestBadCertificate(t *testing.T) {
	o := quiet(t)
	o.TLSCert, o.TLSKey = filepath.Join(o.StoreDir, "cert.pem"), filepath.Join(o.StoreDir, "key.pem")
	checkError(t, newServer(t, o).Start(), messages.CodeBadRequest, o.TLSCert, "PEM")
}

// A server of a cluster whose others are missing runs, and says what it waits for. Its
// routes carry the token.
func TestClusterOfTwoNeedsBoth(t *testing.T) {
	ports := make([]int, 2)
	routes := make([]string, 2)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i], routes[i] = l.Addr().(*net.TCPAddr).Port, l.Addr().String()
		l.Close()
	}
	options := func(i int) embed.Options {
		o := quiet(t)
		o.Name, o.Token = "s"+strconv.Itoa(i), "secret"
		o.Cluster = embed.Cluster{Name: "c", Port: ports[i], Routes: routes}
		return o
	}
	a := start(t, options(0))
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	checkError(t, a.Ready(short), messages.CodeUnavailable, "leader of cluster c", "routes")
	b := start(t, options(1))
	for _, s := range []*embed.Server{a, b} {
		if err := s.Ready(within(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestLog(t *testing.T) {
	var text bytes.Buffer
	o := quiet(t)
	o.Logger = slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newServer(t, o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if !strings.Contains(text.String(), `level=DEBUG msg="Server is ready" server=fleetbus`) {
		t.Errorf("log %s, want the server's notices as debug", text.String())
	}
}
