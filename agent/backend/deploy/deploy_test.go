package deploy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/internal/artifact"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/fleetbus/fleetbus/testing/oip"
	"github.com/fleetbus/fleetbus/testing/policy"
	"github.com/nats-io/nats.go"
)

const fleet = "demo"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	natstest.Eventually(t, patience, what, ok)
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func environment(id string) messages.Environment {
	return messages.Environment{ID: id, Tier: messages.Edge, Capacity: messages.Resources{Compute: 100, Storage: 100, Network: 100}}
}

// rig is a server with a store, and one who writes artifacts.
type rig struct {
	t *testing.T
	s *natstest.Server
	b *bus.Bus
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := natstest.Start(t)
	b, err := bus.New(s.Connect(t), fleet, 1)
	must(t, err)
	return &rig{t, s, b}
}

// body is n bytes that differ from those of another seed.
func body(seed uint64, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}

func (r *rig) push(data []byte) string {
	r.t.Helper()
	a, _, err := artifact.Push(within(r.t), r.b, "test", "test", bytes.NewReader(data), nil)
	must(r.t, err)
	return a.Digest
}

// deployer makes a deployer on a connection of its own.
func (r *rig) deployer(dir string, change func(*Options), opts ...nats.Option) (*Deployer, *nats.Conn) {
	r.t.Helper()
	o := Options{Fleet: fleet, Site: messages.DefaultSite, Agent: "a1", Dir: dir, Guard: []string{os.Args[0], guardWord}, Replicas: 1, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	nc := r.s.Connect(r.t, opts...)
	d, err := New(nc, o)
	must(r.t, err)
	r.t.Cleanup(d.Close)
	return d, nc
}

// task is one that brings this program as a stub.
func task(mode, digest string, change func(*messages.Task)) messages.Task {
	t := messages.Task{Name: "grasp", Class: messages.Inference, Run: &messages.Run{Artifact: digest, Command: []string{os.Args[0]}, Env: map[string]string{stubEnv: mode}, StopTimeout: 5000}}
	switch mode {
	case "exec":
	case "oip":
		t.Run.Serve, t.Run.URL = messages.ServeOIP, "http://127.0.0.1:{port}/v2/models/"+oip.Model
	case "openpi":
		t.Run.Serve, t.Run.URL = messages.ServeOpenPI, "ws://127.0.0.1:{port}"
	default:
		t.Run.Serve, t.Run.URL, t.Run.ReadyURL = messages.ServeHTTP, "http://127.0.0.1:{port}/predict", "http://127.0.0.1:{port}/health"
	}
	if change != nil {
		change(&t)
	}
	return t
}

// notes collects what Open says.
type notes struct {
	mu   sync.Mutex
	list []string
	done []float64
}

func (n *notes) open(t messages.Task) backend.Open {
	return backend.Open{Replica: t.Name + "/0", Task: t, Environment: environment("a1").Normal(),
		Loading: func(text string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.list = append(n.list, text)
		},
		Fetched: func(done float64) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.done = append(n.done, done)
		}}
}

func (n *notes) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.list, "\n")
}

func ask(t *testing.T, s backend.Server, text string) (string, error) {
	t.Helper()
	resp, err := s.Serve(within(t), &backend.Request{Request: messages.Request{ID: "r1", Class: messages.Inference, Task: "grasp", Origin: "test", Attempt: 1}, Body: []byte(text)})
	return string(resp.Body), err
}

