package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/monitor"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"
)

// What --foreign-use may say beside a file.
const (
	foreignMeasured = "measured"
	foreignNone     = "none"
)

// machine is how an agent learns what its machine has and does: what nobody has said is
// detected, and of what is detected it is measured how much others use. Of an amount that somebody
// has written down nothing is measured unless that is asked for: the cores say nothing of
// the TFLOPS of a GPU, or of a simulation.
type machine struct {
	log      *slog.Logger
	detect   monitor.Which // nobody has said it
	measured monitor.Which // others' use of it
	latency  bool          // nobody has said it
	dir      string        // where the agent keeps its data
	outside  []string      // handlers that are served by others than children of the agent
}

// machineOf decides what is read. nil: nothing, for a machine that is made up does what it is
// told.
func (g *agentFlags) machineOf(flags *pflag.FlagSet, log *slog.Logger) *machine {
	if g.simulate && g.foreign != foreignMeasured {
		return nil
	}
	m := &machine{log: log, dir: g.dataDir, outside: g.backends.names()}
	if !g.simulate {
		said := func(name string) bool { return flags.Changed(name) }
		m.detect = monitor.Which{Compute: !said("compute"), Storage: !said("storage"), Network: !said("network")}
		m.latency = !said("latency")
	}
	switch g.foreign {
	case foreignMeasured:
		m.measured = monitor.Which{Compute: true, Storage: true, Network: true}
	case "":
		m.measured = m.detect
	}
	return m
}

// begin detects what is to be, and reads the machine until stop.
func (m *machine) begin(ctx context.Context, nc *nats.Conn, cfg *agent.Config) (stop func(), err error) {
	if m == nil {
		return func() {}, nil
	}
	source := monitor.NewMachine(m.dir)
	source.Reach(nc.ConnectedAddr())
	env := &cfg.Environment
	found, err := source.Detect(ctx)
	if err != nil {
		source.Close()
		if m.detect != (monitor.Which{}) {
			return nil, messages.Errorf(messages.CodeBadRequest, "what this machine has cannot be read (%v); say it with --compute, --storage and --network", err)
		}
		m.log.Warn("this machine cannot be read: heartbeats say nothing of it", "reason", oneLine(err))
		return func() {}, nil
	}
	if m.detect.Compute {
		env.Capacity.Compute = m.compute(found)
	}
	if m.detect.Storage {
		env.Capacity.Storage = found.Capacity.Storage
	}
	if m.detect.Network {
		if env.Capacity.Network = found.Capacity.Network; !found.Speed {
			m.log.Warn("the link to the server does not say what it carries; say it with --network", "taken_for", number(env.Capacity.Network)+"Mbps")
		}
	}
	if m.latency {
		cfg.MeasureLatency = true
		if rtt, err := nc.RTT(); err == nil {
			env.Latency = inMillis(rtt)
		}
	}
	if m.detect != (monitor.Which{}) {
		m.log.Info("what this machine has", "compute", number(env.Capacity.Compute)+"TFLOPS", "storage", number(env.Capacity.Storage)+"GB",
			"network", number(env.Capacity.Network)+"Mbps", "latency", millis(env.Latency))
	}
	cfg.Monitor = monitor.New(monitor.Config{Capacity: env.Capacity, Measured: m.measured, GPU: !m.detect.Compute, Logger: m.log}, source)
	cfg.Outside = m.outside
	// Until the agent is gone, not only until it is told to go: it beats while it drains.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var reading sync.WaitGroup
	reading.Go(func() { cfg.Monitor.Run(ctx) })
	return func() {
		cancel()
		reading.Wait()
		source.Close()
	}, nil
}

// compute is what was calibrated, where that was this machine, or else an estimate.
func (m *machine) compute(found monitor.Detected) float64 {
	path, err := calibrationFile()
	var c calibration
	if err == nil {
		c, err = readCalibration(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.log.Warn("the compute of this machine is estimated; `fleetbus agent calibrate` measures it, --compute says it", "estimate", number(found.Capacity.Compute)+"TFLOPS")
	case err != nil:
		m.log.Warn("the calibration cannot be read; the compute of this machine is estimated", "reason", oneLine(err))
	case c.model != found.Model || c.cores != found.Cores:
		m.log.Warn("the calibration is of another machine; `fleetbus agent calibrate` measures this one", "file", path,
			"found", c.model, "cores", c.cores, "here", found.Model, "cores_here", found.Cores)
	default:
		return c.compute
	}
	return found.Capacity.Compute
}

// calibration is what `fleetbus agent calibrate` has found.
type calibration struct {
	compute float64 // TFLOPS
	model   string  // of the processor
	cores   float64
}

var calibrationFields = []string{"compute", "model", "cores"}

// calibrationFile is where it is kept.
func calibrationFile() (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "machine.yaml"), nil
}

func readCalibration(path string) (c calibration, err error) {
	fields := pflag.NewFlagSet("", pflag.ContinueOnError)
	fields.Var(quantity(&c.compute, fleetfile.Compute), "compute", "")
	fields.StringVar(&c.model, "model", "", "")
	fields.Float64Var(&c.cores, "cores", 0, "")
	if err := loadFields("calibration", path, calibrationFields, fields); err != nil {
		return c, err
	}
	if !(c.compute > 0) {
		return c, messages.Errorf(messages.CodeBadRequest, "%s: compute: found %v, allowed is more than 0; run `fleetbus agent calibrate` again", path, c.compute)
	}
	return c, nil
}

// write replaces the file as a whole: an agent may be about to read it.
func (c calibration) write(path string, now time.Time) error {
	text := fmt.Sprintf("# Written by `fleetbus agent calibrate` at %s. Remove it to go back to an estimate.\ncompute: %sTFLOPS\nmodel: %q\ncores: %v\n",
		now.UTC().Format(time.RFC3339), number(c.compute), c.model, c.cores)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
