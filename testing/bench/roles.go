package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/pprof"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// benchFleet is the name of the fleets of the benchmarks.
const benchFleet = "bench"

// serverReady is how long a server may take to start.
const serverReady = 20 * time.Second

// serverRole is a NATS server with JetStream on a free port. Orders: none; the answer is
// what it has used.
func serverRole(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	dir := flags.String("dir", "", "where streams are kept")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, err := embed.New(embed.Options{Name: "bench", Port: embed.RandomPort, StoreDir: *dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), serverReady)
	defer cancel()
	defer s.Stop()
	if err := errors.Join(s.Start(), s.Ready(ctx)); err != nil {
		return err
	}
	if err := tell(out, s.ClientURL()); err != nil {
		return err
	}
	return orders(in, out, func(string) (any, error) { return usedSoFar() })
}

// coordinatorStats is what a coordinator tells of itself.
type coordinatorStats struct {
	usage
	Beats     uint64 `json:"beats"`
	Malformed int    `json:"malformed"`
}

// coordinatorRole is a coordinator as `fleetbus coordinator` runs one. Order: anything; the
// answer is coordinatorStats.
func coordinatorRole(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("coordinator", flag.ContinueOnError)
	url := flags.String("url", "", "the server's")
	id := flags.String("id", "", "its name")
	profile := flags.String("profile", "", "write a CPU profile there")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	nc, err := bus.Connect(*url, "bench coordinator")
	if err != nil {
		return err
	}
	defer nc.Close()
	c := coordinator.New(nc, coordinator.Config{Fleet: benchFleet, ID: *id, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	if err := tell(out, "runs"); err != nil {
		cancel()
		return errors.Join(err, <-ended)
	}
	err = orders(in, out, func(string) (any, error) {
		stats, used := c.Stats(), coordinatorStats{}
		var err error
		used.usage, err = usedSoFar()
		used.Beats = stats.Beats
		for _, n := range stats.Malformed {
			used.Malformed += n
		}
		return used, err
	})
	cancel()
	return errors.Join(err, <-ended)
}

// awaitLeader waits until the coordinator leads.
func awaitLeader(ctx context.Context, b *bus.Bus) error {
	for {
		_, err := coordinator.ReadState(ctx, b)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no coordinator leads: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
