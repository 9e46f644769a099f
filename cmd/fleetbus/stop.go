package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

// notHardware stands wherever somebody could rely on a stop.
const notHardware = "It supplements a hardware stop and never replaces it: a robot that hangs, or has no link, hears nothing."

func stopCmd(a *app) *cobra.Command {
	return a.orderCmd(true, &cobra.Command{
		Use:   "stop ROBOT|--all",
		Short: "Stop a robot, or all: cancel its actions and refuse new ones until it is released",
		Long: `Stop a robot, or all of them: actions that run are canceled at once, queued and new ones
are refused, until ` + "`fleetbus release`" + `. A robot that is away finds the order when it comes back,
and one that is restarted stays stopped. It prints who has acknowledged and names who has
not; then, or where the order could not be saved, the exit status is 1. --timeout is how
long it waits for answers.

` + notHardware,
		Example: "  fleetbus stop robot-1 --reason 'somebody is in the cell'\n  fleetbus stop --all --timeout 2s --json",
	})
}

func releaseCmd(a *app) *cobra.Command {
	return a.orderCmd(false, &cobra.Command{
		Use:   "release ROBOT|--all",
		Short: "Release a robot, or all, after a stop or a lost link: it takes actions again",
		Long: `Release a robot, or all of them: it takes actions again. Look at it first.

A robot that had lost its link and stopped by itself has to hear the release; one that was
stopped by an order and is away finds it when it comes back. --all does not release a
robot that was stopped by name: name it. What had reached a robot's server before its
release never runs. Where another order came while the release was being saved it is not
sent: look again.`,
		Example: "  fleetbus release robot-1\n  fleetbus release --all",
	})
}

// orderCmd adds what both have in common.
func (a *app) orderCmd(stop bool, cmd *cobra.Command) *cobra.Command {
	var all bool
	var reason string
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o := safety.Order{Reason: reason, By: operator()}
		switch {
		case all == (len(args) == 1):
			return usagef("%s: name one robot, or give --all; found %d names and --all=%v", cmd.CommandPath(), len(args), all)
		case len(args) == 1:
			if err := messages.CheckName("robot", args[0]); err != nil {
				return usageError{err}
			}
			o.Robot = args[0]
		}
		return a.order(cmd, stop, o)
	}
	cmd.Flags().BoolVar(&all, "all", false, "all robots of the fleet")
	cmd.Flags().StringVar(&reason, "reason", "", "`WHY`, for other people")
	return cmd
}

// operator says who gives an order, for other people.
func operator() string {
	host, _ := os.Hostname() // without one the name of the user has to do
	return strings.Trim(os.Getenv("USER")+"@"+host, "@")
}

func (a *app) order(cmd *cobra.Command, stop bool, o safety.Order) error {
	ctx, cancel := a.within(cmd.Context())
	defer cancel()
	// This connection carries the order, its answers and nothing else.
	nc, err := a.connect(ctx, "fleetbus "+cmd.Name(), a.shortLog(cmd))
	if err != nil {
		return err
	}
	defer nc.Close()
	give := safety.Release
	if stop {
		give = safety.Stop
	}
	r, err := give(ctx, nc, a.fleet, o)
	if err != nil {
		return err
	}
	failed := orderError(r)
	if a.json {
		if err := a.printJSON(cmd, orderJSON(r, failed)); err != nil {
			return err
		}
		if failed != nil {
			return printedError{failed}
		}
		return nil
	}
	if err := orderTable(cmd, r); err != nil {
		return err
	}
	return failed
}

// orderError says what is not as it was ordered; nil where all is.
func orderError(r safety.Report) error {
	if r.Done() {
		return nil
	}
	code := messages.CodeNotConnected
	var faults []string
	if len(r.Missing) > 0 {
		faults = append(faults, fmt.Sprintf("no answer from %s", strings.Join(r.Missing, ", ")))
	}
	for _, a := range r.Undone() {
		switch {
		case a.Error != "":
			faults = append(faults, fmt.Sprintf("%s did not do it: %s", a.Agent, a.Error))
		case r.Stop:
			faults = append(faults, a.Agent+" was released by a newer order")
		default:
			faults = append(faults, fmt.Sprintf("%s stays %s; name it: `fleetbus release %s`", a.Agent, a.Stopped, a.Agent))
		}
	}
	if r.Unlisted != nil {
		code = messages.CodeOf(r.Unlisted)
		faults = append(faults, messages.AsError(r.Unlisted, messages.CodeUnavailable).Message)
	}
	if r.SaveError != nil {
		faults = append(faults, messages.AsError(r.SaveError, messages.CodeUnavailable).Message+", so a robot that is away will not find it; give it again")
	}
	what := "release"
	if r.Stop {
		what = "stop"
	}
	return messages.Errorf(code, "%s: %s", what, strings.Join(faults, "; "))
}

func orderJSON(r safety.Report, failed error) map[string]any {
	acks := make([]map[string]any, 0, len(r.Acks))
	for _, a := range r.Acks {
		acks = append(acks, map[string]any{
			"robot": a.Agent, "after_ms": inMillis(a.Took), "stopped": a.Stopped, "canceled": a.Canceled, "saved": a.Saved, "not_done": a.Error,
		})
	}
	out := map[string]any{
		"stop": r.Stop, "all": r.Robot == "", "order": r.Fence, "saved": r.SaveError == nil, "acknowledged": acks,
		"missing": append([]string{}, r.Missing...), "took_ms": inMillis(r.Took), "done": failed == nil,
	}
	if r.Robot != "" {
		out["robot"] = r.Robot
	}
	if failed != nil {
		out["error"] = errorJSON(failed)
	}
	return out
}

func orderTable(cmd *cobra.Command, r safety.Report) error {
	t := newTable("ROBOT", "STATE", "AFTER", "CANCELED", "NOTE")
	for _, a := range r.Acks {
		state, note := "released", a.Error
		if a.Stopped != "" {
			state = "stopped"
			note = strings.TrimPrefix(note+"; "+a.Stopped, "; ")
		}
		if r.Stop && !a.Saved {
			note += "; not saved there: it ends with a restart of the agent"
		}
		canceled := ""
		if a.Canceled > 0 {
			canceled = fmt.Sprintf("%d running", a.Canceled)
		}
		t.add(a.Agent, state, a.Took.Round(10*time.Microsecond).String(), canceled, note)
	}
	for _, robot := range r.Missing {
		t.add(robot, "NO ANSWER")
	}
	if len(r.Acks)+len(r.Missing) == 0 {
		printf(cmd, "there are no robots\n")
		return nil
	}
	return t.print(cmd)
}

// stops tells who is stopped; where that cannot be read it says so and goes on.
func (a *app) stops(cmd *cobra.Command) safety.State {
	ctx, cancel := a.within(cmd.Context())
	defer cancel()
	b, done, err := a.bus(ctx, a.shortLog(cmd))
	if err == nil {
		defer done()
		var s safety.State
		if s, err = safety.Read(ctx, b); err == nil {
			return s
		}
	}
	notef(cmd, "who is stopped could not be read: %s\n", oneLine(err))
	return safety.State{}
}

// announcer is the part of a process with a coordinator that turns stops into events.
func (a *app) announcer(nc *nats.Conn, cmd *cobra.Command) part {
	return part{"announcer of stops", func(ctx context.Context) error {
		return safety.Announce(ctx, nc, a.fleet, a.serviceLog(cmd))
	}}
}
