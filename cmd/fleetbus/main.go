package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version = "dev"

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == guardWord {
		os.Exit(guardProcess(os.Args[2:])) // nothing else of this program: it stays for as long as what it guards
	}
	os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs one command line and returns the exit status.
func execute(args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := withSignals(context.Background(), errw)
	defer stop()

	a := &app{}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = messages.Errorf(messages.CodeCanceled, "stopped by a signal before it was done")
	}
	var usage usageError
	isUsage := !a.started || errors.As(err, &usage)
	var silent silentError
	if !errors.As(err, &silent) {
		fmt.Fprintln(errw, "fleetbus: "+oneLine(err))
		var printed printedError
		if a.json && !errors.As(err, &printed) {
			if isUsage {
				err = messages.AsError(err, messages.CodeBadRequest)
			}
			_ = json.NewEncoder(out).Encode(map[string]any{"error": errorJSON(err)}) // the status says it too
		}
	}
	var status statusError
	switch {
	case errors.As(err, &status):
		return status.status
	case isUsage:
		return exitUsage
	}
	return exitFailure
}

// usageError is a mistake on the command line or in a file named there: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return usageError{messages.Errorf(messages.CodeBadRequest, format, args...)}
}

// statusError fails the command with an exit status of its own.
type statusError struct {
	err    error
	status int
}

func (e statusError) Error() string { return e.err.Error() }
func (e statusError) Unwrap() error { return e.err }

// silentError fails the command without a further word: its output has said it all.
type silentError struct{}

func (silentError) Error() string { return "failed" }

// printedError is an error that stands in the JSON of the answer already.
type printedError struct{ err error }

func (e printedError) Error() string { return e.err.Error() }
func (e printedError) Unwrap() error { return e.err }

// errorJSON is an error for programs.
func errorJSON(err error) map[string]any {
	e := messages.AsError(err, messages.CodeInternal)
	return map[string]any{
		"code": e.Code, "message": e.Message, "advice": e.Code.Advice().String(), "retry_after_ms": inMillis(e.RetryAfter),
	}
}

// oneLine is an error for people. The code of ours is for programs (--json has it), so it
// stands at the end, and only where the message does not speak for itself.
func oneLine(err error) string {
	text := err.Error()
	var ours *messages.Error
	var usage usageError
	if errors.As(err, &ours) {
		text = strings.Replace(text, ours.Error(), ours.Message, 1)
		if ours.Code != messages.CodeBadRequest && !errors.As(err, &usage) {
			text += " [" + string(ours.Code) + "]"
		}
	}
	return strings.Join(strings.Fields(text), " ")
}

// echo is how long after the first signal another one is taken for the same wish: a
// terminal and a parent that passes signals on (timeout, npm, some supervisors) both send
// it, microseconds apart. Nobody presses Ctrl-C twice in that time.
const echo = 20 * time.Millisecond

// withSignals returns a context that the first SIGINT or SIGTERM cancels, so that agents
// drain and servers close their stores. The second one exits at once: a person who asks
// twice does not want to wait for a drain.
func withSignals(parent context.Context, errw io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	done := make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		for first := time.Now(); ; {
			select {
			case <-signals:
				if time.Since(first) < echo {
					continue
				}
				fmt.Fprintln(errw, "fleetbus: stopped by a second signal; work in flight was not finished")
				os.Exit(exitFailure)
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

// newRoot makes the command tree. All subcommands are listed here and nowhere else.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "fleetbus",
		Short: "A message bus and a task placer for robot fleets, on NATS",
		Long: `fleetbus places training, inference and action tasks on robots, edge boxes and clouds,
and carries requests to them over NATS.

Start here:
  fleetbus up                                        server, coordinator and router on this machine
  fleetbus agent --id robot-1 --tier robot \
    --compute 10TFLOPS --simulate                    one agent per robot, edge box or cloud node
  fleetbus apply -f configs/smart-factory.yaml       what is to run
  fleetbus request inference inference --data hi     ask for an answer
  fleetbus doctor                                    what is wrong, and what to do`,
		Version:       versionString(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	a.flags(root)
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run the parts:"},
		&cobra.Group{ID: "use", Title: "Use the fleet:"},
		&cobra.Group{ID: "look", Title: "Look at it:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", upCmd(a), agentCmd(a), coordinatorCmd(a), routerCmd(a), gatewayCmd(a), serverCmd(a), demoCmd(a))
	add("use", applyCmd(a), deleteCmd(a), drainCmd(a), undrainCmd(a), forgetCmd(a), stopCmd(a), releaseCmd(a), planCmd(a), requestCmd(a), jobCmd(a), jobsCmd(a))
	add("look", doctorCmd(a), agentsCmd(a), tasksCmd(a), placementsCmd(a), eventsCmd(a), waitCmd(a), versionCmd(a))
	add("use", diffCmd(a), rollbackCmd(a))
	add("look", explainCmd(a), versionsCmd(a))
	add("use", syncCmd(a), sendCmd(a), inboxCmd(a))
	add("use", artifactsCmd(a))
	add("look", logsCmd(a))
	mark(root, &a.started)
	return root
}

// knownCommand refuses what is no subcommand, and says which one is near.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2 // two letters wrong are a typing error, three another word
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "? "
	}
	return fmt.Errorf("unknown command %q; %s`%s --help` lists the commands", args[0], hint, cmd.CommandPath())
}

// mark makes every command note that it has begun: what fails before that is a mistake
// on the command line.
func mark(c *cobra.Command, started *bool) {
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	}
	if run := c.Run; run != nil {
		c.Run = func(cmd *cobra.Command, args []string) {
			*started = true
			run(cmd, args)
		}
	}
	for _, sub := range c.Commands() {
		mark(sub, started)
	}
}

// versionString is what the linker set; for `go install` it is the module's version.
func versionString() string {
	if version != "dev" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}
