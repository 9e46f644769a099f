package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/httpio"
	"github.com/fleetbus/fleetbus/agent/backend/openpi"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/pflag"
)

// named collects NAME=VALUE, a value for each name, which is that of a handler.
type named struct {
	what    string // VALUE, for help
	example string
	check   func(value string) error // nil: anything that is not empty
	list    []namedValue
}

type namedValue struct{ name, value string }

func (n *named) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if value = strings.TrimSpace(value); !ok || value == "" {
		return fmt.Errorf("found %q, expected NAME=%s, for example %s", s, n.what, n.example)
	}
	if err := messages.CheckName("handler", name); err != nil {
		return fmt.Errorf("found %q: %w", s, plain(err))
	}
	if _, ok := n.get(name); ok {
		return fmt.Errorf("found %q twice; a handler has one", name)
	}
	if n.check != nil {
		if err := n.check(value); err != nil {
			return err
		}
	}
	n.list = append(n.list, namedValue{name, value})
	return nil
}

func (n *named) get(name string) (string, bool) {
	i := slices.IndexFunc(n.list, func(v namedValue) bool { return v.name == name })
	if i < 0 {
		return "", false
	}
	return n.list[i].value, true
}

func (n *named) Type() string { return "NAME=" + n.what }

func (n *named) String() string {
	var list []string
	for _, v := range n.list {
		list = append(list, v.name+"="+v.value)
	}
	return strings.Join(list, ",")
}

// backends are the model servers that an agent asks, and how.
type backends struct {
	http, oip, openpi             named
	readyURL, authorization       named
	warmup, sessions, concurrency named
	ready, hang                   time.Duration
}

func newBackends() backends {
	return backends{
		http:          named{what: "URL", example: "grasp=http://127.0.0.1:8000/predict", check: httpio.CheckURL},
		oip:           named{what: "URL", example: "detect=http://127.0.0.1:8000/v2/models/detect", check: checkModelURL},
		openpi:        named{what: "URL", example: "pi0=ws://127.0.0.1:8000", check: openpi.CheckURL},
		readyURL:      named{what: "URL", example: "grasp=http://127.0.0.1:8000/health", check: httpio.CheckURL},
		authorization: named{what: "FILE", example: "grasp=/etc/fleetbus/grasp.key"},
		warmup:        named{what: "FILE", example: "pi0=observation.msgpack"},
		sessions:      named{what: "true|false", example: "pi0=true", check: checkBool},
		concurrency:   named{what: "N", example: "grasp=4", check: checkCount},
	}
}

// names are the handlers that model servers serve.
func (b *backends) names() (list []string) {
	for _, n := range []named{b.http, b.oip, b.openpi} {
		for _, v := range n.list {
			list = append(list, v.name)
		}
	}
	return list
}

func (b *backends) define(f *pflag.FlagSet) {
	f.Var(&b.http, "http", "`NAME=URL` of a server that answers a POST, serves the handler NAME; may be repeated")
	f.Var(&b.oip, "oip", "`NAME=URL` of a model of the Open Inference Protocol v2 (KServe, Triton, OpenVINO), like http://127.0.0.1:8000/v2/models/detect; may be repeated")
	f.Var(&b.openpi, "openpi", "`NAME=URL` of an openpi policy server, like ws://127.0.0.1:8000; may be repeated")
	f.Var(&b.readyURL, "ready-url", "of --http: `NAME=URL` that answers 2xx when the server is ready (default: when it takes connections)")
	f.Var(&b.authorization, "authorization-file", "`NAME=FILE` with the value of the header Authorization for that server, like Bearer … or Api-Key …")
	f.Var(&b.warmup, "warmup-file", "of --openpi: `NAME=FILE` with an observation that must be answered before the replica is ready")
	f.Var(&b.sessions, "sessions", "of --openpi: `NAME=true`: a connection of its own for each session (key of a request)")
	f.Var(&b.concurrency, "max-concurrency", "of --http and --oip: `NAME=N` requests at once, of all replicas that this server serves (default: their slots)")
	f.DurationVar(&b.ready, "ready-timeout", 0, "how long a model may take until it is ready, before that counts as a failure (default 5m for --exec, 10m for --http and --oip, 15m for --openpi)")
	f.DurationVar(&b.hang, "hang-timeout", 0, "how long a model server may be silent before it counts as dead (default 30s)")
}

