package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"go.uber.org/goleak"
)

// patience bounds every wait. It is far above what anything takes, so that only a defect
// reaches it, also on a machine that runs other tests.
const patience = 30 * time.Second

// slots is how many requests the suite has under way at once.
const slots = 3

// Kind is one kind of backend, as the suite sees it.
type Kind struct {
	// Start starts whatever serves, with a Model in it, and returns a handler for it. What
	// it starts ends with the test.
	Start func(t *testing.T) backend.Handler

	// Limit is the largest body that it passes on, bytes; larger ones must be refused. 0: it
	// has no limit of its own, and the suite asks with up to 8 MiB.
	Limit int

	// SeesCancel says that its protocol can tell a model that nobody waits any more.
	SeesCancel bool
	// KeepsPlaces says that a request that was given up on keeps its place until the model
	// has answered it, so that no more than the slots are ever with the model.
	KeepsPlaces bool
	// Fixed says that its model is not a Model: it cannot fail, hold or count.
	Fixed bool

	Faults  []Fault   // what can go wrong while it serves
	Unready []Unready // what can go wrong before
	// Late starts something that becomes ready when ready is called; nil: it always is.
	Late func(t *testing.T) (h backend.Handler, ready func())
}

// Fault is one thing that goes wrong while a request is served.
type Fault struct {
	Name  string
	Start func(t *testing.T) backend.Handler // nil: Kind.Start
	Body  string                             // that does it
	Code  messages.Code
	Text  string // in the error that the caller sees
	Dies  string // in the reason of the death of the server; "": it lives, and serves the next request
}

// Unready is a backend that does not get ready.
type Unready struct {
	Name  string
	Start func(t *testing.T) backend.Handler
	Code  messages.Code
	Text  string
	Notes string // in what Open says meanwhile
}

// Run runs the suite.
func Run(t *testing.T, k Kind) {
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			// The first cleanup is the last to run: after Close, and after the stand-in's own.
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			f(t)
		})
	}
	run("bytes", k.bytes)
	run("too large", k.tooLarge)
	if !k.Fixed {
		run("slots", k.slots)
		run("deadline", k.deadline)
		run("cancel", k.cancel)
		run("fails", k.fails)
	}
	run("several", k.several)
	for _, f := range k.Faults {
		run("fault "+f.Name, func(t *testing.T) { k.fault(t, f) })
	}
	for _, u := range k.Unready {
		run("unready "+u.Name, u.check)
	}
	if len(k.Unready) > 0 {
		run("open canceled", k.openCanceled)
	}
	if k.Late != nil {
		run("late", k.late)
	}
}

// task is the task of the suite.
func task() messages.Task {
	return messages.Task{Name: "suite", Class: messages.Inference, Concurrency: slots}
}

func opening(loading func(string)) backend.Open {
	return backend.Open{Replica: "suite/0", Task: task(), Environment: messages.Environment{ID: "edge", Tier: messages.Edge}, Loading: loading}
}

// Open opens a handler for the task of the suite; it is closed with the test.
func Open(t *testing.T, h backend.Handler) backend.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := h.Open(ctx, opening(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Request is a request of the suite.
func Request(body []byte) *backend.Request {
	return &backend.Request{
		Request: messages.Request{ID: "id", Task: "suite", Class: messages.Inference, Origin: "robot", Attempt: 1, ContentType: "application/x-suite"},
		Body:    body, Progress: func(float64, string) {}, Partial: func([]byte, string) error { return nil },
	}
}

// Ask asks once, with patience.
func Ask(t *testing.T, s backend.Server, body []byte) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.Serve(ctx, Request(body))
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("no answer within %v", patience)
	}
	return r.Body, err
}

// WantError checks the code of an error and a part of its text.
func WantError(t *testing.T, err error, code messages.Code, text string) {
	t.Helper()
	if messages.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%v; want %s with %q", err, code, text)
	}
}

// serves checks that all slots serve.
func serves(t *testing.T, s backend.Server) {
	t.Helper()
	var all sync.WaitGroup
	for i := range slots {
		all.Go(func() {
			body := fmt.Appendf(nil, "echo %d", i)
			if got, err := Ask(t, s, body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%q came back as %q, %v", body, got, err)
			}
		})
	}
	all.Wait()
}

// Sizes are sizes of bodies up to a limit: its ends, and some at random.
func Sizes(limit int, dice *rand.Rand) []int {
	list := []int{0, 1, 2, 125, 126, 127, 4095, 4096, 65535, 65536, 301_436, limit - 1, limit}
	for range 8 {
		list = append(list, dice.IntN(limit+1))
	}
	return slices.DeleteFunc(list, func(n int) bool { return n > limit })
}

// Random are n bytes that look like nothing.
func Random(n int, dice *rand.Rand) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(dice.Uint32())
	}
	return b
}

// mostBody is the largest body of the suite where a kind has no limit: as large as NATS
// ever carries.
const mostBody = 8 << 20

