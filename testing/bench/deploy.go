package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/internal/artifact"
)

// deployFlags are what `bench deploy` is asked.
type deployFlags struct {
	agents int
	size   int64
	seed   uint64
	fault  string
	json   bool
}

// The faults that can be planted in the first agent: its model damages its artifact, or it
// has no guard, so that what a command has started itself outlives it.
const (
	faultRot    = "rot"
	faultOrphan = "orphan"
)

// What a run must not exceed. Artifacts are held in memory nowhere; what comes twice is a
// question that was cut and what was not saved, of the one that was killed; and whoever
// starts an agent again wants its ports and its memory soon.
const (
	deployGrowth = 64 << 20
	deployTwice  = 12 << 20
	orphanWithin = 5 * time.Second
)

// deployBench brings an artifact to agents in processes of their own, kills one of them in
// the midst of it, and all of them when their models serve.
func deployBench(args []string, out io.Writer) error {
	var f deployFlags
	flags := flag.NewFlagSet("deploy", flag.ContinueOnError)
	flags.IntVar(&f.agents, "agents", 5, "agents, each a process; the first is killed in the midst of its download, and started again")
	megabytes := flags.Int64("mb", 200, "size of the artifact, MB")
	flags.Uint64Var(&f.seed, "seed", 1, "of the artifact's bytes")
	flags.StringVar(&f.fault, "fault", "", "planted in the first agent: rot (its artifact is damaged), orphan (it has no guard)")
	flags.BoolVar(&f.json, "json", false, "one JSON object a line")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("deploy: %q is no flag; it takes no files", flags.Arg(0))
	case f.agents < 1 || f.agents > 100:
		return fmt.Errorf("deploy: --agents is %d; allowed are 1 to 100", f.agents)
	case *megabytes < 1 || *megabytes > 100_000:
		return fmt.Errorf("deploy: --mb is %d; allowed are 1 to 100000", *megabytes)
	case f.fault != "" && f.fault != faultRot && f.fault != faultOrphan:
		return fmt.Errorf("deploy: --fault is %q; allowed are %s, %s", f.fault, faultRot, faultOrphan)
	}
	f.size = *megabytes * 1_000_000
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	ctx, done := context.WithTimeout(ctx, syncWithin)
	defer done()
	s, err := newStage(ctx, 1, "")
	if err != nil {
		return fmt.Errorf("deploy: %w", err)
	}
	list, err := s.deploy(ctx, f)
	if err = s.close(err); err != nil {
		return fmt.Errorf("deploy: %w", err)
	}
	return printFigures(out, list, f.json)
}

// deploy runs it and returns the figures; an error is also a result that is wrong.
func (s *stage) deploy(ctx context.Context, f deployFlags) ([]figure, error) {
	file := filepath.Join(s.dir, "artifact")
	want, err := writeBody(file, f.size, f.seed)
	if err != nil {
		return nil, err
	}
	body, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	begun := time.Now()
	a, _, err := artifact.Push(ctx, s.bus, "bench", "bench", body, nil)
	if err != nil {
		return nil, err
	}
	pushed := time.Since(begun)
	if a.Digest != want {
		return nil, fmt.Errorf("the store says that it has %s, and was given %s", a.Digest, want)
	}
	fleet := s.newDeployFleet(f, want)
	defer fleet.end()

	begun = time.Now()
	for _, m := range fleet.members {
		if err := fleet.begin(ctx, m); err != nil {
			return nil, err
		}
	}
	share, err := fleet.killInFetch(ctx, fleet.members[0])
	if err != nil {
		return nil, err
	}
	if err := fleet.begin(ctx, fleet.members[0]); err != nil {
		return nil, err
	}
	if err := fleet.ready(ctx); err != nil {
		return nil, err
	}
	deployed := time.Since(begun)
	if err := fleet.check(); err != nil {
		return nil, err
	}
	grown, server := fleet.growth(), s.children[0].peak()
	got, err := fleet.killAll(ctx)
	if err != nil {
		return nil, err
	}

	name := fmt.Sprintf("%dMB/%dagents", f.size/1_000_000, f.agents)
	least := float64(f.size) * float64(f.agents)
	var list []figure
	add := func(metric string, value float64, unit string, base float64) {
		list = append(list, newFigure("deploy", name, metric, value, unit, base))
	}
	add("push", pushed.Seconds(), "s", 0)
	add("all_ready", deployed.Seconds(), "s", 0)
	add("rate", least/deployed.Seconds()/1e6, "MB/s", 0)
	add("interrupted_at", 100*share, "percent", 0)
	add("verified", float64(f.agents), "agents", float64(f.agents))
	add("progress_shown", float64(fleet.shown()), "agents", float64(f.agents))
	add("bytes_received", float64(fleet.received), "bytes", least)
	add("memory_growth_worst", float64(grown)/1e6, "MB", 0)
	add("memory_peak_server", float64(server)/1e6, "MB", 0)
	add("killed_processes", float64(fleet.processes), "", 0)
	add("children_gone_p50", micros(percentile(got, 0.5))/1000, "ms", 0)
	add("children_gone_max", micros(percentile(got, 1))/1000, "ms", 0)
	switch most := least + deployTwice + 0.02*least; {
	case float64(fleet.received) > most:
		return list, fmt.Errorf("%d bytes were received, at least %.0f must be and at most %.0f may be", fleet.received, least, most)
	case grown > deployGrowth:
		return list, fmt.Errorf("an agent grew by %d bytes, allowed are %d", grown, deployGrowth)
	}
	return list, nil
}
