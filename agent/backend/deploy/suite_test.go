package deploy

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/policy"
)

// suite is a stub with the model of the suite of all backends.
func suite(kind string) int {
	for file := os.Getenv("STUB_READY"); file != ""; <-time.After(time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			break
		}
	}
	model := new(backendtest.Model)
	switch kind {
	case "exec":
		return suiteFrames(model)
	case "openpi":
		return serveHTTP(&policy.Server{Metadata: policy.Metadata(), Parallel: true, Infer: model.Serve, Misbehave: func(c *openpiwire.Conn, _ *http.Request, observation []byte) bool {
			misbehave(observation)
			if string(observation) == "cut" {
				c.CloseNow()
			}
			return string(observation) == "cut"
		}})
	}
	return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprint(w, "{}")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		misbehave(body)
		if text := map[string]string{"cut": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.", "garbage": "%PDF-1.4\r\n\r\n"}[string(body[:min(len(body), 16)])]; text != "" {
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_, _ = fmt.Fprint(conn, text)
				_ = conn.Close()
			}
			return
		}
		answer, err := model.Serve(r.Context(), body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = w.Write(answer)
	}))
}

func misbehave(body []byte) {
	if string(body) == "die" {
		fmt.Fprintln(os.Stderr, "out of memory")
		os.Exit(9)
	}
}

// suiteFrames speaks those of execio, with several requests at once.
func suiteFrames(model *backendtest.Model) int {
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	write := func(head map[string]any, body []byte) {
		mu.Lock()
		defer mu.Unlock()
		text, _ := json.Marshal(head)
		for _, part := range [][]byte{text, body} {
			_ = binary.Write(out, binary.BigEndian, uint32(len(part)))
			_, _ = out.Write(part)
		}
		_ = out.Flush()
	}
	in := bufio.NewReader(os.Stdin)
	read := func() []byte {
		var n uint32
		if binary.Read(in, binary.BigEndian, &n) != nil {
			os.Exit(0)
		}
		part := make([]byte, n)
		if _, err := io.ReadFull(in, part); err != nil {
			os.Exit(0)
		}
		return part
	}
	write(map[string]any{"type": "ready"}, nil)
	running := make(map[int]context.CancelFunc)
	for {
		var head struct {
			Type        string `json:"type"`
			ID          int    `json:"id"`
			ContentType string `json:"content_type"`
		}
		text := read()
		body := read()
		_ = json.Unmarshal(text, &head)
		if head.Type == "cancel" {
			if cancel := running[head.ID]; cancel != nil {
				cancel()
			}
			continue
		}
		misbehave(body)
		if string(body) == "garbage" {
			fmt.Println("progress: 10%")
		}
		ctx, cancel := context.WithCancel(context.Background())
		running[head.ID] = cancel
		go func() {
			answer, err := model.Serve(ctx, body)
			if err != nil {
				write(map[string]any{"type": "error", "id": head.ID, "message": err.Error()}, nil)
				return
			}
			write(map[string]any{"type": "result", "id": head.ID, "content_type": head.ContentType}, answer)
		}()
	}
}

// brings is a handler for what a task brings: the suite opens it, as an agent does a task.
type brings struct {
	d   *Deployer
	run *messages.Run

	mu sync.Mutex
	n  int
}

func (b *brings) Name() string { return "suite" }

func (b *brings) Open(ctx context.Context, open backend.Open) (backend.Server, error) {
	b.mu.Lock()
	open.Replica = fmt.Sprintf("suite/%d", b.n)
	b.n++
	b.mu.Unlock()
	open.Task.Run = b.run
	return b.d.Open(ctx, open)
}

// What tasks bring passes the suite that all backends pass.
func TestConformance(t *testing.T) {
	const failed = messages.CodeBackendFailed
	r := newRig(t)
	digest := r.push([]byte("model-1"))
	d, _ := r.deployer(t.TempDir(), nil)
	{ // what the connection starts with its first use stays with it
		var n notes
		s, err := d.Open(within(t), n.open(task("http", digest, nil)))
		must(t, err)
		must(t, s.Close())
	}
	for _, kind := range []string{"http", "oip", "openpi", "exec"} {
		start := func(change func(*messages.Run)) func(*testing.T) backend.Handler {
			return func(*testing.T) backend.Handler {
				run := task(kind, digest, nil).Run
				run.Env[stubEnv] = "suite " + kind
				if change != nil {
					change(run)
				}
				return &brings{d: d, run: run}
			}
		}
		soon := func(run *messages.Run) { run.ReadyTimeout, run.Env["STUB_READY"] = 300, "/no/such/file" }
		died := "exit status 9; its last line"
		k := backendtest.Kind{
			Start: start(nil), SeesCancel: kind != "openpi", KeepsPlaces: kind == "openpi" || kind == "exec",
			Faults: []backendtest.Fault{
				{Name: "crash", Body: "die", Code: failed, Dies: died},
			},
			Unready: []backendtest.Unready{
				{Name: "never", Code: failed, Text: "within 300ms", Start: start(soon)},
				{Name: "crashes", Code: failed, Text: "ended before it was ready: ", Start: start(func(run *messages.Run) { run.Env[stubEnv] = "crash" })},
			},
			Late: func(t *testing.T) (backend.Handler, func()) {
				file := filepath.Join(t.TempDir(), "ready")
				return start(func(run *messages.Run) { run.Env["STUB_READY"] = file })(t), func() { must(t, os.WriteFile(file, nil, 0o600)) }
			},
		}
		switch kind {
		case "exec":
			k.Faults = append(k.Faults, backendtest.Fault{Name: "garbage", Body: "garbage", Code: failed, Text: "its output is not a frame", Dies: "not a frame"})
		case "openpi":
			k.Faults = append(k.Faults, backendtest.Fault{Name: "cut", Body: "cut", Code: failed, Text: "the connection was closed without a word"})
		default:
			k.Faults = append(k.Faults,
				backendtest.Fault{Name: "cut", Body: "cut", Code: failed, Text: "closed the connection inside its answer (200 OK), after 10 of 100 bytes"},
				backendtest.Fault{Name: "garbage", Body: "garbage", Code: failed, Text: "malformed HTTP"})
		}
		t.Run(kind, func(t *testing.T) { backendtest.Run(t, k) })
	}
	if list, err := os.ReadDir(filepath.Join(d.o.Dir, "work")); err != nil || len(list) > 0 || len(d.ports) > 0 || len(d.cache.used) > 0 {
		t.Errorf("left: %v, %v, ports %v, artifacts %v", list, err, d.ports, d.cache.used)
	}
}
