package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// asynqParts are the processes of asynq on Redis.
type asynqParts struct {
	dir      string
	all      []*exec.Cmd
	inputs   []io.Closer
	worker   *exec.Cmd
	client   io.Writer
	answers  *bufio.Reader
	children io.Writer // what they write to stderr
}

// asynq is the other side of the case asynq: a Redis server of its own, a worker and a
// client, in processes of their own as ours are. end ends them.
func asynq(ctx context.Context, s *stage, aof bool) (_ side, end func(), err error) {
	p := &asynqParts{children: s}
	defer func() {
		if err != nil {
			p.end()
		}
	}()
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, nil, errors.New("redis-server is not installed: run make deps, or leave the case out with --case loop")
	}
	if p.dir, err = os.MkdirTemp("", "fleetbus-peers-"); err != nil {
		return nil, nil, err
	}
	binary := filepath.Join(p.dir, "peers")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
	if build.Dir, err = peersDir(); err != nil {
		return nil, nil, err
	}
	if out, err := build.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("build the peers: %w\n%s", err, out)
	}
	free, err := ports(1)
	if err != nil {
		return nil, nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(free[0])
	args := []string{"--port", strconv.Itoa(free[0]), "--bind", "127.0.0.1", "--dir", p.dir, "--save", ""}
	if aof {
		// What Redis has said yes to survives the death of Redis, and not that of the machine:
		// so it is with us by default.
		args = append(args, "--appendonly", "yes", "--appendfsync", "everysec")
	}
	if _, err := p.start(redis, args...); err != nil {
		return nil, nil, err
	}
	if err := s.until(ctx, "redis-server to listen", func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			err = c.Close()
		}
		return err
	}); err != nil {
		return nil, nil, err
	}
	worker, err := p.start(binary, "worker", address, strconv.Itoa(many))
	if err != nil {
		return nil, nil, err
	}
	p.worker = p.all[len(p.all)-1]
	if p.answers, err = p.start(binary, "client", address, strconv.Itoa(many), strconv.Itoa(jobBytes)); err != nil {
		return nil, nil, err
	}
	p.client = p.inputs[len(p.inputs)-1].(io.Writer)
	for _, out := range []*bufio.Reader{worker, p.answers} {
		if line, err := out.ReadString('\n'); strings.TrimSpace(line) != "runs" {
			return nil, nil, fmt.Errorf("a peer ended at once: %w", err)
		}
	}
	return p.side, p.end, nil
}

// peersDir is where the module of the peers is: beside this one, as it is built from there.
func peersDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w; run the benchmark in its source", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "testing", "bench", "peers"), nil
}

// start starts a process and returns its output.
func (p *asynqParts) start(name string, args ...string) (*bufio.Reader, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = p.children
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.all, p.inputs = append(p.all, cmd), append(p.inputs, in)
	return bufio.NewReader(out), nil
}

// side gives asynq a window. Its worker looks for tasks a thousand times a second when
// there are none, so outside of its windows it is stopped.
func (p *asynqParts) side(_ context.Context, d time.Duration) (n int, took time.Duration, err error) {
	if err := p.worker.Process.Signal(syscall.SIGCONT); err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Fprintln(p.client, d.Milliseconds()); err != nil {
		return 0, 0, err
	}
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		return 0, 0, fmt.Errorf("the client of asynq ended: %w", err)
	}
	var said struct {
		N     int
		Took  time.Duration
		Error string
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return 0, 0, err
	}
	if said.Error != "" {
		return 0, 0, errors.New("asynq: " + said.Error)
	}
	return said.N, said.Took, p.worker.Process.Signal(syscall.SIGSTOP)
}

// end ends all of them, whatever state they are in.
func (p *asynqParts) end() {
	for i := len(p.all) - 1; i >= 0; i-- {
		_ = p.inputs[i].Close()     // it is killed anyway
		_ = p.all[i].Process.Kill() // it may have ended
		_ = p.all[i].Wait()         // how it ended is of no use to anybody any more
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir) // what is left is in the directory of temporary files
	}
}
