package examples

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
)

// patience bounds every wait: far above what anything takes, so that only a defect reaches
// it, on a busy machine too.
const patience = 60 * time.Second

const modules = "../../examples/typescript/node_modules"

// dir holds the program under test as bin/fleetbus, and a copy of examples/, so that
// nothing that Python or tsc writes gets into the tree.
var dir string

// environment is that of every process: no server, credentials or streams of the
// developer's own reach it.
var environment []string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if dir, err = os.MkdirTemp("", "fleetbus-examples-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func prepare() error {
	for _, need := range []string{"python3", "node", "bash"} {
		if _, err := exec.LookPath(need); err != nil {
			return fmt.Errorf("%s is not installed: run `make deps`", need)
		}
	}
	if _, err := os.Stat(filepath.Join(modules, ".package-lock.json")); err != nil {
		return errors.New("the packages of examples/typescript are not installed: run `make deps`")
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "fleetbus"), "github.com/fleetbus/fleetbus/cmd/fleetbus")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program under test: %w\n%s", err, out)
	}
	if err := copyExamples(); err != nil {
		return err
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "NATS_") && !strings.HasPrefix(name, "FLEETBUS_") && name != "PYTHONPATH" {
			environment = append(environment, v)
		}
	}
	environment = append(environment, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir, "XDG_CONFIG_HOME="+filepath.Join(dir, "config"))
	if err := exec.Command("python3", "-c", "import nats").Run(); err != nil {
		standin, err := filepath.Abs("testdata/standin")
		if err != nil {
			return err
		}
		environment = append(environment, "PYTHONPATH="+standin, "PYTHONDONTWRITEBYTECODE=1")
	}
	return nil
}

// copyExamples copies examples/, but for what npm has installed, which is linked.
func copyExamples() error {
	from, to := filepath.Join("..", "..", "examples"), filepath.Join(dir, "examples")
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "node_modules" || d.Name() == "dist" || d.Name() == "__pycache__" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
	if err != nil {
		return err
	}
	installed, err := filepath.Abs(modules)
	if err != nil {
		return err
	}
	return os.Symlink(installed, filepath.Join(to, "typescript", "node_modules"))
}

// fleet is a server and what a test starts beside it.
type fleet struct {
	t     *testing.T
	url   string
	state string // where its agents keep what they must: two fleets have agents of the same name
	procs []*process
}

// process is a line that runs in the background.
type process struct {
	t    *testing.T
	line string
	cmd  *exec.Cmd
	out  output
	done chan struct{}
}

// output is what a process writes, to be read while it does.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// command is a line for bash, in the directory where a reader of the READMEs stands.
func (f *fleet) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir, cmd.Env = dir, append(slices.Clip(environment), "NATS_URL="+f.url, "XDG_STATE_HOME="+f.state)
	cmd.WaitDelay = 5 * time.Second // an orphan may hold the pipes
	return cmd
}

// follow starts a line, to be looked at while it runs. At the end of the test it is killed;
// what an agent has started dies with it.
func (f *fleet) follow(line string) *process {
	f.t.Helper()
	p := &process{t: f.t, line: line, cmd: f.command(context.Background(), "exec "+line), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		f.t.Fatalf("%s: %v", line, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // ProcessState has it
	}()
	f.procs = append(f.procs, p)
	f.t.Cleanup(func() {
		p.kill()
		if f.t.Failed() {
			f.t.Logf("---- %s\n%s", line, &p.out)
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// proc returns the process whose line has a text.
func (f *fleet) proc(text string) *os.Process {
	f.t.Helper()
	i := slices.IndexFunc(f.procs, func(p *process) bool { return strings.Contains(p.line, text) })
	if i < 0 {
		f.t.Fatalf("no process with %q", text)
	}
	return f.procs[i].cmd.Process
}

// until waits until the process has written a text.
func (p *process) until(text string) {
	p.t.Helper()
	natstest.Eventually(p.t, patience, text+" from "+p.line, func() bool {
		ended := false
		select {
		case <-p.done: // before its output is read: nothing comes after that
			ended = true
		default:
		}
		if strings.Contains(p.out.String(), text) {
			return true
		}
		if ended {
			p.t.Fatalf("%s: ended without %q\n%s", p.line, text, &p.out)
		}
		return false
	})
}

// end waits until the process has ended by itself.
func (p *process) end() (out string, status int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s: did not end\n%s", p.line, &p.out)
	}
	return p.out.String(), p.cmd.ProcessState.ExitCode()
}

// run runs a line to its end, and returns what it wrote and its exit status.
func (f *fleet) run(line string) (stdout, stderr string, status int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := f.command(ctx, line)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		f.t.Fatalf("%s: %v\n%s%s", line, err, &out, &errs)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ok runs a line that must succeed.
func (f *fleet) ok(line string) (stdout, stderr string) {
	f.t.Helper()
	stdout, stderr, status := f.run(line)
	if status != 0 {
		f.t.Fatalf("%s: exit status %d\n%s%s", line, status, stdout, stderr)
	}
	return stdout, stderr
}

// up is `fleetbus up` on a port of its own.
func up(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, state: t.TempDir()}
	file := filepath.Join(t.TempDir(), "url")
	f.follow("fleetbus up --listen 127.0.0.1:0 --port-file " + file)
	natstest.Eventually(t, patience, "fleetbus up to listen", func() bool {
		url, err := os.ReadFile(file)
		f.url = strings.TrimSpace(string(url))
		return err == nil && f.url != ""
	})
	return f
}

// lines returns the commands of the blocks of a README that a test is to run. Every other
// block of commands says what it needs, or stands beside a fleet that is started elsewhere.
func lines(t *testing.T, readme string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "examples", readme))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "```sh\n")
	for i, part := range parts[1:] {
		before := strings.TrimSpace(parts[i])
		block, _, _ := strings.Cut(part, "```")
		switch {
		case strings.HasSuffix(before, "<!-- a test runs these lines -->"):
			for line := range strings.Lines(block) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
					all = append(all, line)
				}
			}
		case strings.HasSuffix(before, " -->") && strings.Contains(before[strings.LastIndex(before, "<!--"):], "needs "):
		default:
			t.Errorf("examples/%s: a block of commands without a mark before it, <!-- a test runs these lines --> or <!-- needs … -->:\n%s", readme, block)
		}
	}
	if len(parts) == 1 {
		t.Fatalf("examples/%s has no commands", readme)
	}
	return all
}

// play runs the lines of a README and returns what each wrote to its standard output.
func (f *fleet) play(readme string) (out []string) {
	f.t.Helper()
	for _, line := range lines(f.t, readme) {
		if strings.HasPrefix(line, "fleetbus up") {
			continue // it runs already, on another port
		}
		if cmd, background := strings.CutSuffix(line, " &"); background {
			f.follow(cmd)
			continue
		}
		stdout, _ := f.ok(line)
		out = append(out, stdout)
	}
	return out
}
