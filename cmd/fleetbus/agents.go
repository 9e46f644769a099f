package main

import (
	"slices"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

func agentsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "agents",
		Short: "List the agents: where they stand, what they have, how they are",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.picture(cmd)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(cmd, map[string]any{
					"leader": p.Leader, "term": p.Term, "live": p.Live,
					"agents": slices.Concat([]messages.AgentInfo{}, p.Agents), // [] where there is none, not null
				})
			}
			if len(p.Agents) == 0 {
				printf(cmd, "no agents yet: start one with `fleetbus agent --id robot-1 --tier robot --compute 10TFLOPS --storage 100GB --network 10Mbps --simulate`\n")
				return nil
			}
			return agentTable(cmd, p)
		},
	}
}

func agentTable(cmd *cobra.Command, p picture) error {
	t := newTable("AGENT", "TIER", "SITE", "STATE", "TFLOPS", "GB", "MBPS", "LATENCY", "LAST BEAT", "REPLICAS")
	for _, g := range p.Agents {
		e := g.Environment
		state := string(g.State)
		if g.Drain {
			state += " (drain)"
		}
		beat := ""
		if p.Live && g.BeatAge > 0 {
			beat = millis(max(g.BeatAge, 1)) + " ago"
		}
		count := 0
		for _, r := range p.Replicas {
			if r.Agent == e.ID {
				count++
			}
		}
		t.add(e.ID, string(e.Tier), e.Site, state, share(g.Planned.Compute, e.Capacity.Compute),
			share(g.Planned.Storage, e.Capacity.Storage), share(g.Planned.Network, e.Capacity.Network),
			millis(e.Latency), beat, number(float64(count)))
	}
	return t.print(cmd)
}
