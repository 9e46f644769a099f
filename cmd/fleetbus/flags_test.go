package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// clean takes the developer's own NATS configuration away and returns the directory for
// the test's contexts.
func clean(t *testing.T) (contexts string) {
	t.Helper()
	for _, name := range environment {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	contexts = filepath.Join(dir, "nats", "context")
	if err := os.MkdirAll(contexts, 0o755); err != nil {
		t.Fatal(err)
	}
	return contexts
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPrecedence: flag before environment before context before default, for the URL and
// for the credentials.
func TestPrecedence(t *testing.T) {
	contexts := clean(t)
	write(t, filepath.Join(contexts, "site.json"), `{"url": "nats://context:1", "user": "cu", "password": "cp", "inbox_prefix": "_MY"}`)
	write(t, filepath.Join(filepath.Dir(contexts), "context.txt"), "site")
	for _, c := range []struct {
		name             string
		args             []string
		env              map[string]string
		url, user, token string
	}{
		{"the selected context", nil, nil, "nats://context:1", "cu", ""},
		{"the environment's URL", nil, map[string]string{"NATS_URL": "nats://env:1"}, "nats://env:1", "cu", ""},
		{"the flag's URL", []string{"--server", "nats://flag:1, nats://flag:2"}, map[string]string{"NATS_URL": "nats://env:1"}, "nats://flag:1,nats://flag:2", "cu", ""},
		{"the environment's user", nil, map[string]string{"NATS_USER": "eu", "NATS_PASSWORD": "ep"}, "nats://context:1", "eu", ""},
		{"a token takes the user's place", []string{"--token", "t"}, nil, "nats://context:1", "", "t"},
		{"a user without a password is a token", []string{"--user", "t"}, nil, "nats://context:1", "", "t"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			a := &app{}
			root := newRoot(a)
			if err := root.ParseFlags(c.args); err != nil {
				t.Fatal(err)
			}
			if err := a.complete(root.Flags()); err != nil {
				t.Fatal(err)
			}
			o, err := a.resolve("test")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(o.Servers, ","); got != c.url || o.User != c.user || o.Token != c.token {
				t.Errorf("got URL %q, user %q, token %q", got, o.User, o.Token)
			}
			if o.InboxPrefix != "_MY" || o.MaxReconnect != -1 || !o.IgnoreAuthErrorAbort {
				t.Errorf("inbox prefix %q, reconnects %d, ignore auth errors %v", o.InboxPrefix, o.MaxReconnect, o.IgnoreAuthErrorAbort)
			}
		})
	}
}

func TestDefaultServer(t *testing.T) {
	clean(t)
	o, err := (&app{timeout: defaultTimeout}).resolve("test")
	if err != nil || !slices.Equal(o.Servers, []string{defaultURL}) {
		t.Errorf("got %v, %v", o.Servers, err)
	}
}

// TestHelpKeepsSecrets: what stands in the environment is not printed as a default.
func TestHelpKeepsSecrets(t *testing.T) {
	clean(t)
	t.Setenv("NATS_PASSWORD", "hunter2")
	t.Setenv("NATS_USER", "me")
	var out strings.Builder
	if status := execute([]string{"agents", "--help"}, strings.NewReader(""), &out, io.Discard); status != exitOK {
		t.Fatalf("exit status %d", status)
	}
	if strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "$NATS_PASSWORD") {
		t.Errorf("help says\n%s", out.String())
	}
}

func TestExplainConnect(t *testing.T) {
	err := explainConnect(nats.ErrNoServers, errors.New("dial tcp: no route to host"), "nats://u:p@far:1")
	if got := oneLine(err); !strings.HasPrefix(got, "connect to nats://***@far:1: dial tcp: no route to host; is a server running there?") || !strings.HasSuffix(got, "[unavailable]") {
		t.Error(got)
	}
	found, do := advice(err)
	if found != "connect to nats://***@far:1: dial tcp: no route to host" || !strings.HasPrefix(do, "is a server") {
		t.Errorf("%q, %q", found, do)
	}
}

// TestAgentFile: every field reaches its flag, flags win, and all mistakes are reported.
func TestAgentFile(t *testing.T) {
	clean(t)
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	write(t, good, `id: robot-1
tier: robot
site: hall-2
labels: {gpu: "yes", floor: 3}
compute: 0.01PFLOPS
storage: 1TB
network: 10
latency: 1ms
price: 1.5
billing: whole
simulate: true
exec:
  grasp: python3 'my grasp.py' --fast
drain_timeout: 5s
foreign_use: /run/use.yaml
`)
	a := &app{}
	g := agentFlags{labels: make(map[string]string)}
	root := newRoot(a)
	f := root.Flags()
	g.define(f)
	if err := root.ParseFlags([]string{"--price", "2"}); err != nil {
		t.Fatal(err)
	}
	if err := loadFlags(good, f); err != nil {
		t.Fatal(err)
	}
	e, err := g.environment(a.site)
	if err != nil {
		t.Fatal(err)
	}
	want := messages.Resources{Compute: 10, Storage: 1000, Network: 10}
	if e.ID != "robot-1" || e.Tier != messages.Robot || e.Site != "hall-2" || e.Capacity != want || e.Latency != 1 || e.Price != 2 ||
		e.Billing != messages.Whole || e.Labels["gpu"] != "yes" || e.Labels["floor"] != "3" || !g.simulate || g.drain.Seconds() != 5 || g.foreign != "/run/use.yaml" {
		t.Errorf("got %+v, %+v", e, g)
	}
	if len(g.commands) != 1 || g.commands[0] != (command{"grasp", "python3 'my grasp.py' --fast"}) {
		t.Errorf("got %+v", g.commands)
	}

	write(t, bad, "colour: red\ncompute: -1\nid: a\nid: b\nsimulate: maybe\nlabels: 3\nexec: {a.b: c}\ndrain_timeout:\n")
	var all fleetfile.Errors
	if err := loadFlags(bad, f); !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	text := all.Error()
	for _, want := range []string{
		`bad.yaml:1: colour: unknown field; allowed are id, tier`, `bad.yaml:2: compute: found "-1", allowed is 0 TFLOPS or more`,
		`bad.yaml:4: id: found a second time; the first is in line 3`, `bad.yaml:5: simulate: found "maybe", expected true or false`,
		`bad.yaml:6: labels: found "3", expected a mapping`, `bad.yaml:7: exec.a.b: found "a.b=c": handler name`, `bad.yaml:8: drain_timeout: found no value`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		`python3 grasp.py`:              {"python3", "grasp.py"},
		"  a \t b\n":                    {"a", "b"},
		`sh -c 'exec x "$1"' a\ b "" "`: nil,
		`sh -c 'exec x "$1"' a\ b ""`:   {"sh", "-c", `exec x "$1"`, "a b", ""},
		`"a \" b"c`:                     {`a " bc`},
		`a\`:                            nil,
		``:                              nil,
	} {
		got, err := splitWords(line)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: got %q, %v", line, got, err)
		}
	}
}
