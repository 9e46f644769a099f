package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
)

// Self as the first word of a guard is, on Linux, this program, also where its file was
// replaced by a newer version since.
const Self = "/proc/self/exe"

// Process is a child that was started.
type Process struct {
	Pid    int
	Exited <-chan error // gets what Wait returned, once

	process *os.Process
	life    *os.File // the guard sees its end

	mu     sync.Mutex
	closed bool
}

// Start starts a command in a process group of its own; its SysProcAttr is Start's to set.
// guard is the command line of a guard, which gets the command behind it; nil for none. What
// Exited brings must be taken, and [Process.Close] called after that.
func Start(cmd *exec.Cmd, guard []string) (*Process, error) {
	if cmd.Err != nil {
		return nil, cmd.Err
	}
	p := &Process{}
	var theirs *os.File
	if len(guard) > 0 && guards {
		// The guard would only say that it could not start something.
		if err := startable(cmd); err != nil {
			return nil, err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		theirs, p.life = r, w
		cmd.ExtraFiles = []*os.File{r}
		name := guard[0]
		if name == Self {
			name = os.Args[0] // what a list of processes is to show
		}
		cmd.Args = slices.Concat([]string{name}, guard[1:], []string{cmd.Path}, cmd.Args[1:])
		cmd.Path = guard[0]
		group(cmd)
	} else {
		groupAndDie(cmd)
	}
	started, exited := make(chan error, 1), make(chan error, 1)
	go func() {
		// The kernel kills the child when the thread that started it ends, so that thread
		// stays with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	err := <-started
	if theirs != nil {
		_ = theirs.Close() // the guard has its own
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.process, p.Pid, p.Exited = cmd.Process, cmd.Process.Pid, exited
	return p, nil
}

// startable reports what keeps a command from starting that can be seen beforehand.
func startable(cmd *exec.Cmd) error {
	if cmd.Dir != "" {
		if info, err := os.Stat(cmd.Dir); err != nil {
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("%s is no directory", cmd.Dir)
		}
	}
	path := cmd.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(cmd.Dir, path)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return &os.PathError{Op: "exec", Path: path, Err: errors.New("it is no program that may be run")}
	}
	return nil
}

// Terminate asks the whole group to end.
func (p *Process) Terminate() { p.signal(terminateGroup) }

// Kill kills the whole group.
func (p *Process) Kill() { p.signal(killGroup) }

// signal does nothing after Close: the number of the group may belong to somebody else.
func (p *Process) signal(send func(*os.Process)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		send(p.process)
	}
}

// Close kills what is left of the group and lets its number go. It is called once.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.process != nil {
		killGroup(p.process)
	}
	if p.life != nil {
		_ = p.life.Close() // its reader is gone
	}
}
