//go:build unix && !linux

package proc

import "os/exec"

// groupAndDie puts a child into a group of its own. When the agent is killed the child sees
// the end of its standard input.
func groupAndDie(cmd *exec.Cmd) { group(cmd) }

func die(*exec.Cmd) {}
