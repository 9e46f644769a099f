package execio

import (
	"os/exec"
	"syscall"
)

// isolate puts a child into a process group of its own, so that signals for the agent
// do not reach it and ours reach all that it starts, and has the kernel kill it when the
// agent ends without a chance to.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
