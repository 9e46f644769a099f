package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/artifact"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/spf13/cobra"
)

func artifactsCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "artifacts",
		Short: "Keep what tasks run: push, list and remove models and programs",
		Long: `Keep what tasks run in the fleet's store. An artifact is a file under its SHA-256; a task
names it (run.artifact in the fleet file), and every agent that is to run the task fetches and
verifies it. What was pushed never changes: a new version is another artifact.`,
		Example: `  fleetbus artifacts push pi0-droid.safetensors
  fleetbus artifacts ls
  fleetbus artifacts rm 3f5a90c1`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(artifactsPushCmd(a), artifactsListCmd(a), artifactsRmCmd(a))
	return cmd
}

// withStore opens a connection for one command about artifacts. What it does is not bounded by
// --timeout: a large file takes as long as it takes, and each step of it has a limit of its own.
func (a *app) withStore(cmd *cobra.Command, do func(context.Context, *bus.Bus) error) error {
	open, cancel := a.within(cmd.Context())
	defer cancel()
	b, done, err := a.bus(open, a.shortLog(cmd))
	if err != nil {
		return err
	}
	defer done()
	return do(cmd.Context(), b)
}

func artifactsPushCmd(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "push FILE",
		Short: "Put a file, or with - standard input, into the store, and print its SHA-256",
		Long: `Put a file, or with - standard input, into the store, and print its SHA-256, which is what
run.artifact of a task names. What is there already is not sent again.`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, size := cmd.InOrStdin(), int64(0)
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return usageError{fmt.Errorf("read the artifact: %w", err)}
				}
				defer f.Close()
				info, err := f.Stat()
				switch {
				case err != nil:
					return usageError{fmt.Errorf("read the artifact: %w", err)}
				case info.IsDir():
					return usagef("%s is a directory, an artifact is one file; make it one with tar, and have the command unpack it", args[0])
				}
				body, size = f, info.Size()
				if name == "" {
					name = filepath.Base(args[0])
				}
			}
			if len(name) > maxArtifactName || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' }) {
				return usagef("--name: found %d bytes, allowed are %d, in one line", len(name), maxArtifactName)
			}
			return a.withStore(cmd, func(ctx context.Context, b *bus.Bus) error {
				called := name
				if called == "" {
					called = "standard input"
				}
				bar := newPushBar(cmd, a.json, called, size)
				pushed, there, err := artifact.Push(ctx, b, name, operator(), body, bar.sent)
				bar.end(err)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, map[string]any{"artifact": pushed, "already_there": there})
				}
				printf(cmd, "%s\n", pushed.Digest)
				if there {
					notef(cmd, "it is there already, as %q, %s\n", pushed.Name, messages.Bytes(pushed.Size))
				} else {
					notef(cmd, "%s, %s; name it in a task with run.artifact\n", called, messages.Bytes(pushed.Size))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` for people (default that of the file)")
	return cmd
}

// maxArtifactName bounds the name of an artifact, bytes.
const maxArtifactName = 128

// pushBar shows how far a push is, on standard error: the answer is the digest.
type pushBar struct {
	bars  *bars
	line  watched
	size  int64 // 0: not known
	now   int64 // bytes that are sent
	begun time.Time
	drawn time.Time
}

func newPushBar(cmd *cobra.Command, json bool, name string, size int64) *pushBar {
	return &pushBar{bars: newErrorBars(cmd, json), line: watched{id: name, state: "SENDING"}, size: size, begun: time.Now()}
}

// barEvery is how often an eye wants to see something new.
const barEvery = 100 * time.Millisecond

func (p *pushBar) sent(n int64) {
	p.now = n
	if p.bars.json || time.Since(p.drawn) < barEvery {
		return
	}
	p.drawn = time.Now()
	p.draw(n)
}

func (p *pushBar) draw(n int64) {
	p.line.note = messages.Bytes(n)
	if s := time.Since(p.begun).Seconds(); s > 0.5 {
		p.line.note += ", " + messages.Bytes(int64(float64(n)/s)) + "/s"
	}
	if p.size > 0 {
		p.line.done = min(float64(n)/float64(p.size), 1)
	}
	p.bars.draw([]watched{p.line}, 0)
}

// end leaves the last line as it is to be read; where nothing was sent it draws none.
func (p *pushBar) end(err error) {
	if p.drawn.IsZero() {
		return
	}
	if p.line.state = "STORED"; err != nil {
		p.line.state = "FAILED"
		p.bars.draw([]watched{p.line}, 0)
		return
	}
	p.size = p.now // of what came from a pipe it is known now
	p.draw(p.now)
}

func artifactsListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the artifacts of the fleet, and the tasks that run them",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd, func(ctx context.Context, b *bus.Bus) error {
				ctx, cancel := a.within(ctx)
				defer cancel()
				list, err := artifact.List(ctx, b)
				if err != nil {
					return err
				}
				users, err := artifactUsers(ctx, b)
				if err != nil {
					return err
				}
				if a.json {
					type entry struct {
						artifact.Artifact
						Tasks []string `json:"tasks"`
					}
					out := []entry{}
					for _, x := range list {
						out = append(out, entry{x, append([]string{}, users[x.Digest]...)})
					}
					return a.printJSON(cmd, out)
				}
				t := newTable("SHA-256", "NAME", "SIZE", "PUSHED", "BY", "TASKS")
				for _, x := range list {
					t.add(x.Digest, x.Name, messages.Bytes(x.Size), x.Pushed.Local().Format(time.DateTime), x.By, strings.Join(users[x.Digest], ","))
				}
				if err := t.print(cmd); err != nil {
					return err
				}
				there := make(map[string]bool)
				for _, x := range list {
					there[x.Digest] = true
				}
				for digest, tasks := range users {
					if !there[digest] {
						notef(cmd, "missing: %s, which %s names\n", digest, strings.Join(tasks, ", "))
					}
				}
				dead, bytes, err := artifact.Unfinished(ctx, b, artifact.UnfinishedAfter)
				if len(dead) > 0 {
					notef(cmd, "unfinished: %d pushes that died hold up to %s; `fleetbus artifacts rm --unfinished` removes that\n", len(dead), messages.Bytes(bytes))
				}
				return err
			})
		},
	}
}

// artifactUsers are the tasks that name artifacts, by digest.
func artifactUsers(ctx context.Context, b *bus.Bus) (map[string][]string, error) {
	desired, err := coordinator.ReadDesired(ctx, b)
	if err != nil {
		return nil, err
	}
	users := make(map[string][]string)
	for _, t := range desired.Tasks {
		if t.Run == nil {
			continue
		}
		for _, digest := range t.Run.Artifacts() {
			users[digest] = append(users[digest], t.Name)
		}
	}
	return users, nil
}

func artifactsRmCmd(a *app) *cobra.Command {
	var force, unfinished bool
	cmd := &cobra.Command{
		Use:   "rm DIGEST|NAME | --unfinished",
		Short: "Remove an artifact that no task names; the first digits of its SHA-256 will do",
		Long: `Remove an artifact from the store. One that a task names is kept, unless --force is given:
agents that have it go on, others could not run the task any more.

--unfinished removes what pushes have left in the store that were killed in the midst, and have
stored nothing for an hour.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if unfinished {
				return noArgs(cmd, args)
			}
			return exactArgs("DIGEST")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if unfinished {
				return a.removeUnfinished(cmd)
			}
			return a.withStore(cmd, func(ctx context.Context, b *bus.Bus) error {
				ctx, cancel := a.within(ctx)
				defer cancel()
				list, err := artifact.List(ctx, b)
				if err != nil {
					return err
				}
				x, err := artifact.Match(list, args[0])
				if err != nil {
					return err
				}
				users, err := artifactUsers(ctx, b)
				if err != nil {
					return err
				}
				if tasks := users[x.Digest]; len(tasks) > 0 && !force {
					return messages.Errorf(messages.CodeConflict, "artifact %s (%s) is what %s runs; change or delete the task first, or say --force", artifact.Short(x.Digest), x.Name, strings.Join(tasks, ", "))
				}
				if err := artifact.Remove(ctx, b, x); err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, map[string]any{"removed": x})
				}
				printf(cmd, "artifact %s (%s) removed\n", artifact.Short(x.Digest), x.Name)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove it although a task names it")
	cmd.Flags().BoolVar(&unfinished, "unfinished", false, "remove what pushes have left that died")
	return cmd
}

func (a *app) removeUnfinished(cmd *cobra.Command) error {
	return a.withStore(cmd, func(ctx context.Context, b *bus.Bus) error {
		ctx, cancel := a.within(ctx)
		defer cancel()
		if _, err := b.Objects(ctx, bus.Artifacts); err != nil { // makes it where it is missing
			return err
		}
		n, bytes, err := artifact.RemoveUnfinished(ctx, b, artifact.UnfinishedAfter)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(cmd, map[string]any{"pushes": n, "bytes": bytes})
		}
		printf(cmd, "%d unfinished pushes removed, up to %s\n", n, messages.Bytes(bytes))
		return nil
	})
}