// handlers are those that model servers serve.
func (b *backends) handlers(log *slog.Logger) ([]agent.Handler, error) {
	if b.ready < 0 || b.hang < 0 {
		return nil, usagef("--ready-timeout, --hang-timeout: found %v and %v, allowed is more than 0", b.ready, b.hang)
	}
	if err := b.checkOptions(); err != nil {
		return nil, err
	}
	var list []agent.Handler
	for _, servers := range []*named{&b.http, &b.oip} {
		for _, v := range servers.list {
			authorization, err := b.authorizationOf(v.name)
			if err != nil {
				return nil, err
			}
			o := httpio.Options{Name: v.name, URL: v.value, OIP: servers == &b.oip, Authorization: authorization, ReadyTimeout: b.ready, HangTimeout: b.hang, Logger: log}
			o.ReadyURL, _ = b.readyURL.get(v.name)
			if n, ok := b.concurrency.get(v.name); ok {
				o.Concurrency, _ = strconv.Atoi(n) // it was checked when it was set
			}
			list = append(list, httpio.New(o))
		}
	}
	for _, v := range b.openpi.list {
		authorization, err := b.authorizationOf(v.name)
		if err != nil {
			return nil, err
		}
		o := openpi.Options{Name: v.name, URL: v.value, Authorization: authorization, ReadyTimeout: b.ready, HangTimeout: b.hang, Logger: log}
		if file, ok := b.warmup.get(v.name); ok {
			if o.Warmup, err = readSmall(file, openpi.DefaultMaxBody); err != nil {
				return nil, usagef("--warmup-file %s: %v", v.name, err)
			}
		}
		sessions, _ := b.sessions.get(v.name)
		o.Sessions = sessions == "true"
		list = append(list, openpi.New(o))
	}
	return list, nil
}

// checkOptions refuses an option for a handler that has no such thing.
func (b *backends) checkOptions() error {
	for _, o := range []struct {
		flag   string
		values *named
		of     []*named
		kinds  string
	}{
		{"ready-url", &b.readyURL, []*named{&b.http}, "--http"},
		{"authorization-file", &b.authorization, []*named{&b.http, &b.oip, &b.openpi}, "--http, --oip or --openpi"},
		{"warmup-file", &b.warmup, []*named{&b.openpi}, "--openpi"},
		{"sessions", &b.sessions, []*named{&b.openpi}, "--openpi"},
		{"max-concurrency", &b.concurrency, []*named{&b.http, &b.oip}, "--http or --oip"},
	} {
		for _, v := range o.values.list {
			if !slices.ContainsFunc(o.of, func(n *named) bool { _, ok := n.get(v.name); return ok }) {
				return usagef("--%s: found the handler %q, which no %s names; give it one, or leave it out", o.flag, v.name, o.kinds)
			}
		}
	}
	return nil
}

// authorizationOf reads the header for a server.
func (b *backends) authorizationOf(name string) (string, error) {
	file, ok := b.authorization.get(name)
	if !ok {
		return "", nil
	}
	text, err := readSmall(file, maxSecret)
	if err != nil {
		return "", usagef("--authorization-file %s: %v", name, err)
	}
	value := strings.TrimSpace(string(text))
	if value == "" || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) {
		return "", usagef("--authorization-file %s: %s has no header in it; expected one line of plain text like Bearer …", name, file)
	}
	return value, nil
}

// maxSecret bounds a file with a key, bytes.
const maxSecret = 16 << 10

// readSmall reads a file of at most n bytes.
func readSmall(file string, n int) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, int64(n)+1)); err != nil {
		return nil, err
	}
	if b.Len() > n {
		return nil, fmt.Errorf("%s has more than %d bytes", file, n)
	}
	return b.Bytes(), nil
}

// checkModelURL wants the URL of a model: a server alone is the usual mistake.
func checkModelURL(text string) error {
	if err := httpio.CheckURL(text); err != nil {
		return err
	}
	if !strings.Contains(text, "/v2/models/") || strings.HasSuffix(text, "/") || strings.HasSuffix(text, "/infer") || strings.HasSuffix(text, "/ready") {
		return fmt.Errorf("found %q, expected the URL of a model, http://HOST:PORT/v2/models/MODEL or …/versions/N, without anything behind it", text)
	}
	return nil
}

func checkBool(text string) error {
	if text != "true" && text != "false" {
		return fmt.Errorf("found %q, allowed are true, false", text)
	}
	return nil
}

func checkCount(text string) error {
	if n, err := strconv.Atoi(text); err != nil || n < 1 || n > messages.MaxConcurrency {
		return fmt.Errorf("found %q, expected a whole number from 1 to %d", text, messages.MaxConcurrency)
	}
	return nil
}
