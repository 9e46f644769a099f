//go:build unix && !linux

package execio

import (
	"os/exec"
	"syscall"
)

// isolate puts a child into a process group of its own, so that signals for the agent
// do not reach it and ours reach all that it starts. When the agent is killed the child
// sees the end of its standard input.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
