package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/spf13/cobra"
)

func versionsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "versions TASK",
		Short: "List the last ten versions of a task, and what each changed",
		Args:  exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNamed(cmd, "task", args[0], func(ctx context.Context, b *bus.Bus) error {
				list, err := coordinator.Versions(ctx, b, args[0])
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, map[string]any{"task": args[0], "versions": list})
				}
				t := newTable("REVISION", "WRITTEN", "CHANGED")
				for i, v := range list {
					changed := "the oldest that is kept"
					if i > 0 {
						if changed, err = changedSince(list[i-1], v); err != nil {
							return err
						}
					}
					t.add(strconv.FormatUint(v.Revision, 10), v.Time.Local().Format("2006-01-02 15:04:05"), changed)
				}
				return t.print(cmd)
			})
		},
	}
}

// changedSince says in one line what a version changed.
func changedSince(was, v coordinator.Version) (string, error) {
	switch {
	case v.Deleted:
		return "deleted", nil
	case was.Deleted:
		return "created again", nil
	}
	changes, err := coordinator.Diff(coordinator.Desired{Tasks: []messages.Task{was.Task}}, []messages.Task{v.Task}, nil)
	if err != nil {
		return "", err
	}
	var parts []string
	for _, f := range changes[0].Fields {
		parts = append(parts, f.Field+": "+fieldValue(f.From)+" → "+fieldValue(f.To))
	}
	if len(parts) == 0 {
		return "nothing", nil
	}
	return strings.Join(parts, ", "), nil
}

func rollbackCmd(a *app) *cobra.Command {
	var to uint64
	cmd := &cobra.Command{
		Use:   "rollback TASK",
		Short: "Make a task again what it was before it was changed, or deleted, last",
		Long: `Make a task again what it was before it was changed, or deleted, last; --to names another of
the last ten versions, which ` + "`fleetbus versions TASK`" + ` lists. What comes of it is a new version,
rolled out like every other.`,
		Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("to") && to == 0 {
				return usagef("--to: found 0, allowed are the revisions that `fleetbus versions %s` lists", args[0])
			}
			return a.withNamed(cmd, "task", args[0], func(ctx context.Context, b *bus.Bus) error {
				from, target, err := coordinator.Rollback(ctx, b, args[0], to)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, map[string]any{"task": args[0], "from": from.Revision, "to": target.Revision})
				}
				printf(cmd, "task %s is again what it was at revision %d\n", args[0], target.Revision)
				return nil
			})
		},
	}
	cmd.Flags().Uint64Var(&to, "to", 0, "`REVISION` of the version that is wanted (default the one before)")
	return cmd
}
