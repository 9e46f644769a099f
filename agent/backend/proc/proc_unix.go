//go:build unix

package proc

import (
	"os"
	"os/exec"
	"syscall"
)

const guards = true

func group(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// The group of a child has its process id. ESRCH, the only error there can be, means
// that nobody of it is left.
func terminateGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGTERM) }
func killGroup(p *os.Process)      { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
