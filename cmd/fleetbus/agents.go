package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

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
	header := []string{"AGENT", "TIER", "SITE", "STATE", "TFLOPS", "GB", "MBPS", "LATENCY", "LAST BEAT", "REPLICAS"}
	reads := slices.ContainsFunc(p.Agents, func(g messages.AgentInfo) bool { return g.Readings != nil && g.Readings.Cores > 0 })
	if reads {
		header = append(header, "CPU", "MEMORY", "GPU", "TEMP", "POWER")
	}
	t := newTable(header...)
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
		row := []string{e.ID, string(e.Tier), e.Site, state, taken(g.Planned.Compute, g.Foreign.Compute, e.Capacity.Compute),
			taken(g.Planned.Storage, g.Foreign.Storage, e.Capacity.Storage), taken(g.Planned.Network, g.Foreign.Network, e.Capacity.Network),
			millis(e.Latency), beat, number(float64(count))}
		if reads {
			row = append(row, readingCells(g.Readings)...)
		}
		t.add(row...)
	}
	return t.print(cmd)
}

// readingCells are what an agent measures of its machine: the use of its cores, and so on.
func readingCells(r *messages.Readings) []string {
	cells := make([]string, 5)
	if r == nil || r.Cores == 0 {
		return cells
	}
	cells[0] = percent(r.CPU) + " of " + number(round(r.Cores, 10))
	if r.MemSize > 0 {
		cells[1] = number(round(r.Memory, 10)) + "/" + number(round(r.MemSize, 10)) + " GB"
	}
	var gpus []string
	for _, g := range r.GPUs {
		one := percent(g.Use)
		if g.MemSize > 0 {
			one += " " + number(round(g.Memory, 10)) + "/" + number(round(g.MemSize, 10)) + " GB"
		}
		gpus = append(gpus, one)
	}
	cells[2] = strings.Join(gpus, ", ")
	if r.Temp > 0 {
		cells[3] = number(round(r.Temp, 1)) + " °C"
	}
	if cells[4] = r.Power; r.Power != "" {
		cells[4] += " " + percent(r.Battery)
	}
	return cells
}

func percent(part float64) string { return number(round(100*part, 1)) + " %" }

// roundTo keeps so many digits: what is measured has more than anybody reads.
func roundTo(v float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// round rounds to a part of one.
func round(v, parts float64) float64 { return math.Round(v*parts) / parts }

// taken is what the plan uses of what there is, and what others use where they do.
func taken(planned, others, have float64) string {
	if others > 0 {
		return share(planned, have) + " (others " + number(roundTo(others, 3)) + ")"
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
