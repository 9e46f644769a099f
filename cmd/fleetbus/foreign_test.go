package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// What a file says holds until it says something else that is right, and what is wrong
// with it is said once.
func TestForeignUse(t *testing.T) {
	var said bytes.Buffer
	f := &foreignUse{path: filepath.Join(t.TempDir(), "use.yaml"), log: slog.New(slog.NewTextHandler(&said, nil))}
	if err := f.read(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--foreign-use") {
		t.Errorf("a file that is not there yet: %v", err)
	}
	for _, step := range []struct {
		text string // "" takes the file away
		want messages.Resources
		says string // "": nothing
	}{
		{"compute: 0.04PFLOPS\nnetwork: 10\n", messages.Resources{Compute: 40, Network: 10}, ""},
		{"storage: 1TB", messages.Resources{Storage: 1000}, ""},
		{"storage: 1TP", messages.Resources{Storage: 1000}, `use.yaml:1: storage: found \"1TP\"`},
		{"storage: 1TP", messages.Resources{Storage: 1000}, ""},
		{"storage: -1", messages.Resources{Storage: 1000}, "allowed is 0 GB or more"},
		{"compute: 1\nmemory: 3", messages.Resources{Storage: 1000}, "unknown field; allowed are compute, storage, network"},
		{"", messages.Resources{Storage: 1000}, "no such file"},
		{"", messages.Resources{Storage: 1000}, ""},
		{"{}", messages.Resources{}, "known again"},
		{" \n", messages.Resources{}, "it is empty"},
		{"compute: 8", messages.Resources{Compute: 8}, "known again"},
	} {
		if step.text == "" {
			_ = os.Remove(f.path) // it may be gone already
		} else {
			write(t, f.path, step.text)
		}
		said.Reset()
		f.look()
		if got := f.use(); got != step.want {
			t.Errorf("%q: %+v, want %+v", step.text, got, step.want)
		}
		if text := said.String(); (text == "") != (step.says == "") || !strings.Contains(text, step.says) {
			t.Errorf("%q: it said %q, want %q", step.text, text, step.says)
		}
	}
}

// The file is read when the agent begins, and is nobody's business without the flag.
func TestWatchForeign(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "use.yaml")
	use, stop, err := watchForeign(t.Context(), "", log)
	if use != nil || err != nil {
		t.Errorf("without a file: %v", err)
	}
	stop()
	ended, cancel := context.WithCancel(t.Context())
	cancel() // it goes on while the agent drains
	use, stop, err = watchForeign(ended, path, log)
	if err != nil {
		t.Fatalf("a file that is not there yet: %v", err)
	}
	if got := use(); got != (messages.Resources{}) {
		t.Errorf("before the file is there: %+v", got)
	}
	stop()
	write(t, path, "compute: 3")
	use, stop, err = watchForeign(ended, path, log)
	if err != nil {
		t.Fatal(err)
	}
	if got := use(); got.Compute != 3 {
		t.Errorf("got %+v", got)
	}
	stop()
	write(t, path, "compute: much")
	if _, _, err := watchForeign(ended, path, log); err == nil || !strings.Contains(err.Error(), "use.yaml:1: compute") {
		t.Errorf("a file that is wrong: %v", err)
	}
}

// Others are named in the table where there are any.
func TestTaken(t *testing.T) {
	if got := taken(60, 0, 100); got != "60/100" {
		t.Error(got)
	}
	if got := taken(60, 40, 100); got != "60/100 (others 40)" {
		t.Error(got)
	}
}
