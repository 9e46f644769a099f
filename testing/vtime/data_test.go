package vtime_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// Drift is found by the next look, a minute at most, with no word from anybody; how long an
// environment has been behind is told to the second, for days.
func TestDataAreLookedAtUnasked(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		env := messages.Environment{ID: "r1", Tier: messages.Robot}.Normal()
		agents := must[bus.KV](t)(b.KV(within(t, time.Minute), bus.Agents))
		registration := must[[]byte](t)(messages.Encode(&messages.Registration{Environment: env}))
		must[uint64](t)(agents.Put(within(t, time.Minute), "r1", registration))
		store := data.NewStore(b)
		must[data.Record](t)(store.Put(within(t, time.Minute), data.Body{Name: "map"}, strings.NewReader("walls")))
		pass(50 * time.Hour)
		_, lines, err := store.Status(within(t, time.Minute))
		check(t, err)
		if len(lines) != 1 || lines[0].State != "waiting" || lines[0].Behind < 50*time.Hour || lines[0].Behind > 50*time.Hour+time.Minute {
			t.Errorf("%+v", lines)
		}
		dir := t.TempDir()
		h := data.NewHolder(s.Connect(t), data.HolderConfig{Fleet: fleet, Environment: env, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		defer func() {
			cancel()
			check(t, <-ended)
		}()
		pass(5 * time.Second)
		file := filepath.Join(dir, "map")
		want := func(after time.Duration, what string) {
			t.Helper()
			pass(after)
			if text, err := os.ReadFile(file); string(text) != "walls" {
				t.Errorf("%s: %q %v", what, text, err)
			}
		}
		want(0, "when it came back")
		for what, harm := range map[string]func() error{
			"deleted": func() error { return os.Remove(file) },
			"changed": func() error { return os.WriteFile(file, []byte("doors"), 0o600) },
		} {
			check(t, harm())
			want(data.DefaultEvery+time.Second, what)
		}
	})
}
