package main

import (
	"strconv"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

func placementsCmd(a *app) *cobra.Command {
	var task, agent string
	cmd := &cobra.Command{
		Use:   "placements",
		Short: "List every replica: where it is, how it does, why it is there or why it waits",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.picture(cmd)
			if err != nil {
				return err
			}
			list := []messages.ReplicaInfo{}
			for _, r := range p.Replicas {
				if (task == "" || r.Task == task) && (agent == "" || r.Agent == agent) {
					list = append(list, r)
				}
			}
			if a.json {
				return a.printJSON(cmd, map[string]any{"leader": p.Leader, "term": p.Term, "live": p.Live, "replicas": list})
			}
			if len(list) == 0 {
				return emptyPlacements(cmd, p, task != "" || agent != "")
			}
			return placementTable(cmd, list)
		},
	}
	cmd.Flags().StringVar(&task, "task", "", "only replicas of this `TASK`")
	cmd.Flags().StringVar(&agent, "agent", "", "only replicas on this `AGENT`")
	return cmd
}

func emptyPlacements(cmd *cobra.Command, p picture, filtered bool) error {
	switch {
	case filtered && len(p.Replicas) > 0:
		printf(cmd, "no replica matches; `fleetbus placements` lists all %d\n", len(p.Replicas))
	case len(p.Tasks) == 0:
		printf(cmd, "no tasks yet: say what is to run with `fleetbus apply -f configs/smart-factory.yaml`\n")
	default:
		printf(cmd, "nothing is placed yet: `fleetbus tasks` says what waits for what\n")
	}
	return nil
}

func placementTable(cmd *cobra.Command, list []messages.ReplicaInfo) error {
	t := newTable("REPLICA", "AGENT", "TIER", "STATE", "MODEL", "MEASURED", "RATE", "BUSY", "SERVED", "WHY")
	for _, r := range list {
		agent := r.Agent
		if r.To != "" {
			agent += " → " + r.To
		}
		rate := ""
		if r.Status.Rate > 0 {
			rate = number(r.Status.Rate) + "/s"
		}
		t.add(r.ID, agent, string(r.Tier), string(r.State), millis(r.Delay), millis(r.Status.Latency), rate,
			strconv.Itoa(r.Status.InFlight), strconv.FormatUint(r.Status.Served, 10), why(r))
	}
	return t.print(cmd)
}
