package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/internal/planreport"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

// planCmd plans a fleet file offline. That something waits is an answer, not a failure:
// the exit status is 0.
func planCmd(a *app) *cobra.Command {
	var path string
	var explain, set, compare []string
	var pareto, preset string
	var live bool
	cmd := &cobra.Command{
		Use:   "plan -f FILE | --live",
		Short: "Plan a fleet file offline, or the fleet as it is: matrix, plan, what waits and what would help",
		Long: `Plan a fleet file without a server or agents: what every task would take and cost on
every environment, who runs where and how near to its limit, what waits and the smallest
change that would place it, the use of every environment, the totals with a certified
bound, and the comparison with the baselines that the file names.

--live plans the fleet that runs, with what its agents have measured: what others use, and in mode
adaptive what requests take. It says what the measured delays are made of, and where the
fleet stands otherwise than this plan, which is made from nothing and knows no cost of a move.

--explain says of every environment why a task is there, which constraint keeps it off,
or how much more score it would be. A score weighs delay and cost by the weights of the
file, --preset or --set; lower is better.`,
		Example: `  fleetbus plan -f configs/smart-factory.yaml
  fleetbus plan -f configs/three-tiers.yaml --set resource_reserve_ratio=0.1
  fleetbus plan -f configs/three-tiers.yaml --explain inference --json
  fleetbus plan -f configs/fleet.yaml --preset realtime --set mode=adaptive
  fleetbus plan -f configs/smart-factory.yaml --compare all-cloud,all-edge,hybrid
  fleetbus plan -f configs/smart-factory.yaml --pareto
  fleetbus plan --live --set mode=adaptive`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if live == (path != "") {
				if live {
					return usagef("--live: it plans the fleet that runs, and -f %s is a file; give one of them", path)
				}
				return usagef("-f: no file given; `fleetbus plan -f configs/smart-factory.yaml` shows one")
			}
			if pareto != "" && (explain != nil || compare != nil) {
				return usagef("--pareto: it makes many plans, and --explain and --compare speak of one; leave them out")
			}
			var file *fleetfile.File
			var now *liveFleet
			var err error
			if live {
				if now, err = a.liveFleet(cmd); err != nil {
					return err
				}
				file = now.file
			} else if file, err = fleetfile.Load(path); err != nil {
				return fileError(cmd, err)
			}
			settings := file.Planning()
			if preset != "" { // before --set, which says more
				if err := planreport.Set(&settings, "preset="+preset); err != nil {
					return usageError{fmt.Errorf("--%w", err)}
				}
			}
			for _, s := range set {
				if err := planreport.Set(&settings, s); err != nil {
					return usageError{fmt.Errorf("--set: %w", err)}
				}
			}
			file.Settings = &settings
			if compare != nil {
				if file.Baselines, err = planreport.Compare(file, compare); err != nil {
					return usageError{fmt.Errorf("--compare: %w", err)}
				}
			}
			if pareto != "" {
				return writeFrontier(cmd, file, pareto)
			}
			report, err := planreport.Build(file, explain...)
			if err != nil {
				return usageError{err}
			}
			if now != nil {
				return now.print(cmd, report)
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				return new(app).printJSON(cmd, report)
			}
			return writing(report.Write(cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVarP(&path, "file", "f", "", "fleet `FILE`")
	cmd.Flags().BoolVar(&live, "live", false, "plan the fleet that runs")
	cmd.Flags().StringArrayVar(&explain, "explain", nil, "say of every environment why this `TASK` or replica is there or not (may be repeated)")
	cmd.Flags().StringVar(&preset, "preset", "", "plan with the weights and the reserve of `PRESET` realtime, balanced or cost instead of the file's")
	cmd.Flags().StringArrayVar(&set, "set", nil, "plan with another `NAME=VALUE` of preset, weight_latency, weight_cost, resource_reserve_ratio, mode (may be repeated)")
	cmd.Flags().StringSliceVar(&compare, "compare", nil, "compare with `NAMES` of all-cloud, all-edge, all-robot, hybrid (this plan) and the file's baselines, instead of the file's baselines")
	cmd.Flags().StringVar(&pareto, "pareto", "", "sweep the weights and write what can be had, delay against cost, to `PREFIX`.svg and PREFIX.json")
	cmd.Flags().Lookup("pareto").NoOptDefVal = "pareto"
	return cmd
}

// writeFrontier writes the frontier as a picture and as JSON, and prints it.
func writeFrontier(cmd *cobra.Command, file *fleetfile.File, prefix string) error {
	frontier, err := planreport.Pareto(file)
	if err != nil {
		return usageError{err}
	}
	var svg, data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetIndent("", "  ")
	if err := errors.Join(frontier.WriteSVG(&svg), enc.Encode(frontier)); err != nil {
		return err
	}
	for name, content := range map[string][]byte{prefix + ".svg": svg.Bytes(), prefix + ".json": data.Bytes()} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return messages.Errorf(messages.CodeBadRequest, "--pareto: cannot write %s: %v; name another prefix, as in --pareto=/tmp/pareto", name, err)
		}
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return new(app).printJSON(cmd, frontier)
	}
	t := newTable("DELAY MS", "COST/H", "WEIGHT LATENCY", "WEIGHT COST", "PRESETS")
	for _, p := range frontier.Points {
		t.add(p.DelayEach.String(), p.Cost.String(), p.WeightLatency.String(), p.WeightCost.String(), strings.Join(p.Presets, ", "))
	}
	if err := t.print(cmd); err != nil {
		return err
	}
	if frontier.Note != "" {
		notef(cmd, "note: %s\n", frontier.Note)
	}
	notef(cmd, "written: %s.svg, %s.json (%d plans)\n", prefix, prefix, frontier.Plans)
	return nil
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