// Each way of serving gets the artifact, and answers; with its end nothing is left of it.
func TestServes(t *testing.T) {
	r := newRig(t)
	digest := r.push([]byte("model-1"))
	for _, mode := range []string{"http", "exec", "oip", "openpi"} {
		t.Run(mode, func(t *testing.T) {
			dir, file := t.TempDir(), filepath.Join(t.TempDir(), "pids")
			d, _ := r.deployer(dir, nil)
			var n notes
			s, err := d.Open(within(t), n.open(task(mode, digest, func(t *messages.Task) { t.Run.Env["STUB_CHILD"] = file })))
			must(t, err)
			processes := pids(t, file)
			describer, describes := s.(backend.Describer)
			if describes != (mode != "exec") {
				t.Errorf("it describes itself: %v", describes)
			}
			if _, batches := s.(backend.Batcher); batches != (mode == "exec") {
				t.Errorf("it takes batches: %v", batches)
			}
			switch mode {
			case "http", "exec":
				if got, err := ask(t, s, "hello"); err != nil || got != "model-1|hello" {
					t.Errorf("%q, %v", got, err)
				}
			case "oip":
				if resp, err := describer.Describe(within(t)); err != nil || !strings.Contains(string(resp.Body), "inputs") {
					t.Errorf("%s, %v", resp.Body, err)
				}
			case "openpi":
				if got, err := ask(t, s, string(policy.Observation(8, 7))); err != nil || policy.AnswerTo([]byte(got)) != 7 {
					t.Errorf("%q, %v", got, err)
				}
			}
			if text := n.text(); !strings.Contains(text, "fetches artifact") || !strings.Contains(text, "starts ") {
				t.Errorf("it said %s", text)
			}
			if n.done[len(n.done)-1] != 1 {
				t.Errorf("fetched %v", n.done)
			}
			must(t, s.Close())
			gone(t, processes)
			if list, err := os.ReadDir(filepath.Join(dir, "work")); err != nil || len(list) != 0 {
				t.Errorf("left in the working directory: %v, %v", list, err)
			}
		})
	}
}

// A port of the task's own, which must be free; it is free again when the replica is closed.
func TestOwnPort(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	host, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	must(t, l.Close())
	d, _ := r.deployer(t.TempDir(), nil)
	own := task("http", "", func(t *messages.Task) {
		t.Run.URL, t.Run.ReadyURL, t.Run.Env["STUB_PORT"] = "http://"+host+":"+port+"/", "", port
	})
	for range 2 {
		var n notes
		s, err := d.Open(within(t), n.open(own))
		must(t, err)
		if got, err := ask(t, s, "x"); err != nil || !strings.HasSuffix(got, "|x") {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := d.Open(within(t), n.open(own)); err == nil || !strings.Contains(err.Error(), "is taken") {
			t.Errorf("a second one beside it: %v", err)
		}
		must(t, s.Close())
	}
}

// A policy is asked the warm-up observation before its replica is ready, and what is none
// says so.
func TestWarmup(t *testing.T) {
	r := newRig(t)
	d, _ := r.deployer(t.TempDir(), nil)
	with := func(digest string) messages.Task {
		return task("openpi", "", func(t *messages.Task) { t.Run.Warmup, t.Run.Sessions = digest, true })
	}
	var n notes
	warm := with(r.push(policy.Observation(8, 42)))
	d.Placed([]messages.Task{warm})
	s, err := d.Open(within(t), n.open(warm))
	must(t, err)
	if !strings.Contains(n.text(), "warms up") || len(n.done) > 0 {
		t.Errorf("it said %s, fetched %v", n.text(), n.done)
	}
	must(t, s.Close())
	r.said("observed 42\n")
	if !d.cache.needed(warm.Run.Warmup) || len(d.cache.used) > 0 {
		t.Errorf("needed are %v, used %v", d.cache.wanted, d.cache.used)
	}
	if _, err := d.Open(within(t), n.open(with(r.push(nil)))); messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), "run.warmup is the SHA-256 of one observation") {
		t.Error(err)
	}
}

// What a command finds around it, and what not.
func TestSurroundings(t *testing.T) {
	t.Setenv("NATS_PASSWORD", "secret")
	t.Setenv("FLEETBUS_SITE", "hall")
	r := newRig(t)
	d, _ := r.deployer(t.TempDir(), nil)
	var n notes
	s, err := d.Open(within(t), n.open(task("http", r.push([]byte("m")), func(t *messages.Task) {
		t.Run.Env["LEVEL"], t.Run.Env["WHERE"], t.Concurrency = "2", "{artifact}:{port}", 3
	})))
	must(t, err)
	got, err := ask(t, s, "env")
	must(t, err)
	must(t, s.Close())
	for _, w := range []string{"FLEETBUS_REPLICA=grasp/0", "FLEETBUS_TASK=grasp", "FLEETBUS_CLASS=inference", "FLEETBUS_AGENT=a1", "FLEETBUS_SLOTS=3", "FLEETBUS_MAX_BATCH=1", "FLEETBUS_PORT=", "LEVEL=2", "WHERE=" + d.o.Dir} {
		if !strings.Contains(got, w) {
			t.Errorf("no %s in\n%s", w, got)
		}
	}
	if strings.Contains(got, "secret") || strings.Contains(got, "FLEETBUS_SITE") {
		t.Errorf("it was given what is the agent's:\n%s", got)
	}
}

