package main

import (
	"context"
	"errors"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/spf13/cobra"
)

func doctorCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check the server, the permissions and the fleet, and say what to do",
		Long: `Check the server, the permissions and the fleet, and say what to do.

✓ is well, ! works but deserves a look, ✗ must be mended; with a ✗ the exit status is 1.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{app: a, cmd: cmd}
			d.run(cmd.Context())
			return d.report()
		},
	}
}

// status of a check.
type status string

const (
	good status = "ok"
	warn status = "warn"
	bad  status = "fail"
)

func (s status) mark() string {
	return map[status]string{good: "✓", warn: "!", bad: "✗"}[s]
}

// finding is what one check found.
type finding struct {
	Check  string `json:"check"`
	Status status `json:"status"`
	Found  string `json:"found"`
	Do     string `json:"do,omitempty"` // what to do; "" where there is nothing to do
}

// doctor runs the checks. Each adds findings; only the connection must stand for the rest.
type doctor struct {
	*app
	cmd      *cobra.Command
	findings []finding
	off      bool // JetStream does not answer
}

func (d *doctor) add(check string, s status, found, do string) {
	d.findings = append(d.findings, finding{check, s, found, do})
}

func (d *doctor) run(ctx context.Context) {
	b := d.connect(ctx)
	if b == nil {
		return
	}
	defer b.Conn.Close()
	for _, check := range []func(context.Context, *bus.Bus){
		d.versions, d.payload, d.permissions, d.clock, d.jetstream, d.assets, d.leader, d.stops, d.synced,
	} {
		// Each check has the whole --timeout: one that gets no answer must not take the
		// others' time.
		one, cancel := d.within(ctx)
		check(one, b)
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// connect opens the connection of all checks.
func (d *doctor) connect(ctx context.Context) *bus.Bus {
	o, err := d.resolve("fleetbus doctor")
	if err != nil {
		found, do := advice(err)
		d.add("connection", bad, found, do)
		return nil
	}
	where := bus.Redact(strings.Join(o.Servers, ","))
	nc, err := dial(ctx, o, d.mustLog(d.cmd, levelQuiet))
	if err != nil {
		found, do := advice(err)
		d.add("connection", bad, found, do)
		return nil
	}
	rtt, err := nc.RTT()
	if err != nil {
		d.add("connection", bad, where+": connected, but it does not answer a ping: "+err.Error(), "is the server overloaded or stopped?")
		nc.Close()
		return nil
	}
	d.add("connection", good, where+" answers in "+millis(max(float64(rtt.Microseconds())/1000, 0.001)), "")
	b, err := bus.New(nc, d.fleet, 0)
	if err != nil {
		d.add("connection", bad, oneLine(err), "")
		nc.Close()
		return nil
	}
	return b
}

// advice parts an error, "what: why; what to do", into what was found and what to do.
func advice(err error) (found, do string) {
	text := err.Error()
	var ours *messages.Error
	if errors.As(err, &ours) {
		text = ours.Message
	}
	found, do, _ = strings.Cut(text, "; ")
	// Whoever reads this has asked the doctor already.
	do = strings.TrimSuffix(strings.TrimSuffix(do, "; `fleetbus doctor` tells more"), ", or ask `fleetbus doctor`")
	return found, do
}

func (d *doctor) report() error {
	worst := good
	for _, f := range d.findings {
		if f.Status == bad || worst == good {
			worst = f.Status
		}
	}
	if d.json {
		if err := d.printJSON(d.cmd, map[string]any{"ok": worst != bad, "checks": d.findings}); err != nil {
			return err
		}
	} else {
		for _, f := range d.findings {
			printf(d.cmd, "%s %s: %s\n", f.Status.mark(), f.Check, f.Found)
			if f.Do != "" {
				printf(d.cmd, "    → %s\n", f.Do)
			}
		}
	}
	if worst == bad {
		return silentError{}
	}
	return nil
}
