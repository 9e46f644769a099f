package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Some benchmarks need processes of their own: what one of them takes is measured, and must
// not be mixed with what the others take. A child is this program again, in a role; it
// takes orders as lines on its standard input, and answers each with one JSON object on a
// line of its standard output. It ends when its input does, so none is left behind.

// roles are what a child can be, by name. A role runs until in ends.
var roles = map[string]func(args []string, in io.Reader, out io.Writer) error{
	"server":      serverRole,
	"coordinator": coordinatorRole,
	"swarm":       swarmRole,
}

// roleWord is the first argument of a child.
const roleWord = "role"

func runRole(args []string) error {
	if len(args) == 0 || roles[args[0]] == nil {
		return fmt.Errorf("role: found %q; roles are for this program's own children", args)
	}
	return roles[args[0]](args[1:], os.Stdin, os.Stdout)
}

// child is a process in a role.
type child struct {
	role string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// startChild starts one and waits for its first answer, which says that it is ready.
func startChild(ready any, role string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{role: role, cmd: exec.Command(self, append([]string{roleWord, role}, args...)...)}
	c.cmd.Stderr = os.Stderr
	c.cmd.Env = append(os.Environ(), roleVariable+"=1")
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.out = in, bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if err := c.answer(ready); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// roleVariable tells a child that it is one, also where the program is a test.
const roleVariable = "FLEETBUS_BENCH_ROLE"

// ask gives an order and reads the answer.
func (c *child) ask(order string, into any) error {
	if _, err := fmt.Fprintln(c.in, order); err != nil {
		return fmt.Errorf("%s: %w", c.role, err)
	}
	return c.answer(into)
}

func (c *child) answer(into any) error {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: it ended without an answer: %w", c.role, err)
	}
	if err := json.Unmarshal(line, into); err != nil {
		return fmt.Errorf("%s: its answer %q: %w", c.role, line, err)
	}
	return nil
}

// endWithin is how long a child may take to end: it closes files and connections.
const endWithin = 10 * time.Second

// end ends it and waits for that.
func (c *child) end() {
	_ = c.in.Close() // it may have ended already
	late := time.AfterFunc(endWithin, func() { _ = c.cmd.Process.Kill() })
	defer late.Stop()
	_ = c.cmd.Wait() // how it ended is of no use to anybody any more
}

// orders calls do with every line of in, and writes what it returns.
func orders(in io.Reader, out io.Writer, do func(order string) (any, error)) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		answer, err := do(lines.Text())
		if err != nil {
			return err
		}
		if err := tell(out, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func tell(out io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(data))
	return err
}

// usage is what a process has taken.
type usage struct {
	CPU    float64 `json:"cpu"`    // seconds
	Memory float64 `json:"memory"` // MB, the most that it ever had
}

func usedSoFar() (usage, error) {
	cpu, ok := cpuTime()
	if !ok {
		return usage{}, errors.New("this system does not say how much time a process has used")
	}
	return usage{CPU: cpu.Seconds(), Memory: memory()}, nil
}