// An artifact that is a program is run by its path.
func TestProgram(t *testing.T) {
	r := newRig(t)
	d, _ := r.deployer(t.TempDir(), nil)
	script := "#!/bin/sh\nexec " + os.Args[0] + "\n"
	var n notes
	s, err := d.Open(within(t), n.open(task("http", r.push([]byte(script)), func(t *messages.Task) { t.Run.Command = []string{"{artifact}"} })))
	must(t, err)
	if got, err := ask(t, s, "x"); err != nil || !strings.HasPrefix(got, "#!/bin/sh") {
		t.Errorf("%q, %v", got, err)
	}
	must(t, s.Close())
}

// A process that does not end when it is told to is killed, with all that it has started.
func TestKilledWhenDeaf(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		r := newRig(t)
		d, _ := r.deployer(t.TempDir(), func(o *Options) {
			if !guarded {
				o.Guard = nil
			}
		})
		file := filepath.Join(t.TempDir(), "pids")
		var n notes
		s, err := d.Open(within(t), n.open(task("deaf", "", func(t *messages.Task) { t.Run.Env["STUB_CHILD"], t.Run.StopTimeout = file, 100 })))
		must(t, err)
		processes := pids(t, file)
		if err := s.Close(); err == nil || !strings.Contains(err.Error(), "ignored SIGTERM for 100ms and was killed") {
			t.Errorf("guarded %v: %v", guarded, err)
		}
		gone(t, processes)
	}
}

// A server that dies says why, at once; its log says it, too.
func TestDies(t *testing.T) {
	r := newRig(t)
	d, _ := r.deployer(t.TempDir(), nil)
	var n notes
	s, err := d.Open(within(t), n.open(task("http", "", nil)))
	must(t, err)
	if _, err := ask(t, s, "die"); messages.CodeOf(err) != messages.CodeBackendFailed {
		t.Errorf("the request that killed it: %v", err)
	}
	dying := s.(backend.Dying)
	select {
	case <-dying.Done():
	case <-time.After(patience):
		t.Fatal("nobody noticed")
	}
	if err := dying.Err(); !strings.Contains(err.Error(), "exit status 9; its last line: out of memory") {
		t.Error(err)
	}
	must(t, s.Close())
	r.said("[fleetbus] starts ", "listens, in ", "out of memory", "[fleetbus] ended: ")
}

// A server that hangs is dead when it has been silent for hang_timeout, and none of it is left.
func TestHangs(t *testing.T) {
	r := newRig(t)
	for _, mode := range []string{"http", "oip", "openpi"} {
		t.Run(mode, func(t *testing.T) {
			d, _ := r.deployer(t.TempDir(), nil)
			file := filepath.Join(t.TempDir(), "pids")
			var n notes
			s, err := d.Open(within(t), n.open(task(mode, "", func(t *messages.Task) {
				t.Run.Env["STUB_CHILD"], t.Run.HangTimeout, t.Run.StopTimeout = file, 200, 100
			})))
			must(t, err)
			end := sync.OnceValue(s.Close)
			defer func() { _ = end() }() // where the test fails before it looks
			body := string(policy.Observation(8, 7))
			if mode == "oip" {
				body = string(oip.JSON("1", 1))
			}
			if _, err := ask(t, s, body); err != nil {
				t.Fatal(err)
			}
			processes := pids(t, file)
			freeze(t, processes[0])
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := s.Serve(ctx, &backend.Request{Body: []byte(body)}); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			dying := s.(backend.Dying)
			select {
			case <-dying.Done():
			case <-time.After(patience):
				t.Fatal("nobody noticed")
			}
			if err := dying.Err(); !strings.Contains(err.Error(), "it hangs: ") {
				t.Error(err)
			}
			if err := end(); err == nil || !strings.Contains(err.Error(), "ignored SIGTERM for 100ms and was killed") {
				t.Error(err)
			}
			gone(t, processes)
		})
	}
}

