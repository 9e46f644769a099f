package main

import (
	"errors"
	"fmt"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/internal/planreport"
	"github.com/spf13/cobra"
)

// planCmd plans a fleet file offline. That something waits is an answer, not a failure:
// the exit status is 0.
func planCmd() *cobra.Command {
	var path string
	var explain, set []string
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Plan a fleet file offline: matrix, plan, what waits and what would help",
		Long: `Plan a fleet file without a server or agents: what every task would take and cost on
every environment, who runs where, what waits and the smallest change that would place
it, the use of every environment, the totals with a certified bound, and the comparison
with the baselines that the file names.`,
		Example: `  fleetbus plan -f configs/smart-factory.yaml
  fleetbus plan -f configs/three-tiers.yaml --set resource_reserve_ratio=0.1
  fleetbus plan -f configs/three-tiers.yaml --explain inference --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("-f: no file given; `fleetbus plan -f configs/smart-factory.yaml` shows one")
			}
			file, err := fleetfile.Load(path)
			if err != nil {
				return fileError(cmd, err)
			}
			settings := file.Planning()
			for _, s := range set {
				if err := planreport.Set(&settings, s); err != nil {
					return usageError{fmt.Errorf("--set: %w", err)}
				}
			}
			file.Settings = &settings
			report, err := planreport.Build(file, explain...)
			if err != nil {
				return usageError{err}
			}
			if json, _ := cmd.Flags().GetBool("json"); json {
				return new(app).printJSON(cmd, report)
			}
			return writing(report.Write(cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVarP(&path, "file", "f", "", "fleet `FILE`")
	cmd.Flags().StringArrayVar(&explain, "explain", nil, "say of every environment why this `TASK` or replica is there or not (may be repeated)")
	cmd.Flags().StringArrayVar(&set, "set", nil, "plan with another `NAME=VALUE` of preset, weight_latency, weight_cost, resource_reserve_ratio, mode (may be repeated)")
	return cmd
}

// fileError prints every error of a fleet file on a line of its own; one line would hide
// all but the first.
func fileError(cmd *cobra.Command, err error) error {
	var all fleetfile.Errors
	if !errors.As(err, &all) || len(all) < 2 {
		return usageError{err}
	}
	for _, e := range all {
		notef(cmd, "fleetbus: %v\n", e)
	}
	return usageError{silentError{}}
}
