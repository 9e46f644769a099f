package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/spf13/cobra"
)

// jobsOrigin is who asks where --origin does not say: the same every time, because the key
// of a job counts per origin.
const jobsOrigin = "cli"

func jobsCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "Submit training jobs; list, watch, cancel and redrive them",
		Long: `Submit training jobs; list, watch, cancel and redrive them. A job survives the death of
whatever runs, carries or places it; one that fails for good is a dead letter (ABORTED),
which is kept with its history for 30 days and can be redriven.`,
		Example: `  fleetbus jobs submit finetune --file job.json --key night-1 --priority high
  fleetbus jobs ls --state EXECUTING,ACCEPTED
  fleetbus jobs watch night-job-id other-id
  fleetbus jobs logs -f night-job-id
  fleetbus jobs redrive --all`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	submit := trainingCmd(a)
	submit.Use = "submit TASK"
	cmd.AddCommand(submit, jobsListCmd(a), jobsGetCmd(a), jobsWatchCmd(a), jobsLogsCmd(a), jobsCancelCmd(a), jobsRedriveCmd(a))
	return cmd
}

// withJobs runs a client for commands about jobs; ids are checked first.
func (a *app) withJobs(cmd *cobra.Command, ids []string, use func(ctx context.Context, c *router.Client) error) error {
	for _, id := range ids {
		if err := messages.CheckName("job", id); err != nil {
			return usageError{err}
		}
	}
	return a.client(cmd, requestFlags{origin: jobsOrigin}, use)
}

func jobsGetCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get ID",
		Short: "Show the record of a job, with its history; --json for all of it",
		Args:  exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJobs(cmd, args, func(ctx context.Context, c *router.Client) error {
				job, err := c.Job(ctx, args[0])
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, job)
				}
				return showJob(cmd, job)
			})
		},
	}
}

// showJob prints a record, one field a line.
func showJob(cmd *cobra.Command, job messages.Job) error {
	t := newTable("JOB", job.ID)
	add := func(name, value string) {
		if value != "" {
			t.add(name, value)
		}
	}
	add("TASK", job.Task)
	add("STATE", string(job.State))
	add("PRIORITY", string(job.Level()))
	add("ORIGIN", job.Origin)
	add("SITE", job.Site)
	add("AGENT", job.Agent)
	add("SUBMITTED", job.Created.Local().Format(time.DateTime))
	if job.Attempt > 0 {
		add("ATTEMPT", strconv.Itoa(job.Attempt)+fmt.Sprintf(" (%d count)", job.Attempt-job.Free))
	}
	if p := job.Checkpoint; p != nil {
		add("CHECKPOINT", fmt.Sprintf("%d, of attempt %d, %d bytes", p.Number, p.Attempt, p.Size))
	}
	if job.Redriven > 0 {
		add("REDRIVEN", strconv.Itoa(job.Redriven))
	}
	add("REASON", job.Reason)
	if job.State == messages.GoalSucceeded {
		add("RESULT", fmt.Sprintf("%d bytes; `fleetbus job %s` prints it", len(job.Result), job.ID))
	}
	for _, h := range job.History {
		add("FAILED "+strconv.Itoa(h.Attempt), strings.TrimPrefix(h.Agent+": "+h.Reason, ": "))
	}
	return t.print(cmd)
}

func jobsListCmd(a *app) *cobra.Command {
	var states []string
	var task string
	var dead bool
	var limit int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List jobs, the newest first",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef("--limit: found %d, allowed is 1 or more", limit)
			}
			if dead {
				states = append(states, string(messages.GoalAborted))
			}
			for i, s := range states {
				states[i] = strings.ToUpper(s)
				if !slices.Contains(goalStates, messages.GoalState(states[i])) {
					return usagef("--state: found %q, allowed are %v", s, goalStates)
				}
			}
			return a.withJobs(cmd, nil, func(ctx context.Context, c *router.Client) error {
				var list []messages.Job
				ctx, cancel := a.within(ctx)
				defer cancel()
				err := c.Jobs(ctx, func(job messages.Job) bool {
					if (task == "" || job.Task == task) && (len(states) == 0 || slices.Contains(states, string(job.State))) {
						job.Result = nil // it may be large, and is not shown
						list = append(list, job)
					}
					return true
				})
				if err != nil {
					return err
				}
				slices.SortFunc(list, func(a, b messages.Job) int {
					return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
				})
				more := max(0, len(list)-limit)
				list = list[:len(list)-more]
				return a.printJobs(cmd, list, more)
			})
		},
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only jobs in these `STATES`, separated by commas")
	cmd.Flags().StringVar(&task, "task", "", "only jobs of this `TASK`")
	cmd.Flags().BoolVar(&dead, "dead", false, "only dead letters: --state ABORTED")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many, the newest")
	return cmd
}

