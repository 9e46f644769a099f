package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
)

// requestFlags are the flags that all classes of requests share.
type requestFlags struct {
	bodyFlags
	origin, contentType string
	deadline, waitReady time.Duration
	stream              bool
}

// waitReadyDefault is how long a request waits for its task to be placed. Starting
// agents, applying a file and asking is one script: it takes a few seconds, and ten are
// more patience than a person has.
const waitReadyDefault = 10 * time.Second

// readyInterval is the time between two attempts while a task is not placed yet. It is
// well under the second that an agent's heartbeat takes, so the wait adds little to it.
const readyInterval = 100 * time.Millisecond

func requestCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "request",
		Short: "Send one request and print the answer",
		Long: `Send one request and print the answer's body on standard output, and who gave it and how
long it took on standard error.`,
		Example: `  fleetbus request inference grasp --data @observation.bin > answer.bin
  fleetbus request action robot-1 move --data '{"x": 1}' --deadline 100ms
  fleetbus request training finetune --file job.json --wait`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(inferenceCmd(a), actionCmd(a), trainingCmd(a))
	return cmd
}

func (r *requestFlags) define(cmd *cobra.Command) {
	r.bodyFlags.define(cmd)
	f := cmd.Flags()
	f.StringVar(&r.origin, "origin", "", "`NAME` of who asks; permissions may demand one (default a random one)")
	f.StringVar(&r.contentType, "content-type", "", "`TYPE` of the body, passed through")
	f.DurationVar(&r.deadline, "deadline", 0, "how long an answer is worth waiting for (default the task's)")
	f.DurationVar(&r.waitReady, "wait-ready", waitReadyDefault, "how long to wait for the task to be placed; 0 does not wait")
}

func (r *requestFlags) check() error {
	if r.deadline < 0 || r.waitReady < 0 {
		return usagef("--deadline, --wait-ready: found %v and %v, allowed is 0 or more", r.deadline, r.waitReady)
	}
	if r.origin == "" {
		r.origin = "cli-" + nuid.Next()
	}
	return optionalName("--origin", r.origin)
}

// defineStream adds --stream, for classes whose requests answer.
func (r *requestFlags) defineStream(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.stream, "stream", false, "print partial results as they come, before the answer, and progress on standard error")
}

// onPartial prints partial results; nil without --stream.
func (a *app) onPartial(cmd *cobra.Command, r requestFlags, id string) func(router.Partial) {
	if !r.stream {
		return nil
	}
	return func(p router.Partial) {
		switch {
		case a.json:
			out := map[string]any{"id": id, "agent": p.Agent, "attempt": p.Attempt}
			if p.Number > 0 {
				out["part"], out["content_type"], out["body_base64"] = p.Number, p.ContentType, p.Body
			} else {
				out["done"], out["note"] = p.Done, p.Note
			}
			_ = a.printJSON(cmd, out) // a closed output is reported with the answer
		case p.Number > 0:
			_, _ = cmd.OutOrStdout().Write(p.Body) // likewise
		default:
			notef(cmd, "%.0f %% %s\n", 100*p.Done, p.Note)
		}
	}
}

// optionalName checks the name that a flag gives, where it gives one.
func optionalName(flag, name string) error {
	if name == "" {
		return nil
	}
	if err := messages.CheckName(flag, name); err != nil {
		return usageError{err}
	}
	return nil
}

func inferenceCmd(a *app) *cobra.Command {
	var r requestFlags
	var key string
	cmd := &cobra.Command{
		Use:   "inference TASK",
		Short: "Ask a model; retried elsewhere within the deadline",
		Args:  exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := optionalName("--key", key); err != nil {
				return err
			}
			body, err := r.prepare(cmd)
			if err != nil {
				return err
			}
			id := nuid.Next()
			return a.ask(cmd, r, id, func(ctx context.Context, c *router.Client) (*router.Answer, error) {
				return c.Infer(ctx, router.Inference{ID: id, Task: args[0], Key: key, Body: body, ContentType: r.contentType, Deadline: r.deadline, OnPartial: a.onPartial(cmd, r, id)})
			})
		},
	}
	r.define(cmd)
	r.defineStream(cmd)
	cmd.Flags().StringVar(&key, "key", "", "of the observations of one `KEY` and origin only the newest counts")
	return cmd
}

