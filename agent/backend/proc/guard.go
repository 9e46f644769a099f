//go:build unix

package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// lifeFile is the file descriptor of the pipe whose end says that the agent is gone.
const lifeFile = 3

// GuardGrace is how long the group of an agent that was killed has to end by itself. Nobody
// asks it any more, and whoever started the agent again wants its ports and its memory.
const GuardGrace = 2 * time.Second

// Guard runs a command as a guard does and returns the exit status: it is what the program
// named in the second argument of [Start] calls, at once and with nothing else started. The
// command stays in the group of the guard, and has its standard input and output. When the
// command ends, so does the guard, in the same way. When the agent is gone the group gets
// SIGTERM and, GuardGrace later at most, SIGKILL, the guard included.
func Guard(command []string) int {
	if len(command) == 0 {
		fmt.Fprintln(os.Stderr, "guard: no command given")
		return 2
	}
	life := os.NewFile(lifeFile, "life")
	if _, err := life.Stat(); err != nil {
		fmt.Fprintln(os.Stderr, "guard: it is started by an agent alone, which gives it a pipe")
		return 2
	}
	syscall.CloseOnExec(lifeFile)
	// What is sent to the group is for the command. Caught, not ignored: what is ignored
	// would be ignored by the command as well.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)

	runtime.LockOSThread() // the kernel kills the command when the thread that started it ends
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	die(cmd)
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "guard: %v\n", err)
		return 127
	}
	// They are the command's alone: their other ends are to see its end.
	_ = os.Stdin.Close()
	_ = os.Stdout.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, life) // its end is the news, whatever it is
	}()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err := <-exited:
		return leave(err)
	case <-gone:
	}
	_ = syscall.Kill(0, syscall.SIGTERM) // ESRCH cannot be: we are of the group
	select {
	case <-exited: //nolint:errcheck // why it ended nobody asks any more; others of the group may not have
	case <-time.After(GuardGrace):
	}
	_ = syscall.Kill(0, syscall.SIGKILL)
	select {} // it is on its way
}

// leave ends like the command.
func leave(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return exit.ExitCode()
	}
	if s := status.Signal(); s == syscall.SIGKILL || s == syscall.SIGTERM {
		signal.Reset(s)
		_ = syscall.Kill(os.Getpid(), s)
		<-time.After(time.Second) // until it arrives
	}
	return 128 + int(status.Signal())
}
