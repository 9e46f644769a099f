package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
)

// wait bounds everything that a test waits for: far above what it takes (a process
// starts in well under a second), so that only a defect runs into it, on a busy machine
// and under the race detector too.
const wait = 30 * time.Second

const fleetName = "e2e"

// binary is the program under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	if loads := os.Getenv(modelVariable); loads != "" {
		if err := model(loads); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fleetbus-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "fleetbus")
		if out, err := exec.Command("go", "build", "-o", binary, "github.com/fleetbus/fleetbus/cmd/fleetbus").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the program under test: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// fleet is a server with whatever a test starts beside it.
type fleet struct {
	t   testing.TB
	dir string
	url string

	mu    sync.Mutex
	procs map[string]*process
}

type process struct {
	name string
	args []string
	cmd  *exec.Cmd
	out  *lockedBuffer
	done chan struct{}
	err  error // of Wait, after done
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newFleet starts a server on a free port.
func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), procs: make(map[string]*process)}
	t.Cleanup(f.killAll)
	f.startServer("127.0.0.1:-1")
	return f
}

// startServer starts the server, or starts it again on the port that it had.
func (f *fleet) startServer(listen string) {
	f.t.Helper()
	file := filepath.Join(f.dir, "url")
	_ = os.Remove(file) // absent the first time
	f.start("server", "server", "--listen", listen, "--store-dir", filepath.Join(f.dir, "store"), "--port-file", file)
	f.until("the server to listen", func() error {
		url, err := os.ReadFile(file)
		f.url = string(url)
		return err
	})
}

func (f *fleet) hostPort() string { return strings.TrimPrefix(f.url, "nats://") }

// start starts a process of the fleet. The flags that all need are added.
func (f *fleet) start(name string, args ...string) *process {
	f.t.Helper()
	if args[0] != "server" {
		args = append(args, "--server", f.url, "--fleet", fleetName)
	}
	p := &process{name: name, args: args, out: &lockedBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+f.dir, "XDG_STATE_HOME="+f.dir)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		f.t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.procs[name] = p
	return p
}

// agent starts an agent that takes as long as the model says.
func (f *fleet) agent(id string, tier messages.Tier, more ...string) *process {
	f.t.Helper()
	size := map[messages.Tier][]string{
		messages.Cloud: {"--compute", "1000TFLOPS", "--storage", "10000GB", "--network", "1000Mbps", "--latency", "5ms"},
		messages.Edge:  {"--compute", "100TFLOPS", "--storage", "1000GB", "--network", "100Mbps", "--latency", "1ms"},
		messages.Robot: {"--compute", "10TFLOPS", "--storage", "100GB", "--network", "10Mbps", "--latency", "1ms"},
	}[tier]
	args := append([]string{"agent", "--id", id, "--tier", string(tier), "--simulate"}, size...)
	return f.start(id, append(args, more...)...)
}

func (f *fleet) coordinator(id string) *process {
	f.t.Helper()
	return f.start(id, "coordinator", "--id", id, "--lease-ttl", "2s")
}

// kill is SIGKILL; it returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop is SIGTERM; it returns what the process ended with.
func (p *process) stop(t testing.TB) error {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(wait):
		p.kill()
		t.Errorf("%s did not end on SIGTERM within %v; it said:\n%s", p.name, wait, p.out)
		return nil
	}
}

func (f *fleet) killAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, p := range f.procs {
		p.kill()
		if f.t.Failed() {
			f.t.Logf("---- %s said:\n%s", name, p.out)
		}
	}
}

// until asks until there is no error.
func (f *fleet) until(what string, ask func() error) {
	f.t.Helper()
	f.untilWithin(wait, what, ask)
}

// untilWithin is until for what takes its time.
func (f *fleet) untilWithin(within time.Duration, what string, ask func() error) {
	f.t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			f.t.Fatalf("waited %v for %s: %v", within, what, err)
		}
	}
}

// connect opens a connection that the test closes at its end.
func (f *fleet) connect() *nats.Conn {
	f.t.Helper()
	nc, err := bus.Connect(f.url, f.t.Name())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	return nc
}

func (f *fleet) bus() *bus.Bus {
	f.t.Helper()
	b, err := bus.New(f.connect(), fleetName, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// client runs a client until the test ends.
func (f *fleet) client(origin string, trace func(router.TraceEvent)) *router.Client {
	f.t.Helper()
	c := router.NewClient(f.connect(), router.Config{Fleet: fleetName, Origin: origin, Trace: trace})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("client %s: %v", origin, err)
		}
	})
	ready, stop := context.WithTimeout(ctx, wait)
	defer stop()
	if err := c.Ready(ready); err != nil {
		f.t.Fatalf("client %s: %v", origin, err)
	}
	return c
}

// apply sets what is to run and waits until every replica of it is ready.
func (f *fleet) apply(b *bus.Bus, replicas int, tasks ...messages.Task) {
	f.t.Helper()
	settings := messages.DefaultSettings()
	settings.Reserve = 0
	if _, err := coordinator.Apply(f.t.Context(), b, tasks, &settings); err != nil {
		f.t.Fatal(err)
	}
	f.ready(b, replicas)
}

// ready waits until so many replicas are ready and none is anything else.
func (f *fleet) ready(b *bus.Bus, replicas int) messages.State {
	f.t.Helper()
	var s messages.State
	f.until(fmt.Sprintf("%d ready replicas", replicas), func() error {
		var err error
		if s, err = coordinator.ReadState(f.t.Context(), b); err != nil {
			return err
		}
		n := 0
		for _, r := range s.Replicas {
			if r.State == messages.ReplicaReady {
				n++
			}
		}
		if n != replicas || len(s.Replicas) != replicas {
			return fmt.Errorf("%d of %d are ready: %+v", n, len(s.Replicas), s.Replicas)
		}
		return nil
	})
	return s
}

// gflop makes a task's work so large that it takes t on compute TFLOPS.
func gflop(t time.Duration, compute float64) *float64 {
	w := float64(t.Milliseconds()) * compute
	return &w
}
