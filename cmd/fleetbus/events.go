package main

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
)

func eventsCmd(a *app) *cobra.Command {
	var follow bool
	var since time.Duration
	var only eventFilter
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happened to the fleet, the oldest first; with --json one object a line",
		Long: `Print what happened to the fleet and why, the oldest first; with --json one object a line. The
last 10,000 events are kept, whoever leads. --agent, --task and --kind are for what is about all of
them; ` + "`fleetbus explain`" + ` puts them together with how things are now.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := only.check(); err != nil {
				return err
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			b, done, err := a.bus(ctx, a.shortLog(cmd))
			if err != nil {
				return err
			}
			defer done()
			return a.events(ctx, cmd, b, since, follow, only)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until stopped")
	cmd.Flags().DurationVar(&since, "since", 0, "only events of the last `DURATION` (with --follow the default is only new ones)")
	cmd.Flags().StringVar(&only.agent, "agent", "", "only events about this `AGENT`")
	cmd.Flags().StringVar(&only.task, "task", "", "only events about this `TASK`, or this replica of one")
	cmd.Flags().StringVar(&only.kind, "kind", "", "only events of this `KIND`, for example replica_moved")
	return cmd
}

// eventFilter picks events; what is empty is not asked for.
type eventFilter struct{ agent, task, kind string }

func (f eventFilter) check() error {
	for _, v := range []struct{ flag, name string }{{"--agent", f.agent}, {"--kind", f.kind}} {
		if v.name != "" {
			if err := messages.CheckName(v.flag, v.name); err != nil {
				return usageError{err}
			}
		}
	}
	if f.task == "" {
		return nil
	}
	if _, _, err := messages.ParseReplica(f.task); err != nil {
		if err := messages.CheckName("--task", f.task); err != nil {
			return usageError{err}
		}
	}
	return nil
}

func (f eventFilter) fits(e *messages.Event) bool {
	return (f.agent == "" || e.Agent == f.agent) && (f.task == "" || e.Task == f.task || e.ID == f.task) && (f.kind == "" || e.Kind == f.kind)
}

// events prints stored events and, with follow, those that come. ask bounds the questions
// before the first event.
func (a *app) events(ask context.Context, cmd *cobra.Command, b *bus.Bus, since time.Duration, follow bool, only eventFilter) error {
	if since < 0 {
		return usagef("--since: found %v, allowed is 0 or more", since)
	}
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case since > 0:
		start := time.Now().Add(-since)
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &start
	case follow:
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
		// The stream may be as new as the fleet; who follows wants to see its first event.
		if err := b.Events(ask); err != nil {
			return err
		}
	}
	consumer, err := b.JS.OrderedConsumer(ask, bus.EventStreamName(b.Fleet), cfg)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return a.noEvents(cmd)
	}
	if err != nil {
		return bus.Explain(err, "read the events")
	}
	info, err := consumer.Info(ask)
	if err != nil {
		return bus.Explain(err, "read the events")
	}
	if info.NumPending == 0 && !follow {
		return a.noEvents(cmd)
	}
	stored, err := consumer.Messages()
	if err != nil {
		return bus.Explain(err, "read the events")
	}
	defer stored.Stop()
	none := true
	for {
		next, cancel := cmd.Context(), context.CancelFunc(func() {})
		if !follow {
			// What is stored comes at once; it may also be swept away before it comes.
			next, cancel = a.within(next)
		}
		msg, err := stored.Next(jetstream.NextContext(next))
		cancel()
		switch {
		case cmd.Context().Err() != nil:
			return nil // Ctrl-C is how one stops following
		case err != nil:
			return bus.Explain(err, "read the events")
		}
		printed, err := a.printEvent(cmd, msg.Data(), only)
		if err != nil {
			return err
		}
		none = none && !printed
		meta, err := msg.Metadata()
		if err != nil {
			return bus.Explain(err, "read the events")
		}
		if meta.NumPending == 0 && !follow {
			if none && !a.json {
				notef(cmd, "no stored event is like that; `fleetbus events` prints all, --follow waits for what comes\n")
			}
			return nil
		}
	}
}

func (a *app) noEvents(cmd *cobra.Command) error {
	if !a.json {
		notef(cmd, "no events: a coordinator writes them; `fleetbus up` starts one, --follow waits for what comes\n")
	}
	return nil
}

// printEvent prints an event if it is one that was asked for, and reports whether it is.
func (a *app) printEvent(cmd *cobra.Command, data []byte, only eventFilter) (printed bool, err error) {
	event := new(messages.Event)
	if err := messages.Decode(data, event); err != nil {
		notef(cmd, "skipped an event that cannot be read: %v\n", err)
		return false, nil
	}
	if !only.fits(event) {
		return false, nil
	}
	if a.json {
		return true, printLine(cmd, event)
	}
	printf(cmd, "%s\n", eventLine(event))
	return true, nil
}
