package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/spf13/cobra"
)

// drainWait is how long `drain --wait` waits: as long as an agent may take to finish
// what it has, and the move of its replicas before that.
const drainWait = time.Minute

func drainCmd(a *app) *cobra.Command {
	var reason string
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain AGENT",
		Short: "Empty an agent: what it runs moves elsewhere, nothing new is placed there",
		Args:  exactArgs("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(cmd, args[0], func(ctx context.Context, b *bus.Bus) error {
				if err := a.known(ctx, b, args[0]); err != nil {
					return err
				}
				if err := coordinator.Drain(ctx, b, args[0], reason); err != nil {
					return err
				}
				if wait {
					return a.emptied(cmd, b, args[0])
				}
				if a.json {
					return a.printJSON(cmd, map[string]any{"agent": args[0], "drain": true})
				}
				printf(cmd, "%s is being emptied; `fleetbus drain %s --wait` waits for it, `fleetbus undrain %s` takes it back\n", args[0], args[0], args[0])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`WHY`, for other people")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until nothing runs there (a minute at most)")
	return cmd
}

func undrainCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "undrain AGENT",
		Short: "Take a drain back: tasks may be placed on the agent again",
		Args:  exactArgs("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(cmd, args[0], func(ctx context.Context, b *bus.Bus) error {
				if err := coordinator.Undrain(ctx, b, args[0]); err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, map[string]any{"agent": args[0], "drain": false})
				}
				printf(cmd, "%s may be used again\n", args[0])
				return nil
			})
		},
	}
}

func forgetCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "forget AGENT",
		Short: "Remove an agent that will not come back; one that still runs registers again",
		Args:  exactArgs("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(cmd, args[0], func(ctx context.Context, b *bus.Bus) error {
				if err := coordinator.Forget(ctx, b, args[0]); err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, map[string]any{"agent": args[0], "forgotten": true})
				}
				printf(cmd, "%s is forgotten\n", args[0])
				return nil
			})
		},
	}
}

// withAgent checks the name of an agent and opens the bus.
func (a *app) withAgent(cmd *cobra.Command, agent string, do func(context.Context, *bus.Bus) error) error {
	if err := messages.CheckName("agent", agent); err != nil {
		return usageError{err}
	}
	ctx, cancel := a.within(cmd.Context())
	defer cancel()
	b, done, err := a.bus(ctx, a.shortLog(cmd))
	if err != nil {
		return err
	}
	defer done()
	return do(ctx, b)
}

// known refuses an agent that has never registered: a drain may be set ahead of it, but
// far more often the name is mistyped.
func (a *app) known(ctx context.Context, b *bus.Bus, agent string) error {
	all, err := coordinator.Registrations(ctx, b)
	if err != nil {
		return err
	}
	if _, ok := all[agent]; !ok {
		return messages.Errorf(messages.CodeNotFound, "drain %s: no agent of that name has ever registered in fleet %s; `fleetbus agents` lists them", agent, a.fleet)
	}
	return nil
}

// emptied waits until no replica is on the agent.
func (a *app) emptied(cmd *cobra.Command, b *bus.Bus, agent string) error {
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), drainWait, fmt.Errorf("%v are over", drainWait))
	defer cancel()
	left := "no coordinator answers"
	for {
		if s, err := leaderState(ctx, b); err == nil {
			if left = remaining(s, agent); left == "" {
				break
			}
		}
		select {
		case <-time.After(waitInterval):
		case <-ctx.Done():
			return messages.Errorf(messages.CodeDeadline, "wait for %s to be empty: %v; %s", agent, context.Cause(ctx), left)
		}
	}
	if a.json {
		return a.printJSON(cmd, map[string]any{"agent": agent, "drain": true, "empty": true})
	}
	printf(cmd, "%s is empty; it may be switched off\n", agent)
	return nil
}

// remaining says what keeps a drained agent from being empty; "" where nothing does.
func remaining(s *messages.State, agent string) string {
	for _, r := range s.Replicas {
		if r.Agent == agent && r.State != messages.ReplicaStopped {
			why := r.Reason
			if why != "" {
				why = " (" + why + ")"
			}
			return fmt.Sprintf("%s is still there, %s%s", r.ID, r.State, why)
		}
	}
	for _, g := range s.Agents {
		if g.Environment.ID == agent && !g.Drain {
			return "the coordinator has not heard of the drain"
		}
	}
	return ""
}
