package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func jobsWatchCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "watch ID…",
		Short: "Show how far jobs have come, until all have ended",
		Long: `Show how far jobs have come, until all have ended: as bars on a terminal, else a line for
every change. Exit status 1 says that one did not succeed.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJobs(cmd, args, func(ctx context.Context, c *router.Client) error { return a.watchJobs(ctx, cmd, c, args) })
		},
	}
}

// watched is what is shown of a job.
type watched struct {
	id, state, agent, note string
	done                   float64
	attempt                int
	err                    error
	end                    bool
}

// watchJobs waits for all of the jobs.
func (a *app) watchJobs(ctx context.Context, cmd *cobra.Command, c *router.Client, ids []string) error {
	type change struct {
		i int
		watched
	}
	changes := make(chan change)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	send := func(x change) {
		select {
		case changes <- x:
		case <-ctx.Done():
		}
	}
	list := make([]watched, len(ids))
	for i, id := range ids {
		list[i] = watched{id: id, state: string(messages.GoalUnknown)}
		if job, err := c.Job(ctx, id); err == nil {
			list[i].state, list[i].agent, list[i].attempt = string(job.State), job.Agent, job.Attempt
		}
		go func() {
			job, err := c.Wait(ctx, id, func(p messages.Progress) {
				send(change{i, watched{id: id, state: string(messages.GoalExecuting), agent: p.Agent, note: p.Note, done: p.Done, attempt: p.Attempt}})
			})
			w := watched{id: id, state: string(job.State), agent: job.Agent, attempt: job.Attempt, note: job.Reason, err: err, end: true}
			if job.State == messages.GoalSucceeded {
				w.done = 1
			} else if err == nil {
				w.err = messages.Errorf(job.Code, "job %s is %s after %d attempts: %s", id, job.State, job.Attempt, job.Reason)
			}
			send(change{i, w})
		}()
	}
	bars := newBars(cmd, a.json)
	bars.draw(list, -1)
	for left := len(ids); left > 0; {
		select {
		case x := <-changes:
			if x.end {
				left--
				if x.done == 0 {
					x.done = list[x.i].done
				}
			}
			list[x.i] = x.watched
			bars.draw(list, x.i)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, w := range list {
		if w.err != nil {
			return w.err
		}
	}
	return nil
}

// bars draws jobs: on a terminal in place, else one line a change.
type bars struct {
	cmd   *cobra.Command
	out   io.Writer
	json  bool
	tty   bool
	width int
	drawn int
	last  map[string]string
}

func newBars(cmd *cobra.Command, json bool) *bars { return barsOn(cmd, cmd.OutOrStdout(), json) }

// newErrorBars makes bars beside an answer that has standard output for itself.
func newErrorBars(cmd *cobra.Command, json bool) *bars { return barsOn(cmd, cmd.ErrOrStderr(), json) }

func barsOn(cmd *cobra.Command, out io.Writer, json bool) *bars {
	b := &bars{cmd: cmd, out: out, json: json, width: 80, last: make(map[string]string)}
	if f, ok := out.(*os.File); ok && !json && term.IsTerminal(int(f.Fd())) {
		b.tty = true
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			b.width = w
		}
	}
	return b
}

// draw shows all jobs; changed is the one that has, -1 for all.
func (b *bars) draw(list []watched, changed int) {
	if !b.tty {
		for i, w := range list {
			if changed >= 0 && i != changed {
				continue
			}
			// A percent is the step that an eye can use; a model may report a thousand.
			text := fmt.Sprintf("%s %3d%% %s %s", w.id, int(100*w.done), w.state, w.agent)
			if b.last[w.id] == text {
				continue
			}
			b.last[w.id] = text
			if b.json {
				_ = printLine(b.cmd, map[string]any{"job": w.id, "state": w.state, "agent": w.agent, "attempt": w.attempt, "done": w.done, "note": w.note}) // its reader has gone
				continue
			}
			fmt.Fprintf(b.out, "%s  %s\n", strings.TrimSpace(text), w.note)
		}
		return
	}
	if b.drawn > 0 {
		fmt.Fprintf(b.out, "\x1b[%dA", b.drawn)
	}
	for _, w := range list {
		fmt.Fprintf(b.out, "\x1b[2K%s\n", barLine(w, b.width))
	}
	b.drawn = len(list)
}

// barLine is one job in at most width columns.
func barLine(w watched, width int) string {
	const cells = 24
	full := min(cells, max(0, int(w.done*cells+0.5)))
	line := fmt.Sprintf("%-22s [%s%s] %3d%% %-9s %s", w.id, strings.Repeat("#", full), strings.Repeat(".", cells-full), int(100*w.done), w.state, w.agent)
	if w.attempt > 1 {
		line += fmt.Sprintf(" #%d", w.attempt)
	}
	if w.note != "" {
		line += "  " + strings.Join(strings.Fields(w.note), " ") // no line ends
	}
	runes := []rune(line)
	if len(runes) > width-1 {
		runes = append(runes[:width-2], '…')
	}
	return string(runes)
}
