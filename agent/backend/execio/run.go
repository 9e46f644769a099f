package execio

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend/proc"
)

// runGrace is how long a command that is told to end may take before it is killed.
const runGrace = time.Second

// maxWords bounds what is kept of a command's output, for its error.
const maxWords = 4 << 10

// Run runs a command once, in a process group of its own and with env beside the
// environment of this program, and returns when it has ended. When ctx ends, the whole
// group is told to end, and killed a second later. An error has the end of what the
// command printed.
func Run(ctx context.Context, command, env []string) error {
	out := &tail{}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = runGrace // something that it left behind may hold its output open
	p, err := proc.Start(cmd, nil)
	if err != nil {
		return fmt.Errorf("start %s: %w", command[0], err)
	}
	select {
	case err = <-p.Exited:
	case <-ctx.Done():
		p.Terminate()
		grace := time.NewTimer(runGrace)
		defer grace.Stop()
		select {
		case err = <-p.Exited:
		case <-grace.C:
			p.Kill()
			err = <-p.Exited
		}
		err = fmt.Errorf("it was ended, because its time was over: %w", firstOf(err, ctx.Err()))
	}
	if err == nil {
		return nil
	}
	if said := strings.TrimSpace(string(out.b)); said != "" {
		return fmt.Errorf("%w; it said: %s", err, said)
	}
	return err
}

// firstOf is the first error that there is.
func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// tail keeps the end of what is written to it. One goroutine writes.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - maxWords; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}
