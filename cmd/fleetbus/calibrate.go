package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent/monitor"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

func calibrateCmd(a *app) *cobra.Command {
	var took time.Duration
	var command string
	var dry bool
	cmd := &cobra.Command{
		Use:   "calibrate",
		Short: "Measure the compute of this machine, for agents that are not told it",
		Long: `Measure the compute of this machine and keep it, for agents here that are started without
--compute. The measurement is of plain loops on all cores that may be used: machines measured
so can be compared, and a library that uses vectors does several times as much. So state the
work of your tasks in the same measure, or measure with what you run: --command COMMAND runs a
program of yours, on a GPU for example, whose last line says what it reached, like 41TFLOPS.

Do it while nothing else runs. The configuration of an agent (--compute) wins over it.`,
		Example: `  fleetbus agent calibrate
  fleetbus agent calibrate --command 'python3 gemm.py' --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if took < 100*time.Millisecond || took > time.Hour {
				return usagef("--for: found %v, allowed are 100ms to 1h", took)
			}
			source := monitor.NewMachine("")
			defer source.Close()
			found, err := source.Detect(cmd.Context())
			if err != nil {
				return messages.Errorf(messages.CodeUnavailable, "this machine cannot be read: %v", err)
			}
			c := calibration{model: found.Model, cores: found.Cores}
			if command != "" {
				c.compute, err = commandCompute(cmd.Context(), command, commandTime)
			} else {
				c.compute, err = monitor.Calibrate(cmd.Context(), found.Cores, took)
			}
			if err != nil {
				return err
			}
			path, err := calibrationFile()
			if err != nil {
				return err
			}
			if !dry {
				if err := c.write(path, time.Now()); err != nil {
					return messages.Errorf(messages.CodeUnavailable, "the calibration cannot be kept: %v; run it as the user that runs the agent, or say --compute %sTFLOPS", err, number(c.compute))
				}
			}
			if a.json {
				return a.printJSON(cmd, map[string]any{"compute": c.compute, "estimate": found.Capacity.Compute, "model": c.model, "cores": c.cores, "file": path, "written": !dry})
			}
			printf(cmd, "%sTFLOPS on %s cores of %s (estimated were %s)\n", number(c.compute), number(c.cores), c.model, number(found.Capacity.Compute))
			if dry {
				printf(cmd, "not written: --dry-run\n")
				return nil
			}
			printf(cmd, "written: %s; agents here that are started without --compute have it from their next start\n", path)
			return nil
		},
	}
	cmd.Flags().DurationVar(&took, "for", 5*time.Second, "how long to measure")
	cmd.Flags().StringVar(&command, "command", "", "run `COMMAND` instead; its last line is an amount like 41TFLOPS")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "measure, and write nothing")
	return cmd
}

// commandTime bounds a program that measures: libraries tune themselves for minutes, once.
const commandTime = 10 * time.Minute

// commandCompute is what a program of the user's says in its last line.
func commandCompute(ctx context.Context, line string, limit time.Duration) (float64, error) {
	words, err := splitWords(line)
	if err != nil {
		return 0, usagef("--command: %v", err)
	}
	running, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	child := exec.CommandContext(running, words[0], words[1:]...)
	var stderr bytes.Buffer
	child.Stderr = &stderr
	child.WaitDelay = time.Second
	out, err := child.Output()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if running.Err() != nil {
		return 0, messages.Errorf(messages.CodeBackendFailed, "--command %q did not end within %v and was killed; have it measure for less long", line, limit)
	}
	if err != nil {
		var exit *exec.ExitError
		said := strings.TrimSpace(stderr.String())
		if errors.As(err, &exit) && said != "" {
			err = fmt.Errorf("%w: %s", err, said[max(0, len(said)-300):])
		}
		return 0, messages.Errorf(messages.CodeBackendFailed, "--command %q failed: %v", line, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	v, err := fleetfile.Compute.Parse(last)
	if err != nil || !(v > 0) {
		return 0, messages.Errorf(messages.CodeBackendFailed, "--command %q: its last line is %q, expected an amount like 41TFLOPS", line, last[:min(len(last), 100)])
	}
	return v, nil
}
