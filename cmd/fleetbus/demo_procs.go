package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// proc is one child process of the demo: this program again, with another subcommand.
type proc struct {
	name string
	cmd  *exec.Cmd
	log  string        // path of its output
	done chan struct{} // closed when it has been waited for
	err  error         // of Wait; read it after done
	over bool          // killed or stopped on purpose; owned by the demo's goroutine
}

// family starts children and makes sure that none of them outlives the demo.
type family struct {
	self string // path of this program
	dir  string // where logs go
	env  []string

	mu    sync.Mutex
	procs map[string]*proc
}

func newFamily(dir string) (*family, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the path of this program: %w", err)
	}
	// The user's own servers and credentials stay out of it.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NATS_") || strings.HasPrefix(v, "FLEETBUS_")
	})
	env = append(env, "XDG_CONFIG_HOME="+dir, "XDG_STATE_HOME="+dir)
	return &family{self: self, dir: dir, env: env, procs: make(map[string]*proc)}, nil
}

// start starts a child under a name. Its output goes to <dir>/<name>.log.
func (f *family) start(name string, args ...string) error {
	p := &proc{name: name, log: filepath.Join(f.dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close() // the child has its own copy
	p.cmd = exec.Command(f.self, args...)
	p.cmd.Env = f.env
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = childAttr() // a group of its own: Ctrl-C reaches the demo, which stops them in order
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.procs[name] = p
	return nil
}

// get returns the newest child of a name.
func (f *family) get(name string) *proc {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[name]
}

// kill sends SIGKILL and waits until the kernel has taken the child away. It returns
// the moment just before the signal.
func (p *proc) kill() time.Time {
	p.over = true
	at := time.Now()
	_ = p.cmd.Process.Kill() // fails only for one that is gone already
	<-p.done
	return at
}

// anyDead returns an error for a child that has ended though nobody ended it.
func (f *family) anyDead() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.procs {
		select {
		case <-p.done:
			if !p.over {
				return fmt.Errorf("%s ended by itself (%v); its last words: %s", p.name, p.err, tail(p.log, 3))
			}
		default:
		}
	}
	return nil
}

// stop asks a child to end and waits for it; past the deadline of ctx it is killed, and
// that is an error.
func (p *proc) stop(ctx context.Context) error {
	p.over = true
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s did not end well on SIGTERM (%v); its last words: %s", p.name, p.err, tail(p.log, 3))
		}
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("%s did not end on SIGTERM in time and was killed", p.name)
	}
}

// killAll ends whatever still runs. It is the last thing the demo does, however it ends.
func (f *family) killAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.procs {
		p.kill()
	}
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	list := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	list = list[max(0, len(list)-lines):]
	return string(bytes.Join(list, []byte(" | ")))
}
