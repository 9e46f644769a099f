package main

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/spf13/cobra"
)

func trainingCmd(a *app) *cobra.Command {
	var r requestFlags
	var key, priority string
	var wait bool
	cmd := &cobra.Command{
		Use:   "training TASK",
		Short: "Submit a job; it stays in its queue until its result is stored",
		Long: `Submit a job and print its id; with --wait, wait for its end and print its result.
A job that was submitted with a --key is not begun again when it is submitted again by
the same --origin.`,
		Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.origin == "" {
				r.origin = jobsOrigin
			}
			if err := messages.Priority(priority).Check("--priority"); err != nil {
				return usageError{err}
			}
			body, err := r.prepare(cmd)
			if err != nil {
				return err
			}
			return a.client(cmd, r, func(ctx context.Context, c *router.Client) error {
				var id string
				err := r.whenPlaced(ctx, func() (err error) {
					id, err = c.Submit(ctx, router.Job{Task: args[0], Key: key, Body: body, ContentType: r.contentType, Priority: messages.Priority(priority)})
					return err
				})
				if err != nil {
					return err
				}
				if wait {
					notef(cmd, "job %s\n", id)
					return a.follow(ctx, cmd, c, id, r.deadline)
				}
				if a.json {
					return a.printJSON(cmd, map[string]string{"job": id})
				}
				printf(cmd, "%s\n", id)
				notef(cmd, "submitted; `fleetbus job %s --wait` waits for its result\n", id)
				return nil
			})
		},
	}
	r.define(cmd)
	// Here it does not go with the request: a job has no deadline.
	cmd.Flags().Lookup("deadline").Usage = "with --wait, how long to wait (default without end; the job goes on)"
	cmd.Flags().StringVar(&key, "key", "", "your own `NAME` of the job: submitting it twice makes one job")
	cmd.Flags().StringVar(&priority, "priority", string(messages.Normal), "high, normal or low: of the jobs that wait for the task the higher are begun first")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end, show progress, print the result")
	return cmd
}

func jobCmd(a *app) *cobra.Command {
	var wait bool
	var r requestFlags
	cmd := &cobra.Command{
		Use:   "job ID",
		Short: "Show a training job, or wait for its result",
		Args:  exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := messages.CheckName("job", args[0]); err != nil {
				return usageError{err}
			}
			r.origin = jobsOrigin
			return a.client(cmd, r, func(ctx context.Context, c *router.Client) error {
				if wait {
					return a.follow(ctx, cmd, c, args[0], r.deadline)
				}
				job, err := c.Job(ctx, args[0])
				if err != nil {
					return err
				}
				return a.printJob(cmd, job)
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end, show progress, print the result")
	cmd.Flags().DurationVar(&r.deadline, "deadline", 0, "how long to wait (default without end; the job goes on)")
	return cmd
}

// follow waits for a job's end, shows its progress on standard error, and prints its
// result. limit bounds the wait, not the job; 0 is none.
func (a *app) follow(ctx context.Context, cmd *cobra.Command, c *router.Client, id string, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	last := -1
	job, err := c.Wait(ctx, id, func(p messages.Progress) {
		// A percent is the step that an eye can use; a model may report a thousand.
		if percent := int(p.Done * 100); percent != last && !a.json {
			last = percent
			notef(cmd, "%3d %%  on %s  %s\n", percent, p.Agent, p.Note)
		}
	})
	if err != nil {
		return err
	}
	return a.printJob(cmd, job)
}

// printJob prints a job; one that ended without a result is an error.
func (a *app) printJob(cmd *cobra.Command, job messages.Job) error {
	failed := job.State.Ended() && job.State != messages.GoalSucceeded
	if a.json {
		if err := a.printJSON(cmd, job); err != nil {
			return err
		}
	} else {
		text := "job " + job.ID + " is " + string(job.State)
		if job.Agent != "" {
			text += " on " + job.Agent
		}
		if job.Reason != "" && !failed {
			text += " (" + job.Reason + ")"
		}
		if job.State == messages.GoalSucceeded {
			if _, err := cmd.OutOrStdout().Write(job.Result); err != nil {
				return writing(err)
			}
			text = newline(job.Result) + text
		}
		if !failed {
			notef(cmd, "%s\n", text)
		}
	}
	if failed {
		code := job.Code
		if code == "" {
			code = messages.CodeInternal
		}
		return messages.Errorf(code, "job %s is %s after %d attempts: %s", job.ID, job.State, job.Attempt, job.Reason)
	}
	return nil
}
