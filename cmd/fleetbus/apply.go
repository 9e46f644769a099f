package main

import (
	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

func applyCmd(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the tasks and settings of a fleet file what is to run",
		Long: `Make the tasks and settings of a fleet file what is to run. Tasks that the file does not
name stay; ` + "`fleetbus delete`" + ` removes them. Environments are not applied: agents announce
themselves.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("-f: no file given; for example `fleetbus apply -f configs/smart-factory.yaml`")
			}
			file, err := a.fleetFile(cmd, path)
			if err != nil {
				return err
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			b, done, err := a.bus(ctx, a.shortLog(cmd))
			if err != nil {
				return err
			}
			defer done()
			applied, err := coordinator.Apply(ctx, b, file.Tasks, file.Settings)
			if err != nil {
				return err
			}
			return a.printApplied(cmd, file, applied)
		},
	}
	cmd.Flags().StringVarP(&path, "file", "f", "", "fleet `FILE`")
	return cmd
}

// fleetFile reads a file that is to be applied to the fleet of --fleet.
func (a *app) fleetFile(cmd *cobra.Command, path string) (*fleetfile.File, error) {
	file, err := fleetfile.Load(path)
	if err != nil {
		return nil, fileError(cmd, err)
	}
	if file.Fleet != "" && file.Fleet != a.fleet {
		// A file for another fleet, applied by mistake, would move everything.
		return nil, usagef("%s is for fleet %s, found --fleet %s; name the fleet that you mean with --fleet", path, file.Fleet, a.fleet)
	}
	return file, nil
}

func (a *app) printApplied(cmd *cobra.Command, file *fleetfile.File, applied coordinator.Applied) error {
	if a.json {
		return a.printJSON(cmd, map[string]any{"applied": applied, "environments_ignored": len(file.Environments)})
	}
	t := newTable("WHAT", "CHANGE")
	for _, list := range []struct {
		change string
		names  []string
	}{{"created", applied.Created}, {"updated", applied.Updated}, {"unchanged", applied.Unchanged}} {
		for _, name := range list.names {
			t.add("task "+name, list.change)
		}
	}
	switch {
	case file.Settings != nil && applied.Settings:
		t.add("settings", "set")
	case file.Settings != nil:
		t.add("settings", "unchanged")
	}
	if err := t.print(cmd); err != nil {
		return err
	}
	if n := len(file.Environments); n > 0 {
		notef(cmd, "note: the %d environments of the file are for `fleetbus plan`; here agents announce themselves\n", n)
	}
	return nil
}

func deleteCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "delete TASK",
		Short: "Remove a task; its replicas finish what they have",
		Args:  exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := messages.CheckName("task", args[0]); err != nil {
				return usageError{err}
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			b, done, err := a.bus(ctx, a.shortLog(cmd))
			if err != nil {
				return err
			}
			defer done()
			if err := coordinator.DeleteTask(ctx, b, args[0]); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(cmd, map[string]string{"deleted": args[0]})
			}
			printf(cmd, "task %s deleted\n", args[0])
			return nil
		},
	}
}
