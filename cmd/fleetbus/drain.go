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
				if !led(ctx, b) {
					notef(cmd, "no coordinator answers: the wish is stored, and the first one that leads empties %s; start one with `fleetbus up` or `fleetbus coordinator`\n", args[0])
					return nil
				}
				printf(cmd, "%s is being emptied; `fleetbus drain %s --wait` waits for it, `fleetbus undrain %s` takes it back\n", args[0], args[0], args[0])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`WHY`, for other people")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until nothing runs there (a minute at most, or --timeout)")
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
		Short: "Remove an agent that has stopped and will not come back",
		Args:  exactArgs("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(cmd, args[0], func(ctx context.Context, b *bus.Bus) error {
				if err := away(ctx, b, args[0]); err != nil {
					return err
				}
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
	return a.withNamed(cmd, "agent", agent, do)
}

// withNamed checks a name and opens the bus.
func (a *app) withNamed(cmd *cobra.Command, what, name string, do func(context.Context, *bus.Bus) error) error {
	if err := messages.CheckName(what, name); err != nil {
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

// led reports whether a coordinator answers.
func led(ctx context.Context, b *bus.Bus) bool {
	_, err := leaderState(ctx, b)
	return err == nil
}

// away refuses to forget an agent that beats: it would be gone from every list and get no
// task, and go on running, unseen, until it connects anew. With no leader nobody knows.
func away(ctx context.Context, b *bus.Bus, agent string) error {
	s, err := leaderState(ctx, b)
	if err != nil {
		s = &messages.State{}
	}
	for _, g := range s.Agents {
		if g.Environment.ID == agent && g.State != messages.AgentLost {
			return messages.Errorf(messages.CodeConflict, "forget %s: it runs (%s); switch it off first, or empty it with `fleetbus drain %s`", agent, g.State, agent)
		}
	}
	return nil
}

// emptied waits until no replica is on the agent.
func (a *app) emptied(cmd *cobra.Command, b *bus.Bus, agent string) error {
	limit := drainWait
	if cmd.Flags().Changed("timeout") {
		limit = a.timeout
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), limit, fmt.Errorf("%v are over", limit))
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
			if err := cmd.Context().Err(); err != nil {
				return fmt.Errorf("stopped waiting for %s to be empty; it stays drained, and `fleetbus undrain %s` takes that back", agent, agent)
			}
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
