package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
)

func explainCmd(a *app) *cobra.Command {
	var last int
	var all bool
	cmd := &cobra.Command{
		Use:   "explain TASK|AGENT|REPLICA",
		Short: "Say why: why here, why not there, why it waits, why it moved",
		Long: `Say of a task, of one of its replicas (<task>/<suffix>) or of an agent why things are as they
are: where each replica is and for what reason, what keeps it from every other machine, and
what was decided about it before, out of the fleet's events.

Where no coordinator answers, what was decided is told all the same.`,
		Args: exactArgs("TASK|AGENT|REPLICA"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if _, _, err := messages.ParseReplica(name); err != nil {
				if err := messages.CheckName("task, agent or replica", name); err != nil {
					return usageError{err}
				}
			}
			if last < 0 {
				return usagef("--last: found %d, allowed is 0 or more", last)
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			b, done, err := a.bus(ctx, a.shortLog(cmd))
			if err != nil {
				return err
			}
			defer done()
			return a.explain(ctx, cmd, b, name, last, all)
		},
	}
	cmd.Flags().IntVar(&last, "last", 10, "how many decisions are told of each; 0 for all that are stored")
	cmd.Flags().BoolVar(&all, "all", false, "every machine, not only the nearest ten to being chosen")
	return cmd
}

// nearMisses is how many machines are told of a replica without --all.
const nearMisses = 10

// answer is what explain prints with --json.
type answer struct {
	messages.Explanation
	Live    bool             `json:"live"` // a leader answered; else only the decisions are known
	Decided []messages.Event `json:"decisions"`
}

func (a *app) explain(ctx context.Context, cmd *cobra.Command, b *bus.Bus, name string, last int, all bool) error {
	out := answer{Live: true}
	// A leader answers in a millisecond. A third of the time is left to the stored events.
	ask, cancel := context.WithTimeout(ctx, a.timeout/3*2)
	var err error
	out.Explanation, err = coordinator.Explain(ask, b, name)
	cancel()
	switch messages.CodeOf(err) {
	case "":
	case messages.CodeUnavailable:
		out.Live = false
	default:
		return err
	}
	events, err := storedEvents(ctx, b)
	return a.answer(cmd, out, name, events, err, last, all)
}

// answer prints what a leader said, and out of the stored events what was decided; unread is
// why these could not be read, which is no reason to keep back what the leader said.
func (a *app) answer(cmd *cobra.Command, out answer, name string, events []messages.Event, unread error, last int, all bool) error {
	if unread != nil {
		if !out.Live {
			return unread
		}
		notef(cmd, "the stored events cannot be read, so only what the leader remembers of its decisions is told: %v\n", unread)
	}
	out.Decided = about(events, name, out.Explanation)
	if !out.Live && len(out.Decided) == 0 {
		return messages.Errorf(messages.CodeUnavailable, "explain %s: no coordinator answers, and no stored event is about it; start one with `fleetbus up` or `fleetbus coordinator`", name)
	}
	if last > 0 && len(out.Decided) > last {
		out.Decided = out.Decided[len(out.Decided)-last:]
	}
	if a.json {
		if out.Replicas == nil {
			out.Replicas = []messages.WhyReplica{}
		}
		if out.Decided == nil {
			out.Decided = []messages.Event{}
		}
		return a.printJSON(cmd, out)
	}
	if !out.Live {
		notef(cmd, "no coordinator answers: why it is so now is not known, only what was decided; start one with `fleetbus up` or `fleetbus coordinator`\n")
	}
	printExplanation(cmd, out, all)
	return nil
}

// about picks the events of a task, a replica or an agent, the oldest first. The leader
// remembers some that the stream, which is written without waiting, may have missed.
func about(events []messages.Event, name string, e messages.Explanation) []messages.Event {
	var out []messages.Event
	seen := make(map[string]bool)
	add := func(list []messages.Event) {
		for _, ev := range list {
			if ev.Agent != name && ev.Task != name && ev.ID != name {
				continue
			}
			key := ev.Time.UTC().Format(time.RFC3339Nano) + " " + ev.Kind + " " + ev.Agent + " " + ev.ID
			if !seen[key] {
				seen[key] = true
				out = append(out, ev)
			}
		}
	}
	add(events)
	add(e.History)
	for _, r := range e.Replicas {
		add(r.History)
	}
	slices.SortStableFunc(out, func(x, y messages.Event) int {
		// Terms first: two leaders' clocks are not compared.
		return cmp.Or(x.Term.Compare(y.Term), x.Time.Compare(y.Time))
	})
	return out
}

func printExplanation(cmd *cobra.Command, e answer, all bool) {
	if e.Agent != "" {
		printf(cmd, "agent %s is %s\n", e.Agent, e.State)
		if len(e.Replicas) == 0 {
			printf(cmd, "  nothing is placed there\n")
		}
	}
	if e.Task != "" && e.Agent == "" && len(e.Replicas) == 0 {
		printf(cmd, "task %s is to run and has no replica: it wants one for each robot or site, and there is none\n", e.Task)
	}
	for _, r := range e.Replicas {
		printWhy(cmd, r, all)
	}
	if e.More > 0 {
		printf(cmd, "… and %d more replicas; `fleetbus placements --task TASK` lists them, `fleetbus explain TASK/SUFFIX` explains one\n", e.More)
	}
	if len(e.Decided) == 0 {
		return
	}
	printf(cmd, "what was decided, the latest last:\n")
	for _, ev := range e.Decided {
		printf(cmd, "  %s\n", eventLine(&ev))
	}
}

func printWhy(cmd *cobra.Command, r messages.WhyReplica, all bool) {
	where := "waits"
	if r.Info.Agent != "" {
		where = string(r.Info.State) + " on " + r.Info.Agent
	}
	if r.Info.To != "" {
		where += ", moving to " + r.Info.To
	}
	printf(cmd, "%s: %s\n", r.Info.ID, where)
	if why := why(r.Info); why != "" {
		printf(cmd, "  why: %s\n", why)
	}
	shown := 0
	for _, v := range r.Verdicts {
		if v.Chosen {
			printf(cmd, "  here on %s: %s\n", v.Agent, v.Text)
			continue
		}
		if shown++; shown > nearMisses && !all {
			continue
		}
		word := "not on"
		if v.Fits {
			word = "could be on"
		}
		printf(cmd, "  %s %s: %s\n", word, v.Agent, v.Text)
	}
	hidden := r.More
	if !all {
		hidden += max(0, shown-nearMisses)
	}
	if hidden > 0 {
		printf(cmd, "  … %d other machines are not shown; --all lists the first hundred\n", hidden)
	}
}

// storedEvents reads the event stream; none where there is no stream yet.
func storedEvents(ctx context.Context, b *bus.Bus) ([]messages.Event, error) {
	const tried = "read the events"
	consumer, err := b.JS.OrderedConsumer(ctx, bus.EventStreamName(b.Fleet), jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, bus.Explain(err, tried)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, bus.Explain(err, tried)
	}
	if info.NumPending == 0 {
		return nil, nil
	}
	stored, err := consumer.Messages()
	if err != nil {
		return nil, bus.Explain(err, tried)
	}
	defer stored.Stop()
	var out []messages.Event
	for {
		m, err := stored.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, bus.Explain(err, tried)
		}
		var e messages.Event
		if err := messages.Decode(m.Data(), &e); err == nil { // what is no event of ours is not about anything
			out = append(out, e)
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, bus.Explain(err, tried)
		}
		if meta.NumPending == 0 {
			return out, nil
		}
	}
}

// eventLine is an event in one line.
func eventLine(e *messages.Event) string {
	var b strings.Builder
	b.WriteString(e.Time.Local().Format("2006-01-02 15:04:05.000") + "  " + e.Kind)
	switch {
	case e.ID != "":
		b.WriteString("  " + e.ID)
	case e.Task != "":
		b.WriteString("  " + e.Task)
	}
	if e.Agent != "" {
		b.WriteString("  on " + e.Agent)
	}
	if e.Reason != "" {
		b.WriteString("  (" + e.Reason + ")")
	}
	return b.String()
}
