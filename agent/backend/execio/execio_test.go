package execio

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

func wantError(t *testing.T, err error, code messages.Code, text string) {
	t.Helper()
	if messages.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want %s with %q", err, code, text)
	}
}

func TestServes(t *testing.T) {
	o, log := options("echo")
	c := open(t, o)
	for _, s := range []struct{ body, want string }{{"hello", "hello"}, {"", ""}, {"deadline", "true id 2"}, {strings.Repeat("x", 4096), strings.Repeat("x", 4096)}} {
		if got, err := ask(t, c, s.body); err != nil || got != s.want {
			t.Errorf("%q: %q, %v", s.body, got, err)
		}
	}
	log.until(t, "ready, slots 3, task detect")
	_, err := ask(t, c, "fail")
	wantError(t, err, messages.CodeBadRequest, "not an image")
	_, err = ask(t, c, "fail plainly")
	wantError(t, err, messages.CodeBackendFailed, "gave no reason")
	_, err = ask(t, c, strings.Repeat("x", 4097))
	wantError(t, err, messages.CodePayloadTooLarge, "the request has 4097 bytes")
	if c.Err() != nil {
		t.Error(c.Err())
	}
	r := request("progress")
	var done float64
	r.Progress = func(d float64, note string) {
		if note == "half" {
			done = d
		}
	}
	if resp, err := c.Serve(t.Context(), r); err != nil || done != 0.5 || resp.ContentType != "text/plain" {
		t.Errorf("progress %v, %+v, %v", done, resp, err)
	}
}

func TestPartialResults(t *testing.T) {
	o, _ := options("echo")
	c := open(t, o)
	r := request("partial")
	r.Stream = true
	var got []string
	r.Partial = func(body []byte, contentType string) error {
		got = append(got, contentType+" "+string(body))
		return nil
	}
	if resp, err := c.Serve(t.Context(), r); err != nil || string(resp.Body) != "partial" {
		t.Errorf("%+v, %v", resp, err)
	}
	if want := []string{"text/x true0", "text/x true1", "text/x true2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A child stores checkpoints, out of a frame and out of a file, and is given the newest.
func TestCheckpoints(t *testing.T) {
	o, _ := options("echo")
	o.Env = append(o.Env, "EXECIO_POINT="+filepath.Join(t.TempDir(), "point"))
	c := open(t, o)
	var stored, said []string
	var newest string
	job := func() *backend.Request {
		r := request("train")
		r.Class = messages.Training
		r.Log = func(line string) { said = append(said, line) }
		r.Checkpoint = func(_ context.Context, from io.Reader) error {
			data, err := io.ReadAll(from)
			newest = string(data)
			stored = append(stored, newest)
			return err
		}
		r.Restore = func(context.Context) (io.ReadCloser, error) {
			if newest == "" {
				return nil, nil
			}
			return io.NopCloser(strings.NewReader(newest)), nil
		}
		return r
	}
	for _, want := range []string{"nothing   bad_request", "second   bad_request"} {
		if resp, err := c.Serve(t.Context(), job()); err != nil || string(resp.Body) != want {
			t.Errorf("%q, %v, want %q", resp.Body, err, want)
		}
	}
	if want := []string{"first", "second", "first", "second"}; !slices.Equal(stored, want) {
		t.Errorf("stored %q", stored)
	}
	if !slices.Contains(said, "from nothing") || !slices.Contains(said, "from second") {
		t.Errorf("said %q", said)
	}
	// Of what is no job none is taken; a checkpoint that cannot be read begins nothing.
	r := job()
	r.Checkpoint, r.Class = nil, messages.Inference
	if resp, err := c.Serve(t.Context(), r); err != nil || string(resp.Body) != "nothing bad_request bad_request bad_request" {
		t.Errorf("%q, %v", resp.Body, err)
	}
	r = job()
	r.Restore = func(context.Context) (io.ReadCloser, error) {
		return nil, messages.Errorf(messages.CodeUnavailable, "no store")
	}
	if _, err := c.Serve(t.Context(), r); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("%v", err)
	}
}

func TestAnswersInAnyOrder(t *testing.T) {
	o, _ := options("echo")
	c := open(t, o)
	got := make(chan string, 3)
	for range 3 {
		go func() {
			s, err := ask(t, c, "hold")
			if err != nil {
				t.Error(err)
			}
			got <- s
		}()
	}
	seen := map[string]bool{}
	for range 3 {
		seen[<-got] = true
	}
	if !seen["0"] || !seen["1"] || !seen["2"] {
		t.Errorf("%v", seen)
	}
}

// TestLateAnswerIsDropped: the first request's time is over, the child goes on.
func TestLateAnswerIsDropped(t *testing.T) {
	o, log := options("echo")
	c := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, err := c.Serve(ctx, request("silence")); failed <- err }()
	log.until(t, "silent about")
	cancel()
	if err := <-failed; err != context.Canceled {
		t.Error(err)
	}
	log.until(t, "cancel")
	if s, err := ask(t, c, "y"); err != nil || s != "y" {
		t.Error(s, err)
	}
}

