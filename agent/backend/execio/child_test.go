package execio

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"go.uber.org/goleak"
)

const patience = 20 * time.Second // bounds every wait; far above what anything takes

// modeEnv makes this test binary a child process, or an agent that is to be killed.
const modeEnv = "FLEETBUS_EXECIO_TEST"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeEnv); mode != "" {
		beChild(mode)
		return
	}
	goleak.VerifyTestMain(m)
}

// beChild is the child process of the tests.
func beChild(mode string) {
	out := bufio.NewWriter(os.Stdout)
	in := bufio.NewReader(os.Stdin)
	send := func(h header, body []byte) {
		if writeFrame(out, h, body) != nil || out.Flush() != nil {
			os.Exit(1)
		}
	}
	switch mode {
	case "suite":
		beSuite()
		return
	case "agent":
		beAgent()
	case "never-ready":
		fmt.Fprintln(os.Stderr, "loading weights")
		_, _ = io.Copy(io.Discard, in)
		return
	case "dies-loading":
		fmt.Fprintln(os.Stderr, "no such file: weights.bin")
		os.Exit(3)
	case "prints":
		fmt.Println("loading weights")
		_, _ = io.Copy(io.Discard, in)
		return
	case "wrong-first":
		send(header{Type: typeResult, ID: 1}, nil)
	case "ignores-term":
		signal.Ignore(syscall.SIGTERM)
	}
	fmt.Fprintln(os.Stderr, "ready, slots "+os.Getenv("FLEETBUS_SLOTS")+", task "+os.Getenv("FLEETBUS_TASK"))
	send(header{Type: typeReady}, nil)
	var held []frame
	for {
		h, body, err := readFrame(in, DefaultMaxBody)
		if err != nil {
			if mode == "ignores-term" {
				<-time.After(patience) // and the end of its input too
			}
			return
		}
		if h.Type == typeCancel {
			fmt.Fprintln(os.Stderr, "cancel", h.ID)
			continue
		}
		answer := frame{header{Type: typeResult, ID: h.ID, ContentType: "text/plain"}, body}
		if h.Batch > 0 { // read all of it, then answer, the last one first
			batch := []frame{{h, body}}
			for len(batch) < h.Batch {
				next, body, err := readFrame(in, DefaultMaxBody)
				if err != nil || next.Type != typeRequest || next.Batch != h.Batch {
					fmt.Fprintln(os.Stderr, "not the rest of a batch:", next, err)
					os.Exit(8)
				}
				batch = append(batch, frame{next, body})
			}
			for i := len(batch) - 1; i >= 0; i-- {
				f := batch[i]
				switch string(f.body) {
				case "silence":
					fmt.Fprintln(os.Stderr, "silent about", f.header.ID)
				case "fail":
					send(header{Type: typeError, ID: f.header.ID, Code: "bad_request", Message: "not an image"}, nil)
				default:
					send(header{Type: typeResult, ID: f.header.ID}, fmt.Appendf(nil, "%s of %d", f.body, h.Batch))
				}
			}
			continue
		}
		switch string(body) {
		case "fail":
			answer = frame{header{Type: typeError, ID: h.ID, Code: "bad_request", Message: "not an image"}, nil}
		case "fail plainly":
			answer = frame{header{Type: typeError, ID: h.ID}, nil}
		case "pid":
			answer.body = []byte(strconv.Itoa(os.Getpid()))
		case "deadline":
			answer.body = fmt.Appendf(nil, "%v %s %d", *h.DeadlineMS > 1000, h.Request, h.Attempt)
		case "die":
			fmt.Fprintln(os.Stderr, "CUDA error")
			os.Exit(7)
		case "silence":
			fmt.Fprintln(os.Stderr, "silent about", h.ID)
			continue
		case "hold": // answered in the reverse order
			if held = append(held, answer); len(held) < 3 {
				continue
			}
			for i := range held {
				last := held[len(held)-1-i]
				send(last.header, []byte(fmt.Sprint(i)))
			}
			continue
		case "print":
			fmt.Println("progress: 10%")
			continue
		case "unknown type":
			answer.header.Type = "chunk"
		case "unknown id":
			answer.header.ID = 99
		case "ready again":
			answer.header.Type = typeReady
		case "large log":
			answer = frame{header{Type: typeLog, ID: h.ID}, make([]byte, 5000)}
		case "progress":
			send(header{Type: typeProgress, ID: h.ID, Done: 0.5, Note: "half"}, nil)
		case "train": // from the checkpoint, if there is one, by way of two more
			answer.body = []byte("nothing")
			if h.Resume != "" {
				text, err := os.ReadFile(h.Resume)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(9)
				}
				answer.body = text
			}
			send(header{Type: typeLog, ID: h.ID, Message: "from " + string(answer.body)}, nil)
			file := os.Getenv("EXECIO_POINT")
			_ = os.WriteFile(file, []byte("second"), 0o600) // what is missing is reported
			for _, point := range []frame{{header{}, []byte("first")}, {header{File: file}, nil}, {header{File: file + ".missing"}, nil}} {
				point.header.Type, point.header.ID = typeCheckpoint, h.ID
				send(point.header, point.body)
				told, _, err := readFrame(in, DefaultMaxBody)
				if err != nil || told.Type != typeCheckpointed || told.ID != h.ID {
					fmt.Fprintln(os.Stderr, "not a word on the checkpoint:", told, err)
					os.Exit(9)
				}
				answer.body = append(answer.body, " "+told.Code...)
			}
		case "partial":
			for i := range 3 {
				send(header{Type: typePartial, ID: h.ID, ContentType: "text/x"}, fmt.Appendf(nil, "%v%d", h.Stream, i))
			}
		}
		send(answer.header, answer.body)
	}
}

// logLines is a logger's output, line by line.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// until waits until the log contains text.
func (l *logLines) until(t *testing.T, text string) {
	t.Helper()
	over := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		s := l.b.String()
		l.mu.Unlock()
		if strings.Contains(s, text) {
			return
		}
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("the log does not say %q: %s", text, s)
		}
	}
}

func options(mode string) (Options, *logLines) {
	log := new(logLines)
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Options{Name: "child", Command: []string{exe}, Env: []string{modeEnv + "=" + mode}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		ReadyTimeout: patience, StopTimeout: patience, MaxBody: 4096}, log
}

var replica = backend.Open{Replica: "detect/0", Task: messages.Task{Name: "detect", Class: messages.Inference, Concurrency: 3}, Environment: messages.Environment{ID: "edge"}}

func open(t *testing.T, o Options) *child {
	t.Helper()
	s, err := New(o).Open(t.Context(), replica)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*child)
}

func request(body string) *backend.Request {
	return &backend.Request{Request: messages.Request{ID: "id", Task: "detect", Class: messages.Inference, Origin: "robot", Attempt: 2},
		Body: []byte(body), Progress: func(float64, string) {}}
}

func ask(t *testing.T, c *child, body string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := c.Serve(ctx, request(body))
	return string(r.Body), err
}
