package backendtest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// several: one handler serves several replicas, one after the other and at once.
func (k Kind) several(t *testing.T) {
	h := k.Start(t)
	first := Open(t, h)
	second, err := h.Open(t.Context(), opening(nil))
	if err != nil {
		t.Fatal(err)
	}
	serves(t, second)
	serves(t, first)
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	serves(t, first)
}

func (k Kind) fault(t *testing.T, f Fault) {
	start := f.Start
	if start == nil {
		start = k.Start
	}
	h := start(t)
	s := Open(t, h)
	_, err := Ask(t, s, []byte(f.Body))
	WantError(t, err, f.Code, f.Text)
	if f.Dies == "" {
		serves(t, s)
		return
	}
	mortal, ok := s.(backend.Dying)
	if !ok {
		t.Fatal("it has died and cannot say so")
	}
	select {
	case <-mortal.Done():
	case <-time.After(patience):
		t.Fatal("its death was not noticed")
	}
	if err := mortal.Err(); err == nil || !strings.Contains(err.Error(), f.Dies) {
		t.Errorf("it died of %v, want %q", err, f.Dies)
	}
	_, err = Ask(t, s, []byte("x"))
	WantError(t, err, messages.CodeBackendFailed, "")
}

func (u Unready) check(t *testing.T) {
	var mu sync.Mutex
	var notes []string
	s, err := u.Start(t).Open(t.Context(), opening(func(note string) {
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, note)
	}))
	if err == nil {
		_ = s.Close() // the failure is another one
		t.Fatal("it was opened")
	}
	WantError(t, err, u.Code, u.Text)
	if said := strings.Join(notes, "\n"); !strings.Contains(said, u.Notes) {
		t.Errorf("it said %q meanwhile, want %q", said, u.Notes)
	}
}

func (k Kind) openCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Millisecond, cancel)
	s, err := k.Unready[0].Start(t).Open(ctx, opening(nil))
	if err == nil {
		err = s.Close()
	}
	// It may have failed by itself before.
	if !errors.Is(err, context.Canceled) && messages.CodeOf(err) != k.Unready[0].Code {
		t.Error(err)
	}
}

func (k Kind) late(t *testing.T) {
	h, ready := k.Late(t)
	waits := make(chan string, 1000)
	opened := make(chan error, 1)
	go func() {
		s, err := h.Open(t.Context(), opening(func(note string) {
			select {
			case waits <- note:
			default:
			}
		}))
		if err == nil {
			serves(t, s)
			err = s.Close()
		}
		opened <- err
	}()
	select {
	case note := <-waits:
		if note == "" {
			t.Error("an empty note")
		}
	case err := <-opened:
		t.Fatalf("opened before it was ready: %v", err)
	case <-time.After(patience):
		t.Fatal("it does not say that it waits")
	}
	ready()
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
