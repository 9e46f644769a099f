package stopping

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// ready bounds everything that is waited for while the fleet starts; fifty processes on
// two busy cores take some seconds.
const ready = time.Minute

const fleetName = "stopping"

// family is the processes of one fleet.
type family struct {
	binary, dir, url string
	fault            string
	mu               sync.Mutex
	procs            []*exec.Cmd
	said             bytes.Buffer
}

// Write collects what the processes say, for an error.
func (f *family) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said.Write(p)
}

// build builds the program into dir.
func build(dir string) (string, error) {
	binary := filepath.Join(dir, "fleetbus")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/fleetbus/fleetbus/cmd/fleetbus").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fleetbus: %w\n%s", err, out)
	}
	return binary, nil
}

func (f *family) start(args ...string) error {
	cmd := exec.Command(f.binary, args...)
	state := filepath.Join(f.dir, "state")
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+state, "XDG_STATE_HOME="+state, "FLEETBUS_LOG_LEVEL=warn", "FB_FAULT="+f.fault)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	f.procs = append(f.procs, cmd)
	return nil
}

// kill ends all processes and returns when they are gone.
func (f *family) kill() {
	for _, p := range f.procs {
		_ = p.Process.Kill() // fails where it has ended
	}
	for _, p := range f.procs {
		_ = p.Wait() // it was killed, which Wait calls an error
	}
}

// server starts the server and returns when it listens.
func (f *family) server(ctx context.Context) error {
	file := filepath.Join(f.dir, "url")
	if err := f.start("server", "--listen", "127.0.0.1:0", "--store-dir", filepath.Join(f.dir, "store"), "--port-file", file); err != nil {
		return err
	}
	return until(ctx, "the server to listen", func() error {
		url, err := os.ReadFile(file)
		f.url = strings.TrimSpace(string(url))
		return err
	})
}

// agent starts an agent that reaches the server under a URL and writes what it executes
// into a history.
func (f *family) agent(id string, tier messages.Tier, compute, url string) error {
	return f.start("agent", "--id", id, "--tier", string(tier), "--compute", compute, "--network", "1000Mbps", "--storage", "100GB",
		"--simulate", "--history", f.history(id), "--server", url, "--fleet", fleetName)
}

func (f *family) history(id string) string { return filepath.Join(f.dir, id+".history") }

// until asks until there is no error.
func until(ctx context.Context, what string, ask func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}