var goalStates = []messages.GoalState{messages.GoalAccepted, messages.GoalExecuting, messages.GoalCanceling, messages.GoalSucceeded, messages.GoalCanceled, messages.GoalAborted}

func (a *app) printJobs(cmd *cobra.Command, list []messages.Job, more int) error {
	if a.json {
		if list == nil {
			list = []messages.Job{}
		}
		return a.printJSON(cmd, list)
	}
	t := newTable("JOB", "TASK", "STATE", "PRIORITY", "ATTEMPT", "AGENT", "SUBMITTED", "REASON")
	for _, j := range list {
		t.add(j.ID, j.Task, string(j.State), string(j.Level()), strconv.Itoa(j.Attempt), j.Agent, j.Created.Local().Format(time.DateTime), j.Reason)
	}
	if err := t.print(cmd); err != nil {
		return err
	}
	if more > 0 {
		notef(cmd, "%d more; --limit shows them\n", more)
	}
	return nil
}

func jobsCancelCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID…",
		Short: "Cancel jobs that wait or run",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJobs(cmd, args, func(ctx context.Context, c *router.Client) error {
				return a.eachJob(cmd, args, func(id string) (messages.Job, error) { return c.Cancel(ctx, id) })
			})
		},
	}
}

func jobsRedriveCmd(a *app) *cobra.Command {
	var all bool
	var task string
	cmd := &cobra.Command{
		Use:   "redrive ID…",
		Short: "Begin dead letters again, from their last checkpoints",
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) || !all && task != "" {
				return usagef("name the jobs, or say --all (with --task for those of one task)")
			}
			return a.withJobs(cmd, args, func(ctx context.Context, c *router.Client) error {
				if all {
					err := c.Jobs(ctx, func(job messages.Job) bool {
						if job.Dead() && (task == "" || job.Task == task) {
							args = append(args, job.ID)
						}
						return true
					})
					if err != nil {
						return err
					}
				}
				return a.eachJob(cmd, args, func(id string) (messages.Job, error) { return c.Redrive(ctx, id) })
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters")
	cmd.Flags().StringVar(&task, "task", "", "with --all: only those of this `TASK`")
	return cmd
}

// eachJob does something with each of the jobs and says how they are then. One that fails
// does not keep the others from it.
func (a *app) eachJob(cmd *cobra.Command, ids []string, do func(id string) (messages.Job, error)) error {
	var failed error
	list := []messages.Job{}
	for _, id := range ids {
		job, err := do(id)
		if err != nil {
			failed = cmp.Or(failed, err)
			notef(cmd, "%s\n", oneLine(err))
			continue
		}
		job.Result = nil
		list = append(list, job)
		if !a.json {
			printf(cmd, "%s %s\n", job.ID, job.State)
		}
	}
	if a.json {
		if err := a.printJSON(cmd, list); err != nil {
			return err
		}
		if failed != nil {
			return printedError{failed}
		}
	}
	return failed
}

func jobsLogsCmd(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print what a job has said; -f goes on until its end",
		Args:  exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJobs(cmd, args, func(ctx context.Context, c *router.Client) error {
				if _, err := c.Job(ctx, args[0]); err != nil {
					return err
				}
				if follow {
					inner, cancel := context.WithCancel(ctx)
					defer cancel()
					ended := make(chan error, 1)
					go func() {
						_, err := c.Wait(inner, args[0], nil)
						// Its last words are stored before its end; they are here in a moment.
						select {
						case <-time.After(logLast):
						case <-inner.Done():
						}
						cancel()
						ended <- err
					}()
					err := c.JobLog(inner, args[0], true, func(t router.JobText) { a.printLog(cmd, t) })
					cancel()
					if waited := <-ended; err == nil && ctx.Err() == nil {
						err = waited
					}
					return err
				}
				ctx, cancel := a.within(ctx)
				defer cancel()
				return c.JobLog(ctx, args[0], false, func(t router.JobText) { a.printLog(cmd, t) })
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job has ended")
	return cmd
}

// logLast is how long `jobs logs -f` listens on after a job's end.
const logLast = 300 * time.Millisecond

func (a *app) printLog(cmd *cobra.Command, t router.JobText) {
	if a.json {
		_ = printLine(cmd, map[string]any{"time": t.Time, "agent": t.Agent, "attempt": t.Attempt, "text": t.Text}) // its reader has gone
		return
	}
	for line := range strings.Lines(t.Text) {
		printf(cmd, "%s %s#%d  %s\n", t.Time.Local().Format(time.TimeOnly), t.Agent, t.Attempt, strings.TrimRight(line, "\n"))
	}
}
