package proc

import (
	"os/exec"
	"syscall"
)

// groupAndDie puts a child into a group of its own, and has the kernel kill it when the
// thread that started it ends.
func groupAndDie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// die has the kernel kill a child of the guard with the guard; it stays in its group.
func die(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
