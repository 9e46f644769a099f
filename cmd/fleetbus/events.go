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
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happened to the fleet, the oldest first; with --json one object a line",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			b, done, err := a.bus(ctx, a.shortLog(cmd))
			if err != nil {
				return err
			}
			defer done()
			return a.events(ctx, cmd, b, since, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until stopped")
	cmd.Flags().DurationVar(&since, "since", 0, "only events of the last `DURATION` (with --follow the default is only new ones)")
	return cmd
}

// events prints stored events and, with follow, those that come. ask bounds the questions
// before the first event.
func (a *app) events(ask context.Context, cmd *cobra.Command, b *bus.Bus, since time.Duration, follow bool) error {
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
		if err := a.printEvent(cmd, msg.Data()); err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return bus.Explain(err, "read the events")
		}
		if meta.NumPending == 0 && !follow {
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

func (a *app) printEvent(cmd *cobra.Command, data []byte) error {
	event := new(messages.Event)
	if err := messages.Decode(data, event); err != nil {
		notef(cmd, "skipped an event that cannot be read: %v\n", err)
		return nil
	}
	if a.json {
		return printLine(cmd, event)
	}
	line := event.Time.Local().Format("2006-01-02 15:04:05.000") + "  " + event.Kind
	switch {
	case event.ID != "":
		line += "  " + event.ID
	case event.Task != "":
		line += "  " + event.Task
	}
	if event.Agent != "" {
		line += "  on " + event.Agent
	}
	if event.Reason != "" {
		line += "  (" + event.Reason + ")"
	}
	printf(cmd, "%s\n", line)
	return nil
}
