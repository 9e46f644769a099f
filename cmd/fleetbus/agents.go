package main

import (
	"fmt"

	"github.com/fleetbus/fleetbus/coordinator/safety"
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
			stops := a.stops(cmd)
			if a.json {
				agents := make([]agentLine, 0, len(p.Agents)) // [] where there is none, not null
				for _, g := range p.Agents {
					why, _ := stops.Why(g.Environment.ID)
					agents = append(agents, agentLine{g, why})
				}
				return a.printJSON(cmd, map[string]any{"leader": p.Leader, "term": p.Term, "live": p.Live, "agents": agents})
			}
			if len(p.Agents) == 0 {
				printf(cmd, "no agents yet: start one with `fleetbus agent --id robot-1 --tier robot --compute 10TFLOPS --storage 100GB --network 10Mbps --simulate`\n")
				return nil
			}
			return agentTable(cmd, p, stops)
		},
	}
}

// agentLine is an agent for programs.
type agentLine struct {
	messages.AgentInfo
	Stopped string `json:"stopped,omitempty"` // why it takes no actions
}

func agentTable(cmd *cobra.Command, p picture, stops safety.State) error {
	t := newTable("AGENT", "TIER", "SITE", "STATE", "TFLOPS", "GB", "MBPS", "LATENCY", "LAST BEAT", "REPLICAS")
	for _, g := range p.Agents {
		e := g.Environment
		state := string(g.State)
		if g.Drain {
			state += " (drain)"
		}
		why, confirmed := stops.Why(e.ID)
		if why != "" {
			state += " (stopped)"
			notef(cmd, "%s\n", stoppedLine(e.ID, why, confirmed))
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
		t.add(e.ID, string(e.Tier), e.Site, state, taken(g.Planned.Compute, g.Foreign.Compute, e.Capacity.Compute),
			taken(g.Planned.Storage, g.Foreign.Storage, e.Capacity.Storage), taken(g.Planned.Network, g.Foreign.Network, e.Capacity.Network),
			millis(e.Latency), beat, number(float64(count)))
	}
	return t.print(cmd)
}

// taken is what the plan uses of what there is, and what others use where they do.
func taken(planned, others, have float64) string {
	if others > 0 {
		return share(planned, have) + " (others " + number(others) + ")"
	}
	return share(planned, have)
}

// stoppedLine says of a robot that it is stopped, and what ends that.
func stoppedLine(robot, why string, confirmed bool) string {
	if !confirmed {
		why += " (it has not confirmed that yet)"
	}
	return fmt.Sprintf("%s is %s; `fleetbus release %s` when it is safe", robot, why, robot)
}
