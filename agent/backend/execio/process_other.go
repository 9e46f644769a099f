//go:build !unix

package execio

import (
	"os"
	"os/exec"
)

// Without process groups and signals a child is told to stop by the end of its standard
// input, and killed by itself.
func isolate(*exec.Cmd)          {}
func terminateGroup(*os.Process) {}
func killGroup(p *os.Process)    { _ = p.Kill() } // fails only where it has ended
