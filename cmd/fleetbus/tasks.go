package main

import (
	"fmt"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

func tasksCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "tasks",
		Short: "List what is to run: demands, replicas that are ready, what waits and why",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.picture(cmd)
			if err != nil {
				return err
			}
			if a.json {
				tasks := append([]messages.Task{}, p.Tasks...) // [] where there is none, not null
				return a.printJSON(cmd, map[string]any{"leader": p.Leader, "term": p.Term, "live": p.Live, "settings": p.Settings, "tasks": tasks})
			}
			if len(p.Tasks) == 0 {
				printf(cmd, "no tasks yet: say what is to run with `fleetbus apply -f configs/smart-factory.yaml`\n")
				return nil
			}
			return taskTable(cmd, p)
		},
	}
}

func taskTable(cmd *cobra.Command, p picture) error {
	t := newTable("TASK", "CLASS", "READY", "TFLOPS", "GB", "MBPS", "LIMIT", "ON", "WAITS FOR")
	for _, task := range p.Tasks {
		ready, count, waits := 0, 0, ""
		var on []string
		for _, r := range p.Replicas {
			if r.Task != task.Name {
				continue
			}
			count++
			if r.State == messages.ReplicaReady {
				ready++
			}
			if r.Agent != "" {
				on = append(on, r.Agent)
			}
			if waits == "" && stuck(r) {
				waits = why(r)
			}
		}
		t.add(task.Name, string(task.Class), fmt.Sprintf("%d/%d", ready, count),
			number(task.Demand.Compute), number(task.Demand.Storage), number(task.Demand.Network),
			millis(task.Limit), strings.ReplaceAll(list(on), ", ", ","), waits)
	}
	return t.print(cmd)
}

// stuck reports whether a replica serves nobody and will not by itself: it waits for room
// or for its agent, or its handler failed.
func stuck(r messages.ReplicaInfo) bool {
	return r.Agent == "" || r.State == messages.ReplicaPending || r.State == messages.ReplicaFailed
}

// why is the reason of a replica's state: its agent's, which knows more, or the plan's.
func why(r messages.ReplicaInfo) string {
	if r.Status.Reason != "" {
		return r.Status.Reason
	}
	return r.Reason
}
