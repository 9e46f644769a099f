package deploy

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/proc"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/oip"
	"github.com/fleetbus/fleetbus/testing/policy"
	"go.uber.org/goleak"
)

// The tests' commands are this program again: STUB says what it is to be.
const (
	stubEnv   = "STUB"
	guardWord = "guard-process"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == guardWord {
		os.Exit(proc.Guard(os.Args[2:]))
	}
	if mode := os.Getenv(stubEnv); mode != "" {
		os.Exit(stub(mode))
	}
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"))
}

// stub is what a task brings.
func stub(mode string) int {
	if file := os.Getenv("STUB_CHILD"); file != "" {
		// A process that the command starts itself, as wrappers do. It ignores SIGTERM.
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), stubEnv+"=sleep", "STUB_CHILD=")
		if err := c.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := os.WriteFile(file, []byte(fmt.Sprintf("%d %d", os.Getpid(), c.Process.Pid)), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if kind, ok := strings.CutPrefix(mode, "suite "); ok {
		return suite(kind)
	}
	switch mode {
	case "crash":
		fmt.Println("loading")
		fmt.Fprintln(os.Stderr, "no GPU found")
		return 3
	case "never":
		<-make(chan struct{})
	case "sleep":
		signal.Ignore(syscall.SIGTERM)
		<-make(chan struct{})
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		return serveHTTP(echoed())
	case "http":
		return serveHTTP(echoed())
	case "oip":
		return serveHTTP(&oip.Server{})
	case "openpi":
		return serveHTTP(&policy.Server{Metadata: policy.Metadata(), Infer: func(_ context.Context, observation []byte) ([]byte, error) {
			fmt.Println("observed", policy.IDOf(observation))
			return policy.Answer(policy.IDOf(observation)), nil
		}})
	case "exec":
		return frames()
	case "agent":
		return beAgent()
	}
	fmt.Fprintln(os.Stderr, "no such stub", mode)
	return 1
}

// content is that of the artifact, shortened.
func content() string {
	data, err := os.ReadFile(os.Getenv("FLEETBUS_ARTIFACT"))
	if err != nil {
		return err.Error()
	}
	return string(data[:min(len(data), 16)])
}

func serveHTTP(h http.Handler) int {
	port := os.Getenv("FLEETBUS_PORT")
	if port == "" {
		port = os.Getenv("STUB_PORT")
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, _ := os.Getwd()
	fmt.Println("listens, in", dir)
	err = http.Serve(l, h)
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// echoed answers with the artifact and the body, or dies.
func echoed() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case string(body) == "die":
			fmt.Fprintln(os.Stderr, "out of memory")
			os.Exit(9)
		case string(body) == "env":
			_, _ = fmt.Fprint(w, strings.Join(os.Environ(), "\n"))
		case r.Method == http.MethodPost:
			_, _ = fmt.Fprint(w, content()+"|"+string(body))
		}
	})
}

// frames speaks those of execio.
func frames() int {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	write := func(head map[string]any, body []byte) {
		text, _ := json.Marshal(head)
		for _, part := range [][]byte{text, body} {
			_ = binary.Write(out, binary.BigEndian, uint32(len(part)))
			_, _ = out.Write(part)
		}
		_ = out.Flush()
	}
	read := func() ([]byte, error) {
		var n uint32
		if err := binary.Read(in, binary.BigEndian, &n); err != nil {
			return nil, err
		}
		part := make([]byte, n)
		_, err := io.ReadFull(in, part)
		return part, err
	}
	fmt.Fprintln(os.Stderr, "frames")
	write(map[string]any{"type": "ready"}, nil)
	for {
		text, err := read()
		if err != nil {
			return 0
		}
		body, err := read()
		if err != nil {
			return 0
		}
		var head struct{ ID int }
		_ = json.Unmarshal(text, &head)
		write(map[string]any{"type": "result", "id": head.ID}, []byte(content()+"|"+string(body)))
	}
}

// beAgent is an agent in a process of its own, to be killed.
func beAgent() int {
	nc, err := bus.Connect(os.Getenv("STUB_URL"), "agent")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	guard := []string{os.Args[0], guardWord}
	if os.Getenv("STUB_UNGUARDED") != "" {
		guard = nil
	}
	if err := os.Unsetenv(stubEnv); err != nil {
		return 1
	}
	log := slog.New(slog.DiscardHandler)
	d, err := New(nc, Options{Fleet: fleet, Site: messages.DefaultSite, Agent: "a1", Dir: os.Getenv("STUB_DIR"), Guard: guard, Replicas: 1, Logger: log})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err = agent.New(nc, agent.Config{Fleet: fleet, Environment: environment("a1"), HandoverWait: -1, Logger: log, Replicas: 1, Deployer: d}).Run(context.Background())
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true // no such file system: signal 0 is all there is
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// freeze stops a process, and returns when none of its threads runs any more: on a busy
// machine the signal takes a moment to reach them all.
func freeze(t *testing.T, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	eventually(t, "process "+strconv.Itoa(pid)+" to stop", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			if _, rest, _ := strings.Cut(string(stat), ") "); err == nil && !strings.HasPrefix(rest, "T") {
				return false
			}
		}
		return true
	})
}

// pids waits for the numbers that a command and its own child have written.
func pids(t *testing.T, file string) (list []int) {
	t.Helper()
	eventually(t, "the command to start", func() bool {
		list = nil
		text, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		for _, w := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(w); err == nil {
				list = append(list, n)
			}
		}
		return len(list) == 2
	})
	return list
}

func gone(t *testing.T, list []int) {
	t.Helper()
	for _, pid := range list {
		eventually(t, "process "+strconv.Itoa(pid)+" to be gone", func() bool { return !alive(pid) })
	}
}

// patience bounds every wait: far above what anything takes, so that only a defect reaches
// it, on a busy machine too.
const patience = 30 * time.Second