func (k Kind) bytes(t *testing.T) {
	s := Open(t, k.Start(t))
	limit := mostBody
	if k.Limit > 0 {
		limit = k.Limit
	}
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 0))
	for _, n := range Sizes(limit, dice) {
		body := Random(n, dice)
		sent := bytes.Clone(body)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		resp, err := s.Serve(ctx, Request(body))
		cancel()
		if err != nil || !bytes.Equal(resp.Body, sent) {
			t.Fatalf("seed %d: %d bytes came back as %d others: %v", seed, n, len(resp.Body), err)
		}
		if c := resp.ContentType; c != "" && c != Request(nil).ContentType {
			t.Fatalf("content type %q came back as %q", Request(nil).ContentType, c)
		}
		if !bytes.Equal(body, sent) {
			t.Fatalf("seed %d: the body of the request was changed", seed)
		}
	}
}

func (k Kind) tooLarge(t *testing.T) {
	if k.Limit == 0 {
		return
	}
	s := Open(t, k.Start(t))
	_, err := Ask(t, s, make([]byte, k.Limit+1))
	for _, text := range []string{strconv.Itoa(k.Limit), strconv.Itoa(k.Limit + 1), "raise"} {
		WantError(t, err, messages.CodePayloadTooLarge, text)
	}
	serves(t, s)
}

// holding begins n requests that the model holds, and returns what lets them go.
func holding(t *testing.T, s backend.Server, n int) (release func(), errs <-chan error) {
	file := filepath.Join(t.TempDir(), "release")
	done := make(chan error, n)
	for range n {
		go func() {
			_, err := Ask(t, s, Hold(file))
			done <- err
		}()
	}
	return func() {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
	}, done
}

// until asks the model for a number until it is at least n.
func until(t *testing.T, s backend.Server, what string, n int) {
	t.Helper()
	over := time.Now().Add(patience)
	for {
		got, err := Ask(t, s, []byte(what))
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := strconv.Atoi(string(got)); v >= n {
			return
		}
		if time.Now().After(over) {
			t.Fatalf("%s is %s, want %d", what, got, n)
		}
	}
}

func (k Kind) slots(t *testing.T) {
	s := Open(t, k.Start(t))
	release, errs := holding(t, s, slots-1)
	until(t, s, Peak, slots)
	release()
	for range slots - 1 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	serves(t, s)
}

// giveUp begins requests that the model holds, all slots of them, ends their context, and
// checks how they end.
func (k Kind) giveUp(ctx context.Context, t *testing.T, s backend.Server, end func(), want error) (release func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "release")
	errs := make(chan error, slots)
	for range slots {
		go func() {
			_, err := s.Serve(ctx, Request(Hold(file)))
			errs <- err
		}()
	}
	end()
	for range slots {
		select {
		case err := <-errs:
			if !errors.Is(err, want) {
				t.Errorf("ended with %v, want %v", err, want)
			}
		case <-time.After(patience):
			t.Fatal("a request outlives its context")
		}
	}
	return func() {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
}

func (k Kind) deadline(t *testing.T) {
	s := Open(t, k.Start(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	release := k.giveUp(ctx, t, s, func() {}, context.DeadlineExceeded)
	if k.KeepsPlaces && !k.SeesCancel { // nobody told the model, so it is still at them
		short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		if _, err := s.Serve(short, Request(nil)); err == nil {
			t.Error("a request was begun behind others that the model is still at")
		}
	}
	release()
	k.recovers(t, s)
	if k.KeepsPlaces {
		got, err := Ask(t, s, []byte(Peak))
		if n, _ := strconv.Atoi(string(got)); err != nil || n > slots {
			t.Errorf("%d requests were at the model at once, allowed are %d; %v", n, slots, err)
		}
	}
}

// recovers checks that all slots serve again; where places are kept until the model has
// answered, a request may find them taken for a moment.
func (k Kind) recovers(t *testing.T, s backend.Server) {
	t.Helper()
	over := time.Now().Add(patience)
	for {
		_, err := Ask(t, s, []byte("x"))
		if err == nil {
			break
		}
		if !k.KeepsPlaces || time.Now().After(over) {
			t.Fatal(err)
		}
		<-time.After(time.Millisecond)
	}
	over = time.Now().Add(patience)
	for range slots {
		for {
			if _, err := Ask(t, s, []byte("y")); err == nil {
				break
			} else if time.Now().After(over) {
				t.Fatal(err)
			}
		}
	}
}

func (k Kind) cancel(t *testing.T) {
	s := Open(t, k.Start(t))
	ctx, cancel := context.WithCancel(t.Context())
	release := k.giveUp(ctx, t, s, cancel, context.Canceled)
	defer release()
	// The cancel may have come before the model saw the request; a second one does not.
	again, stop := context.WithCancel(t.Context())
	defer stop()
	if !k.SeesCancel {
		return
	}
	file := filepath.Join(t.TempDir(), "never")
	ended := make(chan error, 1)
	go func() {
		_, err := s.Serve(again, Request(Hold(file)))
		ended <- err
	}()
	until(t, s, Peak, 2)
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	until(t, s, Canceled, 1)
	k.recovers(t, s)
}

func (k Kind) fails(t *testing.T) {
	s := Open(t, k.Start(t))
	for range slots + 1 { // an error takes no slot with it
		_, err := Ask(t, s, []byte(Fail))
		WantError(t, err, messages.CodeBackendFailed, FailText)
	}
	serves(t, s)
}
