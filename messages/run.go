package messages

import (
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Run is what an agent is to start for a replica of a task: an artifact out of the fleet's
// store, a command, and how what it starts is asked. Only agents whose owners allow it run
// such tasks (Environment.Runs).
//
// In Command, in the values of Env, in URL and in ReadyURL the agent puts a port of
// loopback that is free in the place of {port}, in the first two also the path of the
// artifact in the place of {artifact}.
type Run struct {
	Artifact     string            `msgpack:"a,omitempty" json:"artifact,omitempty"`          // SHA-256 in hex; "": the command needs none
	Command      []string          `msgpack:"c" json:"command"`                               // program and arguments, no shell
	Env          map[string]string `msgpack:"e,omitempty" json:"env,omitempty"`               // beside the agent's environment
	Serve        Serve             `msgpack:"s,omitempty" json:"serve,omitempty"`             // how it is asked; "": ServeExec
	URL          string            `msgpack:"u,omitempty" json:"url,omitempty"`               // where its server listens, on loopback; not with ServeExec
	ReadyURL     string            `msgpack:"r,omitempty" json:"ready_url,omitempty"`         // of ServeHTTP: answers 2xx when it is ready; "": it takes connections
	ReadyTimeout float64           `msgpack:"rt,omitempty" json:"ready_timeout_ms,omitempty"` // ms from its start until it is ready; 0: the default of Serve
	HangTimeout  float64           `msgpack:"ht,omitempty" json:"hang_timeout_ms,omitempty"`  // ms that its server may be silent before it counts as dead; not with ServeExec; 0: 30 s
	StopTimeout  float64           `msgpack:"st,omitempty" json:"stop_timeout_ms,omitempty"`  // ms from SIGTERM to SIGKILL; 0: 5 s
	Warmup       string            `msgpack:"w,omitempty" json:"warmup,omitempty"`            // of ServeOpenPI: another artifact, an observation that must be answered before it is ready; "": none
	Sessions     bool              `msgpack:"se,omitempty" json:"sessions,omitempty"`         // of ServeOpenPI: a connection of its own for each key of a request
}

// Serve is how what a task starts is asked.
type Serve string

// The ways.
const (
	ServeExec   Serve = "exec"   // frames on its standard input and output
	ServeHTTP   Serve = "http"   // a POST
	ServeOIP    Serve = "oip"    // the Open Inference Protocol v2
	ServeOpenPI Serve = "openpi" // the WebSocket of an openpi policy server
)

// Serves lists the ways.
func Serves() []Serve { return []Serve{ServeExec, ServeHTTP, ServeOIP, ServeOpenPI} }

// What stands for something that only the agent knows.
const (
	RunPort     = "{port}"
	RunArtifact = "{artifact}"
)

// Bounds of a Run. A document has those of all replicas of an agent, and is one message.
const (
	MaxRunWords = 256      // of a command
	MaxRunText  = 32 << 10 // bytes of command and environment together
	MaxRunEnv   = 64
	MaxRunReady = 86_400_000 // ms: a day
	MaxRunStop  = 25_000     // ms: an agent has 30 s to leave
)

// Artifacts are the digests of all that r needs of the fleet's store.
func (r Run) Artifacts() (list []string) {
	for _, d := range []string{r.Artifact, r.Warmup} {
		if d != "" && !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return list
}

// Kind is how r is asked, never "".
func (r Run) Kind() Serve {
	if r.Serve == "" {
		return ServeExec
	}
	return r.Serve
}

// Check returns the first thing wrong with r, naming the field under the prefix.
func (r Run) Check(prefix string) error {
	if r.Artifact != "" && !IsDigest(r.Artifact) {
		return Errorf(CodeBadRequest, "%sartifact: found %q, expected a SHA-256 of 64 hex digits, as `fleetbus artifacts push` prints it", prefix, shorten(r.Artifact))
	}
	if len(r.Command) == 0 || r.Command[0] == "" {
		return Errorf(CodeBadRequest, "%scommand: none found; name the program to run, for example [python3, serve.py]", prefix)
	}
	if len(r.Command) > MaxRunWords {
		return Errorf(CodeBadRequest, "%scommand: found %d words, allowed are %d", prefix, len(r.Command), MaxRunWords)
	}
	if len(r.Env) > MaxRunEnv {
		return Errorf(CodeBadRequest, "%senv: found %d variables, allowed are %d", prefix, len(r.Env), MaxRunEnv)
	}
	size := 0
	for _, w := range r.Command {
		if size += len(w); strings.ContainsRune(w, 0) {
			return Errorf(CodeBadRequest, "%scommand: %q has a zero byte in it", prefix, shorten(w))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(r.Env)) {
		if size += len(k) + len(r.Env[k]); !isVariable(k) || strings.HasPrefix(k, "FLEETBUS_") || strings.ContainsRune(r.Env[k], 0) {
			return Errorf(CodeBadRequest, "%senv: found %q; allowed are letters, digits and _, not first a digit, not FLEETBUS_…, and a value without zero bytes", prefix, shorten(k))
		}
	}
	if size > MaxRunText {
		return Errorf(CodeBadRequest, "%scommand: command and env have %d bytes, allowed are %d; put what is long into the artifact", prefix, size, MaxRunText)
	}
	if r.Artifact == "" && r.Names(RunArtifact) {
		return Errorf(CodeBadRequest, "%scommand: it names %s and there is no artifact; name one by its SHA-256", prefix, RunArtifact)
	}
	if err := r.checkURLs(prefix); err != nil {
		return err
	}
	if err := r.checkAsking(prefix); err != nil {
		return err
	}
	if err := CheckAmount(prefix+"ready_timeout", r.ReadyTimeout, 0, MaxRunReady, "ms"); err != nil {
		return err
	}
	if err := CheckAmount(prefix+"hang_timeout", r.HangTimeout, 0, MaxRunReady, "ms"); err != nil {
		return err
	}
	return CheckAmount(prefix+"stop_timeout", r.StopTimeout, 0, MaxRunStop, "ms")
}

// checkAsking refuses what a way of asking does not have.
func (r Run) checkAsking(prefix string) error {
	kind := r.Kind()
	switch {
	case kind == ServeExec && r.HangTimeout != 0:
		return Errorf(CodeBadRequest, "%shang_timeout: found one with serve: exec, whose requests end at their deadlines; leave it out, or say serve: http, oip or openpi", prefix)
	case kind != ServeOpenPI && r.Warmup != "":
		return Errorf(CodeBadRequest, "%swarmup: found one with serve: %s; it is of serve: openpi", prefix, kind)
	case kind != ServeOpenPI && r.Sessions:
		return Errorf(CodeBadRequest, "%ssessions: found true with serve: %s; they are of serve: openpi", prefix, kind)
	case r.Warmup != "" && !IsDigest(r.Warmup):
		return Errorf(CodeBadRequest, "%swarmup: found %q, expected a SHA-256 of 64 hex digits, as `fleetbus artifacts push` prints it", prefix, shorten(r.Warmup))
	}
	return nil
}

// Names reports whether the command or its environment has a place for what, RunPort or
// RunArtifact.
func (r Run) Names(what string) bool {
	in := func(s string) bool { return strings.Contains(s, what) }
	return slices.ContainsFunc(r.Command, in) || slices.ContainsFunc(slices.Collect(maps.Values(r.Env)), in)
}

// checkURLs keeps an agent from being made to connect to anything but what it has started:
// a task is applied by others than the owner of the machine.
func (r Run) checkURLs(prefix string) error {
	scheme := "http"
	switch r.Kind() {
	case ServeExec:
		if r.URL != "" || r.ReadyURL != "" {
			return Errorf(CodeBadRequest, "%surl: found one with serve: exec, which speaks on its standard input and output; leave url and ready_url out, or say serve: http, oip or openpi", prefix)
		}
		return nil
	case ServeHTTP, ServeOIP:
	case ServeOpenPI:
		scheme = "ws"
	default:
		return Errorf(CodeBadRequest, "%sserve: found %q, allowed are exec, http, oip, openpi", prefix, shorten(string(r.Serve)))
	}
	if !onLoopback(r.URL, scheme) || r.Kind() == ServeOIP && !strings.Contains(r.URL, "/v2/models/") {
		path := map[Serve]string{ServeHTTP: "/predict", ServeOIP: "/v2/models/MODEL"}[r.Kind()]
		return Errorf(CodeBadRequest, "%surl: found %q, expected one on loopback like %s://127.0.0.1:%s%s", prefix, shorten(r.URL), scheme, RunPort, path)
	}
	if r.ReadyURL != "" && (r.Kind() != ServeHTTP || !onLoopback(r.ReadyURL, "http")) {
		return Errorf(CodeBadRequest, "%sready_url: found %q with serve: %s, expected one on loopback like http://127.0.0.1:%s/health, with serve: http", prefix, shorten(r.ReadyURL), r.Kind(), RunPort)
	}
	return nil
}

// onLoopback reports whether a URL has the scheme, and a host that is this machine, with a
// port. It is not package net/url's to say, since the port may be {port}.
func onLoopback(url, scheme string) bool {
	if len(url) > MaxSubject || strings.ContainsFunc(url, func(c rune) bool { return c <= ' ' || c > '~' || c == '@' || c == '#' || c == '\\' }) {
		return false
	}
	rest, ok := strings.CutPrefix(url, scheme+"://")
	if !ok {
		return false
	}
	authority, _, _ := strings.Cut(rest, "/")
	i := strings.LastIndexByte(authority, ':')
	if i < 0 {
		return false
	}
	host, port := authority[:i], authority[i+1:]
	if host != "127.0.0.1" && host != "localhost" && host != "[::1]" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return port == RunPort || err == nil && n > 0
}

// IsDigest reports whether s is a SHA-256 in lower-case hex.
func IsDigest(s string) bool {
	sum, err := hex.DecodeString(s)
	return err == nil && len(sum) == 32 && s == strings.ToLower(s)
}

func isVariable(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
