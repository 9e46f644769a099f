package main

import (
	"context"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
)

func logsCmd(a *app) *cobra.Command {
	var follow bool
	var agent string
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "logs TASK[/REPLICA]",
		Short: "Print what the processes said that a task has brought; -f goes on",
		Long: `Print what the processes said that a task has brought (run: in the fleet file): both outputs,
of all its replicas, the oldest first. It is kept for a week, the last 1,000 messages of each
replica on each agent. For jobs see ` + "`fleetbus jobs logs`" + `.`,
		Example: `  fleetbus logs grasp
  fleetbus logs -f grasp/0 --agent edge-1`,
		Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			task, suffix, one := strings.Cut(args[0], "/")
			for _, n := range []struct {
				what, name string
				given      bool
			}{{"task", task, true}, {"replica", suffix, one}, {"agent", agent, agent != ""}} {
				if err := messages.CheckName(n.what, n.name); n.given && err != nil {
					return usageError{err}
				}
			}
			if since < 0 {
				return usagef("--since: found %v, allowed is more than 0", since)
			}
			return a.withStore(cmd, func(ctx context.Context, b *bus.Bus) error {
				s := b.Subject(messages.KindTaskLog, "")
				s.Agent, s.Task, s.ID = agent, task, suffix
				return a.logs(ctx, cmd, b, s, since, follow)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is said from now on")
	cmd.Flags().StringVar(&agent, "agent", "", "only of this `AGENT`")
	cmd.Flags().DurationVar(&since, "since", 0, "only what was said within this `TIME` (default all)")
	return cmd
}

// logWait is how long one question for more of a log waits for an answer.
const logWait = 2 * time.Second

// logs prints a log; with follow it goes on until ctx ends.
func (a *app) logs(ctx context.Context, cmd *cobra.Command, b *bus.Bus, s messages.Subject, since time.Duration, follow bool) error {
	const what = "read the log"
	ask, cancel := a.within(ctx)
	defer cancel()
	if err := b.TaskLogs(ask); err != nil {
		return err
	}
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{s.String()}}
	if since > 0 {
		from := time.Now().Add(-since)
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &from
	}
	consumer, err := b.JS.OrderedConsumer(ask, bus.TaskLogStreamName(b.Fleet), cfg)
	if err != nil {
		return bus.Explain(err, what)
	}
	left := consumer.CachedInfo().NumPending
	if left == 0 && !follow {
		notef(cmd, "nothing was said; only processes that tasks bring are heard (run: in the fleet file), others write to their agent's log\n")
	}
	for follow || left > 0 {
		m, err := consumer.Next(jetstream.FetchMaxWait(logWait))
		switch {
		case ctx.Err() != nil && follow:
			return nil // Ctrl-C is how one stops following
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && follow:
			select { // nothing new, or no server: look again
			case <-ctx.Done():
				return nil
			case <-time.After(barEvery):
			}
			continue
		case err != nil:
			return bus.Explain(err, what)
		}
		meta, err := m.Metadata()
		if err != nil {
			return bus.Explain(err, what)
		}
		left = meta.NumPending
		if at, err := messages.ParseSubject(m.Subject()); err == nil {
			a.printTaskLog(cmd, at, meta.Timestamp, string(m.Data()))
		}
	}
	return nil
}

func (a *app) printTaskLog(cmd *cobra.Command, at messages.Subject, when time.Time, text string) {
	replica := messages.ReplicaID(at.Task, at.ID)
	if a.json {
		_ = printLine(cmd, map[string]any{"time": when, "agent": at.Agent, "replica": replica, "text": text}) // its reader has gone
		return
	}
	for line := range strings.Lines(text) {
		printf(cmd, "%s %s %s  %s\n", when.Local().Format(time.TimeOnly), at.Agent, replica, strings.TrimRight(line, "\n"))
	}
}
