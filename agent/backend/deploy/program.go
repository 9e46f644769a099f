package deploy

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend/proc"
)

// lingerTime is how long the output of a process that has ended is read. Its whole group is
// killed by then, so the pipe ends at once, unless a process left the group.
const lingerTime = time.Second

// program is a running command that is asked by other ways than its standard input. It has
// two goroutines; done is closed when both have ended.
type program struct {
	name    string // for errors: the program's base name and process id
	process *proc.Process
	done    chan struct{}
	err     error // set before done is closed

	mu   sync.Mutex
	last string // line
}

// startProgram starts a command. Its output, both of it, goes line by line to lines.
func startProgram(cmd *exec.Cmd, guard []string, lines func(string), log *slog.Logger) (*program, error) {
	name := filepath.Base(cmd.Path)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	process, err := proc.Start(cmd, guard)
	_ = w.Close() // the command has its own
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	p := &program{name: fmt.Sprintf("%s (process %d)", name, process.Pid), process: process, done: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.listen(r, lines, log)
	}()
	go func() {
		defer close(p.done)
		exit := <-process.Exited
		p.process.Close() // what it has started and left behind
		select {
		case <-read:
		case <-time.After(lingerTime):
		}
		_ = r.Close()
		<-read
		p.err = p.why(exit)
	}()
	return p, nil
}

// why is the reason for an end.
func (p *program) why(exit error) error {
	if exit == nil {
		exit = errors.New("exit status 0")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == "" {
		return exit
	}
	return fmt.Errorf("%w; its last line: %s", exit, p.last)
}

// listen passes lines on.
func (p *program) listen(r *os.File, lines func(string), log *slog.Logger) {
	proc.Lines(r, func(line string) {
		p.mu.Lock()
		p.last = line[:min(len(line), 256)]
		p.mu.Unlock()
		lines(line)
		log.Info("process", "name", p.name, "line", line)
	})
}

// stop ends the group: SIGTERM, then SIGKILL. The error says that it had to be killed.
func (p *program) stop(within time.Duration) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	p.process.Terminate()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	p.process.Kill()
	<-p.done
	return fmt.Errorf("%s ignored SIGTERM for %v and was killed", p.name, within)
}

func (p *program) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
