//go:build !unix

package proc

import (
	"fmt"
	"os"
	"os/exec"
)

const guards = false

// Without process groups and signals a child is told to stop by the end of its standard
// input, and killed by itself.
func group(*exec.Cmd)            {}
func groupAndDie(*exec.Cmd)      {}
func terminateGroup(*os.Process) {}
func killGroup(p *os.Process)    { _ = p.Kill() } // fails only where it has ended

// Guard is not there without process groups.
func Guard([]string) int {
	fmt.Fprintln(os.Stderr, "a guard needs process groups, which this system has not")
	return 1
}