// said waits until the processes of the task have said all of it.
func (r *rig) said(parts ...string) {
	r.t.Helper()
	eventually(r.t, strings.Join(parts, ", ")+" in the log", func() bool {
		log := r.log()
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(log, p) })
	})
}

// log is what the processes of the task said.
func (r *rig) log() string {
	r.t.Helper()
	stream, err := r.b.JS.Stream(within(r.t), bus.TaskLogStreamName(fleet))
	must(r.t, err)
	info, err := stream.Info(within(r.t))
	must(r.t, err)
	var text strings.Builder
	for seq := uint64(1); seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(within(r.t), seq)
		must(r.t, err)
		s, err := messages.ParseSubject(m.Subject)
		must(r.t, err)
		if s.Kind != messages.KindTaskLog || s.Agent != "a1" || s.Task != "grasp" || s.ID != "0" {
			r.t.Errorf("subject %s", m.Subject)
		}
		text.Write(m.Data)
	}
	return text.String()
}

// A process that says more than can be sent holds nobody up, and is told of.
func TestSaysTooMuch(t *testing.T) {
	r := newRig(t)
	sub, err := r.b.Conn.SubscribeSync(messages.Subject{Kind: messages.KindTaskLog, Fleet: fleet}.String())
	must(t, err)
	s := speak(r.b, messages.Subject{Kind: messages.KindTaskLog, Fleet: fleet, Site: "main", Agent: "a1", Task: "t", ID: "0"}.String(), slog.New(slog.DiscardHandler))
	for range 10_000 {
		s.say(strings.Repeat("x", 100))
	}
	s.close()
	m, err := sub.NextMsg(patience)
	must(t, err)
	if len(m.Data) > logMost {
		t.Errorf("a message of %d bytes", len(m.Data))
	}
}

// beats are the states of the replicas of an agent.
func (r *rig) replica(sub *nats.Subscription, state messages.ReplicaState) messages.ReplicaStatus {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		m, err := sub.NextMsg(patience)
		must(r.t, err)
		var h messages.Heartbeat
		must(r.t, messages.Decode(m.Data, &h))
		for _, s := range h.Replicas {
			if s.State == state {
				return s
			}
		}
	}
	r.t.Fatalf("the replica is never %s", state)
	return messages.ReplicaStatus{}
}

// document places a task on the agent.
func (r *rig) document(tasks ...messages.Task) {
	r.t.Helper()
	doc := &messages.Placement{Agent: "a1", Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1}
	for _, t := range tasks {
		doc.Replicas = append(doc.Replicas, messages.PlacedReplica{ID: t.Name + "/0", Task: t})
	}
	data, err := messages.Encode(doc)
	must(r.t, err)
	kv, err := r.b.KV(within(r.t), bus.Placements)
	must(r.t, err)
	_, err = kv.Put(within(r.t), "a1", data)
	must(r.t, err)
}

// An agent whose owner has not allowed it runs nothing that a task brings.
func TestNotAllowed(t *testing.T) {
	r := newRig(t)
	sub, err := r.b.Conn.SubscribeSync("fb." + fleet + ".main.hb.a1")
	must(t, err)
	r.document(task("http", "", nil))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		all := agent.Func(messages.AnyHandler, func(context.Context, *agent.Request) ([]byte, error) { return nil, nil })
		ended <- agent.New(r.s.Connect(t), agent.Config{Fleet: fleet, Environment: environment("a1"), HandoverWait: -1, Replicas: 1, Logger: slog.New(slog.DiscardHandler)}, all).Run(ctx)
	}()
	if st := r.replica(sub, messages.ReplicaFailed); !strings.Contains(st.Reason, "this agent runs none; its owner allows that with --allow-run") {
		t.Errorf("%+v", st)
	}
	cancel()
	must(t, <-ended)
}
