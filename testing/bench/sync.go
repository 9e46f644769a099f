package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data"
)

// syncFlags are what `bench sync` is asked.
type syncFlags struct {
	environments, away int
	size               int64
	seed               uint64
	fault              string
	json               bool
}

// syncWithin bounds the whole of a run: 4 GB through one server, twice to disks.
const syncWithin = 10 * time.Minute

// syncName is the body that is synced.
const syncName = "policy"

// What a run must not exceed. A body of 200 MB is held in memory nowhere, so what a process
// grows by does not depend on it; the bytes that come twice are those of a question that was
// cut and of what was not saved, per environment that was killed.
const (
	syncGrowth = 64 << 20
	syncTwice  = 12 << 20
)

// syncBench syncs a body to environments in processes of their own, some of which are away:
// one half never was there when it is written, the other is killed in the midst of it.
func syncBench(args []string, out io.Writer) error {
	var f syncFlags
	flags := flag.NewFlagSet("sync", flag.ContinueOnError)
	flags.IntVar(&f.environments, "environments", 20, "environments, each a process")
	flags.IntVar(&f.away, "away", 5, "of them, that are away, and come back at the end")
	megabytes := flags.Int64("mb", 200, "size of the body, MB")
	flags.Uint64Var(&f.seed, "seed", 1, "of the body's bytes")
	flags.StringVar(&f.fault, "fault", "", "planted in one environment: lazy (acknowledges what it does not hold), rot (its file is damaged after it acknowledged)")
	flags.BoolVar(&f.json, "json", false, "one JSON object a line")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("sync: %q is no flag; it takes no files", flags.Arg(0))
	case f.environments < 1 || f.environments > 1000:
		return fmt.Errorf("sync: --environments is %d; allowed are 1 to 1000", f.environments)
	case f.away < 0 || f.away >= f.environments:
		return fmt.Errorf("sync: --away is %d; allowed are 0 to one less than the environments, %d", f.away, f.environments-1)
	case *megabytes < 1 || *megabytes > 100_000:
		return fmt.Errorf("sync: --mb is %d; allowed are 1 to 100000", *megabytes)
	case f.fault != "" && f.fault != "lazy" && f.fault != "rot":
		return fmt.Errorf("sync: --fault is %q; allowed are lazy, rot", f.fault)
	}
	f.size = *megabytes * 1_000_000
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	ctx, done := context.WithTimeout(ctx, syncWithin)
	defer done()
	s, err := newStage(ctx, 1, "")
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	list, err := s.sync(ctx, f)
	if err = s.close(err); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return printFigures(out, list, f.json)
}

// sync runs it and returns the figures; an error is also a result that is wrong.
func (s *stage) sync(ctx context.Context, f syncFlags) ([]figure, error) {
	file := filepath.Join(s.dir, "body")
	want, err := writeBody(file, f.size, f.seed)
	if err != nil {
		return nil, err
	}
	fleet, err := s.newSyncFleet(ctx, f)
	if err != nil {
		return nil, err
	}
	present, killed := fleet.members[:f.environments-f.away/2], fleet.members[f.environments-f.away:f.environments-f.away/2]
	for _, m := range present {
		if err := fleet.begin(ctx, m); err != nil {
			return nil, err
		}
	}
	idle := fleet.trips(ctx, time.Second)
	watch, unwatch := context.WithCancel(ctx)
	var busy []time.Duration
	var watching sync.WaitGroup
	defer watching.Wait()
	defer unwatch()
	watching.Go(func() { busy = fleet.trips(watch, 0) })

	begun := time.Now()
	body, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if _, err := fleet.store.Put(ctx, data.Body{Name: syncName, By: "bench"}, body); err != nil {
		return nil, err
	}
	uploaded := time.Since(begun)
	for _, m := range killed {
		if err := fleet.killInTransfer(ctx, m); err != nil {
			return nil, err
		}
	}
	if err := fleet.until(ctx, f.environments-f.away); err != nil {
		return nil, err
	}
	converged := time.Since(begun)
	if err := fleet.behind(ctx, f.away); err != nil {
		return nil, err
	}
	unwatch()
	watching.Wait()

	returned := time.Now()
	for _, m := range fleet.members[f.environments-f.away:] {
		if err := fleet.begin(ctx, m); err != nil {
			return nil, err
		}
	}
	if err := fleet.until(ctx, f.environments); err != nil {
		return nil, err
	}
	after := time.Since(returned)
	if err := fleet.check(want); err != nil {
		return nil, err
	}

	name := fmt.Sprintf("%dMB/%d/%daway", f.size/1_000_000, f.environments, f.away)
	var list []figure
	add := func(metric string, value float64, unit string, base float64) {
		list = append(list, newFigure("sync", name, metric, value, unit, base))
	}
	least := float64(f.size) * float64(f.environments)
	got, grown, server := fleet.received(), fleet.growth(), s.children[0].peak()
	add("upload", uploaded.Seconds(), "s", 0)
	add("converged_present", converged.Seconds(), "s", 0)
	add("rate_present", float64(f.size)*float64(f.environments-f.away)/converged.Seconds()/1e6, "MB/s", 0)
	if f.away > 0 {
		add("converged_after_return", after.Seconds(), "s", 0)
	}
	add("bytes_received", float64(got), "bytes", least)
	add("memory_growth_worst", float64(grown)/1e6, "MB", 0)
	add("memory_peak_server", float64(server)/1e6, "MB", 0)
	add("round_trip_p99_meanwhile", micros(percentile(busy, 0.99)), "us", micros(percentile(idle, 0.99)))
	add("round_trip_max_meanwhile", micros(percentile(busy, 1)), "us", 0)
	switch most := least + float64(len(killed))*syncTwice + 0.01*least; {
	case float64(got) > most:
		return list, fmt.Errorf("%d bytes were received, at least %.0f must be and at most %.0f may be", got, least, most)
	case float64(got) < least:
		return list, fmt.Errorf("%d bytes were received, fewer than the %.0f that the bodies have", got, least)
	case grown > syncGrowth:
		return list, fmt.Errorf("an environment grew by %d bytes, allowed are %d", grown, syncGrowth)
	}
	return list, nil
}

// writeBody writes random bytes and returns their digest.
func writeBody(path string, size int64, seed uint64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	var key [32]byte
	copy(key[:], strconv.FormatUint(seed, 10))
	_, err = io.CopyN(f, rand.NewChaCha8(key), size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	return fileDigest(path)
}
