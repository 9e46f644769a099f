package main

import (
	"encoding/json"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

// exitTrouble is the status of `diff` when it could not compare, as of diff(1): 1 says that
// there are differences.
const exitTrouble = 2

func diffCmd(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Say what `apply` would change; the exit status is 0 for nothing, 1 for something",
		Long: `Say what ` + "`fleetbus apply -f FILE`" + ` would change, field by field, and change nothing. The exit
status is that of diff: 0 where nothing would change, 1 where something would, 2 where it
could not be found out. No coordinator need run.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("-f: no file given; for example `fleetbus diff -f configs/smart-factory.yaml`")
			}
			file, err := a.fleetFile(cmd, path)
			if err != nil {
				return statusError{err, exitTrouble}
			}
			have, changes, err := a.compare(cmd, file)
			if err != nil {
				return statusError{err, exitTrouble}
			}
			different := slices.ContainsFunc(changes, func(c coordinator.Change) bool { return c.Change != coordinator.Unchanged })
			if a.json {
				err = a.printJSON(cmd, map[string]any{"different": different, "changes": changes})
			} else {
				printChanges(cmd, have, file, changes)
			}
			if err == nil && different {
				err = silentError{}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&path, "file", "f", "", "fleet `FILE`")
	return cmd
}

// compare reads what is to run and compares a file with it.
func (a *app) compare(cmd *cobra.Command, file *fleetfile.File) (coordinator.Desired, []coordinator.Change, error) {
	ctx, cancel := a.within(cmd.Context())
	defer cancel()
	b, done, err := a.bus(ctx, a.shortLog(cmd))
	if err != nil {
		return coordinator.Desired{}, nil, err
	}
	defer done()
	have, err := coordinator.ReadDesired(ctx, b)
	if err != nil {
		return have, nil, err
	}
	changes, err := coordinator.Diff(have, file.Tasks, file.Settings)
	return have, changes, err
}

func printChanges(cmd *cobra.Command, have coordinator.Desired, file *fleetfile.File, changes []coordinator.Change) {
	equal := true
	for _, c := range changes {
		what := "settings"
		if c.Task != "" {
			what = "task " + c.Task
		}
		switch c.Change {
		case coordinator.Created:
			printf(cmd, "+ %s\n", what)
		case coordinator.Updated:
			printf(cmd, "~ %s\n", what)
		case coordinator.Unchanged:
			continue
		}
		equal = false
		for _, f := range c.Fields {
			printf(cmd, "    %s: %s → %s\n", f.Field, fieldValue(f.From), fieldValue(f.To))
		}
	}
	if equal {
		printf(cmd, "no difference: what the file says is what is to run\n")
	}
	named := func(t messages.Task) bool {
		return slices.ContainsFunc(file.Tasks, func(f messages.Task) bool { return f.Name == t.Name })
	}
	if others := slices.DeleteFunc(slices.Clone(have.Tasks), named); len(others) > 0 {
		notef(cmd, "note: %d tasks of the fleet are not in the file, and stay: %s\n", len(others), taskNames(others))
	}
}

func taskNames(tasks []messages.Task) string {
	var names []string
	for _, t := range tasks {
		names = append(names, t.Name)
	}
	return list(names)
}

// fieldValue writes a value as JSON has it; what is absent is none.
func fieldValue(v any) string {
	if v == nil {
		return "none"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(text)
}
