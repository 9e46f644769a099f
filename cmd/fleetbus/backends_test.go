package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/spf13/pflag"
)

func agentFlagsOf(t *testing.T, args ...string) (*agentFlags, error) {
	t.Helper()
	g := &agentFlags{labels: make(map[string]string), backends: newBackends()}
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	g.define(f)
	f.String("site", "", "")
	if err := f.Parse(args); err != nil {
		return g, err
	}
	if g.config != "" {
		return g, loadFlags(g.config, f)
	}
	return g, nil
}

// names are those of the handlers that flags or a file make.
func handlerNames(t *testing.T, g *agentFlags) (string, error) {
	t.Helper()
	list, err := g.handlers(slog.New(slog.DiscardHandler))
	var names []string
	for _, h := range list {
		names = append(names, h.Name())
	}
	return strings.Join(names, " "), err
}

// The files of examples/model-servers are good ones.
func TestModelServersExample(t *testing.T) {
	dir := filepath.Join("..", "..", "examples", "model-servers")
	g, err := agentFlagsOf(t, "--config", filepath.Join(dir, "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if names, err := handlerNames(t, g); err != nil || names != "grasp detect pi0" {
		t.Errorf("%q, %v", names, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleetfile.Parse("fleet.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range f.Tasks {
		if _, ok := g.backends.openpi.get(task.HandlerName()); ok {
			continue
		}
		if _, ok := g.backends.oip.get(task.HandlerName()); ok {
			continue
		}
		if _, ok := g.backends.http.get(task.HandlerName()); !ok {
			t.Errorf("nothing in agent.yaml serves task %s", task.Name)
		}
	}
}

func TestBackendFlags(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("Api-Key secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string // the handlers, or a part of the error
	}{
		{[]string{"--http", "a=http://h/x", "--oip", "b=http://h/v2/models/b", "--openpi", "c=ws://h:8000", "--authorization-file", "c=" + key, "--sessions", "c=true", "--max-concurrency", "a=3"}, "a b c"},
		{[]string{"--http", "a"}, `found "a", expected NAME=URL, for example grasp=http://127.0.0.1:8000/predict`},
		{[]string{"--http", "a=ws://h"}, `found "ws://h", expected a URL like http://127.0.0.1:8000/predict`},
		{[]string{"--http", "a.b=http://h"}, `found "a.b=http://h"`},
		{[]string{"--http", "a=http://h", "--http", "a=http://i"}, `found "a" twice`},
		{[]string{"--oip", "b=http://h:8000"}, "expected the URL of a model, http://HOST:PORT/v2/models/MODEL"},
		{[]string{"--oip", "b=http://h:8000/v2/models/b/infer"}, "without anything behind it"},
		{[]string{"--openpi", "c=http://h:8000"}, "expected a URL like ws://127.0.0.1:8000"},
		{[]string{"--openpi", "c=ws://h", "--sessions", "c=yes"}, "allowed are true, false"},
		{[]string{"--http", "a=http://h", "--max-concurrency", "a=0"}, "expected a whole number from 1 to 200"},
		{[]string{"--http", "a=http://h", "--warmup-file", "a=x"}, `--warmup-file: found the handler "a", which no --openpi names`},
		{[]string{"--http", "a=http://h", "--authorization-file", "a=/no/such/file"}, "no such file"},
		{[]string{"--http", "a=http://h", "--authorization-file", "a=" + empty}, "has no header in it"},
		{[]string{"--http", "a=http://h", "--ready-timeout", "-1s"}, "allowed is more than 0"},
		{nil, "it can serve nothing; add --simulate, --exec NAME=COMMAND, or a model server"},
	} {
		g, err := agentFlagsOf(t, c.args...)
		got := ""
		if err == nil {
			got, err = handlerNames(t, g)
		}
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%q tells a secret: %s", c.args, got)
		}
	}
}