// TestChildrenThatAreNotReady: what a user sees of them.
func TestChildrenThatAreNotReady(t *testing.T) {
	for _, s := range []struct {
		mode, text string
		code       messages.Code
		ready      time.Duration
	}{
		{"never-ready", "sent no ready frame within 300ms", messages.CodeBackendFailed, 300 * time.Millisecond},
		{"dies-loading", "ended before it was ready: exit status 3; its last line on standard error: no such file: weights.bin", messages.CodeBackendFailed, patience},
		{"prints", `its output is not a frame: a header of 1819238756 bytes, allowed are 65536; it begins with "loading weights."; only frames may go to standard output, print to standard error`, messages.CodeBackendFailed, patience},
		{"wrong-first", `its first frame is "result", expected ready`, messages.CodeBackendFailed, patience},
	} {
		o, _ := options(s.mode)
		o.ReadyTimeout = s.ready
		_, err := New(o).Open(t.Context(), replica)
		wantError(t, err, s.code, s.text)
	}
	_, err := New(Options{Name: "x", Command: []string{"/no/such/program"}}).Open(t.Context(), replica)
	wantError(t, err, messages.CodeBackendFailed, "cannot start /no/such/program")
	_, err = New(Options{Name: "x"}).Open(t.Context(), replica)
	wantError(t, err, messages.CodeBadRequest, "has no command")
	o, _ := options("never-ready")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(o).Open(ctx, replica); err != context.Canceled {
		t.Error(err)
	}
}

// TestChildrenThatEnd: every request under way fails at once, and the reason is told.
func TestChildrenThatEnd(t *testing.T) {
	for _, s := range []struct{ body, text string }{
		{"die", "exit status 7; its last line on standard error: CUDA error"},
		{"print", `its output is not a frame: a header of 1886547815 bytes`},
		{"unknown type", `frame type "chunk" is not one we know; allowed are ready, result, error, progress`},
		{"unknown id", "a result frame is for request 99, which was never sent"},
		{"ready again", "a second ready frame"},
		{"large log", `a "log" frame has a body of 5000 bytes, allowed are 4096`},
	} {
		t.Run(s.body, func(t *testing.T) {
			o, _ := options("echo")
			c := open(t, o)
			other := make(chan error)
			go func() { _, err := ask(t, c, "silence"); other <- err }()
			_, err := ask(t, c, s.body)
			wantError(t, err, messages.CodeBackendFailed, s.text)
			<-c.Done()
			if !strings.Contains(c.Err().Error(), s.text) {
				t.Error(c.Err())
			}
			wantError(t, <-other, messages.CodeBackendFailed, "ended while it served the request")
			_, err = ask(t, c, "more")
			wantError(t, err, messages.CodeBackendFailed, s.text)
		})
	}
}

func TestChildThatIgnoresTerm(t *testing.T) {
	o, _ := options("ignores-term")
	o.StopTimeout = 200 * time.Millisecond
	s, err := New(o).Open(t.Context(), replica)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "ignored SIGTERM for 200ms and was killed") {
		t.Error(err)
	}
	if err := s.Close(); err != nil { // it is gone
		t.Error(err)
	}
}

// TestChildThatDoesNotRead: a body larger than a pipe waits for it; the caller does not.
func TestChildThatDoesNotRead(t *testing.T) {
	o, _ := options("echo")
	o.MaxBody = 1 << 20
	c := open(t, o)
	if err := syscall.Kill(c.process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := c.Serve(ctx, request(strings.Repeat("x", 500<<10))); err != context.DeadlineExceeded {
			t.Error(err)
		}
		cancel()
	}
	if err := syscall.Kill(c.process.Pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if s, err := ask(t, c, "y"); err != nil || s != "y" {
		t.Error(s, err)
	}
}

// beAgent is an agent with one child, whose process id it prints.
func beAgent() {
	o, _ := options("echo")
	s, err := New(o).Open(context.Background(), replica)
	if err != nil {
		panic(err)
	}
	r, err := s.Serve(context.Background(), request("pid"))
	if err != nil {
		panic(err)
	}
	fmt.Println(string(r.Body))
	select {}
}

// TestNoOrphan kills an agent with SIGKILL and looks for its child.
func TestNoOrphan(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(exe)
	agent.Env = append(os.Environ(), modeEnv+"=agent")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // says that it was killed
	over := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for alive(pid) {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("process %d outlived its agent", pid)
		}
	}
}

// alive reports whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !os.IsNotExist(err)
	}
	after := string(stat[bytes.LastIndexByte(stat, ')')+1:])
	return !strings.HasPrefix(after, " Z") && !strings.HasPrefix(after, " X")
}
