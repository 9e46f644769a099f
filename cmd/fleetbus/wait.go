package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/spf13/cobra"
)

// waitInterval is the time between two looks of `fleetbus wait`. An agent beats once a
// second and at once when something changes: more often would show nothing new.
const waitInterval = 100 * time.Millisecond

// waitTimeout is how long `fleetbus wait` waits where --timeout does not say: agents may
// have to load a model, and scripts should not hang.
const waitTimeout = 30 * time.Second

func waitCmd(a *app) *cobra.Command {
	var agents int
	var placed []string
	cmd := &cobra.Command{
		Use:   "wait [--agents N] [--placed TASK[=N]]",
		Short: "Wait until agents are ready and tasks are placed; for scripts",
		Long: `Wait until at least N agents are ready and of every task named at least one replica
(or N) is ready to serve. --timeout is the whole wait, for the
connection too (default 30s).`,
		Example: "  fleetbus wait --agents 3 --placed inference=2 --timeout 20s",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := parsePlaced(placed)
			if err != nil {
				return err
			}
			if agents < 0 {
				return usagef("--agents: found %d, allowed is 0 or more", agents)
			}
			if !cmd.Flags().Changed("timeout") {
				a.timeout = waitTimeout
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			return a.wait(ctx, cmd, agents, want)
		},
	}
	cmd.Flags().IntVar(&agents, "agents", 0, "how many agents are to be ready")
	cmd.Flags().StringArrayVar(&placed, "placed", nil, "`TASK[=N]` of which a replica (or N) is to be ready; may be repeated")
	return cmd
}

// wanted is how many replicas of a task are to be ready.
type wanted struct {
	task  string
	count int
}

func parsePlaced(list []string) ([]wanted, error) {
	var want []wanted
	for _, s := range list {
		task, number, given := strings.Cut(s, "=")
		w := wanted{task: task, count: 1}
		if err := messages.CheckName("task", task); err != nil {
			return nil, usageError{err}
		}
		if given {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 {
				return nil, usagef("--placed %s: found %q replicas, allowed is a whole number from 1", s, number)
			}
			w.count = n
		}
		want = append(want, w)
	}
	return want, nil
}

func (a *app) wait(ctx context.Context, cmd *cobra.Command, agents int, want []wanted) error {
	// `fleetbus up &` may not listen yet.
	nc, err := a.connectForever(ctx, "fleetbus cli", a.mustLog(cmd, levelQuiet))
	if err != nil {
		if ctx.Err() != nil && cmd.Context().Err() == nil {
			_, err = a.connect(cmd.Context(), "fleetbus cli", a.shortLog(cmd)) // for the reason
		}
		if err != nil {
			return err
		}
		return messages.Errorf(messages.CodeDeadline, "wait for the fleet: the server came up only after %v; raise --timeout", a.timeout)
	}
	defer nc.Close()
	b, err := bus.New(nc, a.fleet, 0)
	if err != nil {
		return err
	}
	missing := "a coordinator that answers"
	for {
		state, err := leaderState(ctx, b)
		switch {
		case err == nil:
			missing = lacking(state, agents, want)
		case errors.Is(err, errNoLeader):
		default:
			return err
		}
		if missing == "" {
			if a.json {
				return a.printJSON(cmd, map[string]any{"ready": true, "leader": state.Leader})
			}
			return nil
		}
		select {
		case <-time.After(waitInterval):
		case <-ctx.Done():
			if cmd.Context().Err() != nil {
				return cmd.Context().Err()
			}
			return messages.Errorf(messages.CodeDeadline, "wait for the fleet: still missing after %v: %s; `fleetbus placements` and `fleetbus events` say why", a.timeout, missing)
		}
	}
}

// lacking says in words what of the wish is not there yet; "" where nothing is.
func lacking(s *messages.State, agents int, want []wanted) string {
	var missing []string
	ready := 0
	for _, g := range s.Agents {
		if g.State == messages.AgentReady {
			ready++
		}
	}
	if ready < agents {
		missing = append(missing, fmt.Sprintf("%d of %d agents are ready", ready, agents))
	}
	for _, w := range want {
		ready, why := 0, ""
		for _, r := range s.Replicas {
			if r.Task != w.task {
				continue
			}
			if r.State == messages.ReplicaReady {
				ready++
			} else if why == "" && r.Reason != "" {
				why = " (" + r.Reason + ")"
			}
		}
		if ready < w.count {
			missing = append(missing, fmt.Sprintf("%d of %d replicas of %s are ready%s", ready, w.count, w.task, why))
		}
	}
	return strings.Join(missing, "; ")
}
