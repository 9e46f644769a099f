package execio

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	"github.com/fleetbus/fleetbus/messages"
)

// suiteBody is the largest body in the suite: what NATS carries at most.
const suiteBody = 8 << 20

// beSuite is the child process of the conformance suite.
func beSuite() {
	var model backendtest.Model
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	send := func(h header, body []byte) {
		mu.Lock()
		defer mu.Unlock()
		if writeFrame(out, h, body) != nil || out.Flush() != nil {
			os.Exit(1)
		}
	}
	running := make(map[uint64]context.CancelFunc)
	in := bufio.NewReader(os.Stdin)
	if file := os.Getenv("FLEETBUS_SUITE_READY"); file != "" {
		for {
			if _, err := os.Stat(file); err == nil {
				break
			}
			<-time.After(time.Millisecond)
		}
	}
	send(header{Type: typeReady}, nil)
	for {
		h, body, err := readFrame(in, DefaultMaxBody)
		if err != nil {
			return
		}
		if h.Type == typeCancel {
			mu.Lock()
			cancel := running[h.ID]
			mu.Unlock()
			if cancel != nil {
				cancel()
			}
			continue
		}
		switch string(body[:min(len(body), 64)]) {
		case "die":
			fmt.Fprintln(os.Stderr, "CUDA error")
			os.Exit(7)
		case "garbage":
			fmt.Println("progress: 10%")
			continue
		case "cut":
			if head, err := headBytes(h.ID, 100); err == nil {
				fmt.Printf("%sten bytes.", head)
			}
			return
		case "hang":
			continue
		case "large":
			send(header{Type: typeResult, ID: h.ID}, make([]byte, suiteBody+1))
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		mu.Lock()
		running[h.ID] = cancel
		mu.Unlock()
		go func() {
			defer cancel()
			answer, err := model.Serve(ctx, body)
			if err != nil {
				send(header{Type: typeError, ID: h.ID, Message: err.Error()}, nil)
				return
			}
			send(header{Type: typeResult, ID: h.ID, ContentType: h.ContentType}, answer)
		}()
	}
}

// headBytes is the beginning of a frame whose body would have n bytes.
func headBytes(id uint64, n int) ([]byte, error) {
	var b frameBuffer
	err := writeFrame(&b, header{Type: typeResult, ID: id}, make([]byte, n))
	return b[:len(b)-n], err
}

type frameBuffer []byte

func (b *frameBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

func suiteStart(mode string, change func(*Options)) func(*testing.T) backend.Handler {
	return func(t *testing.T) backend.Handler {
		o, _ := options(mode)
		o.MaxBody = suiteBody
		if change != nil {
			change(&o)
		}
		return New(o)
	}
}

func TestConformance(t *testing.T) {
	soon := func(o *Options) { o.ReadyTimeout = 300 * time.Millisecond }
	const failed = messages.CodeBackendFailed
	backendtest.Run(t, backendtest.Kind{
		Start: suiteStart("suite", nil), Limit: suiteBody, SeesCancel: true, KeepsPlaces: true,
		Faults: []backendtest.Fault{
			{Name: "crash", Body: "die", Code: failed, Text: "exit status 7; its last line on standard error: CUDA error", Dies: "CUDA error"},
			{Name: "garbage", Body: "garbage", Code: failed, Text: "its output is not a frame", Dies: "not a frame"},
			{Name: "cut", Body: "cut", Code: failed, Text: "its output ends inside a body of 100 bytes", Dies: "ends inside a body"},
			{Name: "large", Body: "large", Code: messages.CodePayloadTooLarge, Text: "has a body of 8388609 bytes, allowed are 8388608; send a reference instead, or raise MaxBody"},
		},
		Unready: []backendtest.Unready{
			{Name: "never", Code: failed, Text: "sent no ready frame within 300ms", Start: suiteStart("never-ready", soon)},
			{Name: "dies", Code: failed, Text: "ended before it was ready", Start: suiteStart("dies-loading", nil)},
			{Name: "no program", Code: failed, Text: "cannot start /no/such/program", Start: suiteStart("suite", func(o *Options) { o.Command = []string{"/no/such/program"} })},
		},
		Late: func(t *testing.T) (backend.Handler, func()) {
			file := t.TempDir() + "/ready"
			h := suiteStart("suite", func(o *Options) { o.Env = append(o.Env, "FLEETBUS_SUITE_READY="+file) })(t)
			return h, func() {
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Error(err)
				}
			}
		},
	})
}