func actionCmd(a *app) *cobra.Command {
	var r requestFlags
	var episode string
	var seq uint64
	var queue bool
	cmd := &cobra.Command{
		Use:   "action ROBOT TASK",
		Short: "Make a robot do something, at most once; never retried after it was sent",
		Args:  exactArgs("ROBOT", "TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := r.prepare(cmd)
			if err != nil {
				return err
			}
			if err := optionalName("--episode", episode); err != nil {
				return err
			}
			if seq == 0 {
				return usagef("--seq: found 0, allowed is 1 or more")
			}
			if episode == "" {
				episode = "cli-" + nuid.Next()
			}
			id := nuid.Next()
			return a.ask(cmd, r, id, func(ctx context.Context, c *router.Client) (*router.Answer, error) {
				return c.Act(ctx, router.Action{ID: id, Robot: args[0], Task: args[1], Episode: episode, Seq: seq, Queue: queue, Body: body, ContentType: r.contentType, Deadline: r.deadline, OnPartial: a.onPartial(cmd, r, id)})
			})
		},
	}
	r.define(cmd)
	r.defineStream(cmd)
	cmd.Flags().StringVar(&episode, "episode", "", "`NAME` of the run of commands that --seq counts in (default a fresh one)")
	cmd.Flags().BoolVar(&queue, "queue", false, "let it wait in the journal, within --deadline, where the robot is not connected")
	cmd.Flags().Uint64Var(&seq, "seq", 1, "position in the episode; the robot refuses what is not newer")
	return cmd
}

// prepare checks the flags and reads the body.
func (r *requestFlags) prepare(cmd *cobra.Command) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return r.read(cmd)
}

// client runs a router client while use runs.
func (a *app) client(cmd *cobra.Command, r requestFlags, use func(ctx context.Context, c *router.Client) error) error {
	ctx, log := cmd.Context(), a.shortLog(cmd)
	nc, err := a.connect(ctx, "fleetbus cli", log)
	if err != nil {
		return err
	}
	defer nc.Close()
	c := router.NewClient(nc, router.Config{Fleet: a.fleet, Site: a.site, Origin: r.origin, Logger: log})
	ctx, cancel := context.WithCancel(ctx)
	// The client outlives the question: it withdraws what a Ctrl-C interrupts, and knows
	// whether a robot had it already.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(life)
		cancel() // use must not wait for a client that has stopped
	}()
	ready, stop := context.WithTimeout(ctx, max(r.waitReady, a.timeout))
	err = c.Ready(ready)
	stop()
	if err == nil {
		err = use(ctx, c)
	}
	cancel()
	end()
	if failed := <-ended; failed != nil && !errors.Is(failed, context.Canceled) {
		return failed
	}
	return err
}

// ask sends one request, as often as it takes for the task to be placed, and prints the
// answer.
func (a *app) ask(cmd *cobra.Command, r requestFlags, id string, send func(context.Context, *router.Client) (*router.Answer, error)) error {
	return a.client(cmd, r, func(ctx context.Context, c *router.Client) error {
		began := time.Now()
		var answer *router.Answer
		err := r.whenPlaced(ctx, func() (err error) {
			began = time.Now()
			answer, err = send(ctx, c)
			return err
		})
		took := time.Since(began)
		if err != nil {
			if a.json {
				if err := a.printJSON(cmd, failure(id, err, took)); err != nil {
					return err
				}
				return printedError{err}
			}
			return err
		}
		return a.printAnswer(cmd, id, answer)
	})
}

// whenPlaced repeats do while its error says that nothing has run because the task is not
// placed (yet), until --wait-ready is over.
func (r requestFlags) whenPlaced(ctx context.Context, do func() error) error {
	until := time.Now().Add(r.waitReady)
	for {
		err := do()
		switch messages.CodeOf(err) {
		case messages.CodeNotFound, messages.CodeNotPlaced, messages.CodeNoCapacity, messages.CodeNotConnected:
		default:
			return err
		}
		if time.Until(until) < readyInterval {
			return err
		}
		select {
		case <-time.After(readyInterval):
		case <-ctx.Done():
			return err
		}
	}
}

// failure is the JSON of a request that ended in an error.
func failure(id string, err error, took time.Duration) map[string]any {
	return map[string]any{"id": id, "total_ms": inMillis(took), "error": errorJSON(err)}
}

func (a *app) printAnswer(cmd *cobra.Command, id string, answer *router.Answer) error {
	if a.json {
		return a.printJSON(cmd, map[string]any{
			"id": id, "agent": answer.Agent, "attempt": answer.Attempt, "content_type": answer.ContentType,
			"service_ms": inMillis(answer.Service), "total_ms": inMillis(answer.Total), "body_base64": answer.Body,
		})
	}
	if _, err := cmd.OutOrStdout().Write(answer.Body); err != nil {
		return writing(err)
	}
	again := ""
	if answer.Attempt > 1 {
		again = fmt.Sprintf(", attempt %d", answer.Attempt)
	}
	notef(cmd, "%sanswered by %s in %.1f ms (%.1f ms of it service%s)\n", newline(answer.Body), answer.Agent, inMillis(answer.Total), inMillis(answer.Service), again)
	return nil
}

// newline keeps the note off the end of a body that has no line end of its own.
func newline(body []byte) string {
	if len(body) > 0 && body[len(body)-1] != '\n' {
		return "\n"
	}
	return ""
}
