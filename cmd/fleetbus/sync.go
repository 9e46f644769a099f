package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

func syncCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Keep maps, models and the like the same on every environment that is to hold them",
		Long: `Keep named data the same on every environment that is to hold them: by tier, site, label or
name. Each agent writes them to its --data-dir, verified, and acknowledges; who is away gets
them when it is back.`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(syncPutCmd(a), syncGetCmd(a), syncLsCmd(a), syncRmCmd(a), syncStatusCmd(a))
	return cmd
}

// audienceFlags say who is to hold something.
type audienceFlags struct {
	tiers, sites, agents []string
	labels               map[string]string
}

func (g *audienceFlags) define(cmd *cobra.Command) {
	g.labels = make(map[string]string)
	f := cmd.Flags()
	f.StringSliceVar(&g.tiers, "tier", nil, "only `TIER`s: robot, edge, cloud; may be repeated")
	f.StringSliceVar(&g.sites, "in-site", nil, "only environments of `SITE`; may be repeated")
	f.StringSliceVar(&g.agents, "agent", nil, "only the agent `NAME`; may be repeated")
	f.Var(labelValue(g.labels), "label", "only environments with `KEY=VALUE`; may be repeated, then all count")
}

func (g *audienceFlags) audience() (messages.Audience, error) {
	to := messages.Audience{Sites: g.sites, Agents: g.agents}
	if len(g.labels) > 0 {
		to.Labels = g.labels
	}
	for _, t := range g.tiers {
		tier, err := messages.ParseTier(t)
		if err != nil {
			return to, usageError{err}
		}
		to.Tiers = append(to.Tiers, tier)
	}
	if err := to.Check(); err != nil {
		return to, usageError{err}
	}
	return to, nil
}

// expectFlag is --revision.
type expectFlag struct{ revision uint64 }

func (e *expectFlag) define(cmd *cobra.Command, usage string) {
	cmd.Flags().Uint64Var(&e.revision, "revision", 0, usage)
}

func (e *expectFlag) value(cmd *cobra.Command) *uint64 {
	if !cmd.Flags().Changed("revision") {
		return nil
	}
	return &e.revision
}

// store opens the fleet's data for one command. What it does is not bounded by --timeout: a
// large body takes as long as it takes, and each step of it has a limit of its own.
func (a *app) store(cmd *cobra.Command, do func(context.Context, *data.Store) error) error {
	open, cancel := a.within(cmd.Context())
	defer cancel()
	b, done, err := a.bus(open, a.shortLog(cmd))
	if err != nil {
		return err
	}
	defer done()
	return do(cmd.Context(), data.NewStore(b))
}

func syncPutCmd(a *app) *cobra.Command {
	var to audienceFlags
	var expect expectFlag
	var contentType string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "put NAME FILE",
		Short: "Give a file to all environments that are to hold it",
		Long: `Give a file, or with - standard input, to all environments that are to hold it: all of the
fleet, or those that the flags name. It replaces what has that name, unless somebody else
writes it meanwhile: then nothing is changed and the exit status is 1. With --revision it
replaces that revision and no other (0: there is to be none).`,
		Example: "  fleetbus sync put hall-2 hall-2.map --tier robot --label hall=2 --wait 1m",
		Args:    exactArgs("NAME", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			audience, err := to.audience()
			if err != nil {
				return err
			}
			if err := messages.CheckName("data", args[0]); err != nil {
				return usageError{err}
			}
			body := cmd.InOrStdin()
			if args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return usageError{fmt.Errorf("read the body: %w", err)}
				}
				defer f.Close()
				body = f
			}
			return a.store(cmd, func(ctx context.Context, s *data.Store) error {
				r, err := s.Put(ctx, data.Body{Name: args[0], For: audience, Type: contentType, By: operator(), Expect: expect.value(cmd)}, body)
				if err != nil {
					return err
				}
				if wait > 0 {
					notef(cmd, "revision %d, %d bytes; waiting until all have it\n", r.Rev, r.Size)
					return a.syncWait(ctx, cmd, s, wait, args[:1])
				}
				if a.json {
					return a.printJSON(cmd, r.Data)
				}
				printf(cmd, "%s revision %d, %d bytes, sha256 %s\n", r.Name, r.Rev, r.Size, r.Digest)
				notef(cmd, "`fleetbus sync status %s` shows who has it\n", r.Name)
				return nil
			})
		},
	}
	to.define(cmd)
	expect.define(cmd, "`REVISION` that is to be replaced (default whatever is there)")
	cmd.Flags().StringVar(&contentType, "type", "", "content `TYPE`, for who reads it")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait `TIME` until all have it, and show who has not")
	return cmd
}

func syncGetCmd(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Write what has a name to standard output, or to a file",
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.store(cmd, func(ctx context.Context, s *data.Store) (err error) {
				if output == "" {
					_, err = s.Get(ctx, args[0], cmd.OutOrStdout())
					return err
				}
				// Whole, or not at all.
				f, err := os.CreateTemp(filepath.Dir(output), ".fleetbus-*")
				if err != nil {
					return usageError{fmt.Errorf("--output: %w", err)}
				}
				defer func() { _ = os.Remove(f.Name()) }() // fails where it was renamed
				r, err := s.Get(ctx, args[0], f)
				if cerr := f.Close(); err == nil {
					err = cerr
				}
				if err == nil {
					err = os.Rename(f.Name(), output)
				}
				if err != nil {
					return err
				}
				notef(cmd, "%s revision %d, %d bytes\n", r.Name, r.Rev, r.Size)
				return nil
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the `FILE`")
	return cmd
}

func syncLsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the data of the fleet, and how many hold them",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.store(cmd, func(ctx context.Context, s *data.Store) error {
				records, lines, err := s.Status(ctx)
				if err != nil {
					return err
				}
				var names []string
				byName := map[string]data.Record{}
				for _, r := range records {
					byName[r.Name] = r
					if !r.Removed {
						names = append(names, r.Name)
					}
				}
				sums := drift.Sums(names, lines)
				if a.json {
					type entry struct {
						messages.Data
						Sum drift.Sum `json:"held"`
					}
					list := []entry{}
					for _, sum := range sums {
						list = append(list, entry{byName[sum.Name].Data, sum})
					}
					return a.printJSON(cmd, list)
				}
				t := newTable("NAME", "REVISION", "BYTES", "FOR", "HELD", "WRITTEN", "BY")
				for _, sum := range sums {
					r := byName[sum.Name]
					t.add(r.Name, strconv.FormatUint(r.Rev, 10), strconv.FormatInt(r.Size, 10), forWhom(r.For), fmt.Sprintf("%d/%d", sum.Synced, sum.All), ago(r.Age), r.By)
				}
				return t.print(cmd)
			})
		},
	}
}

// forWhom says an audience in a few words.
func forWhom(to messages.Audience) string {
	var parts []string
	for _, t := range to.Tiers {
		parts = append(parts, string(t))
	}
	parts = append(append(parts, to.Sites...), to.Agents...)
	if labels := labelValue(to.Labels).String(); labels != "" {
		parts = append(parts, labels)
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, ",")
}

func ago(d time.Duration) string { return d.Round(time.Second).String() + " ago" }

func syncRmCmd(a *app) *cobra.Command {
	var expect expectFlag
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Take data back: every environment removes them",
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.store(cmd, func(ctx context.Context, s *data.Store) error {
				r, err := s.Remove(ctx, args[0], expect.value(cmd), operator())
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(cmd, r.Data)
				}
				printf(cmd, "%s removed; revision %d says so\n", r.Name, r.Rev)
				return nil
			})
		},
	}
	expect.define(cmd, "`REVISION` that is to be removed (default whatever is there)")
	return cmd
}

func syncStatusCmd(a *app) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status [NAME…]",
		Short: "Show who holds what, and who is behind: by revisions, bytes and time",
		Long: `Show who holds what, and who is behind: by how many revisions, bytes and how long. waiting is
who has said nothing yet: it is away, or about to begin. With --wait the exit status is 1
where somebody still is behind when the time is over.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.store(cmd, func(ctx context.Context, s *data.Store) error {
				if wait > 0 {
					return a.syncWait(ctx, cmd, s, wait, args)
				}
				_, lines, err := s.Status(ctx, args...)
				if err != nil {
					return err
				}
				return a.printLines(cmd, lines)
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait `TIME` until nobody is behind")
	return cmd
}

// syncWait waits until nobody is behind, and prints who is in the end.
func (a *app) syncWait(ctx context.Context, cmd *cobra.Command, s *data.Store, wait time.Duration, names []string) error {
	over := time.NewTimer(wait)
	defer over.Stop()
	tick := time.NewTicker(200 * time.Millisecond) // an eye that waits
	defer tick.Stop()
	for last := false; ; {
		_, lines, err := s.Status(ctx, names...)
		if err != nil {
			return err
		}
		behind := 0
		for _, l := range lines {
			if l.State != drift.Synced {
				behind++
			}
		}
		if behind == 0 || last {
			if err := a.printLines(cmd, lines); err != nil || behind == 0 {
				return err
			}
			return messages.Errorf(messages.CodeDeadline, "%d of %d are behind after %v; they go on, and who is away gets it when it is back", behind, len(lines), wait)
		}
		select {
		case <-tick.C:
		case <-over.C:
			last = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *app) printLines(cmd *cobra.Command, lines []data.Line) error {
	if a.json {
		type line struct {
			data.Line
			Behind float64 `json:"behind_s"`
		}
		list := []line{}
		for _, l := range lines {
			list = append(list, line{l, l.Behind.Seconds()})
		}
		return a.printJSON(cmd, list)
	}
	t := newTable("DATA", "AGENT", "STATE", "HELD", "WANTED", "BEHIND", "BYTES", "SINCE", "WHY")
	number := func(n uint64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatUint(n, 10)
	}
	for _, l := range lines {
		since, lacks := "", ""
		if l.State != drift.Synced {
			since, lacks = l.Behind.Round(time.Second).String(), strconv.FormatInt(l.Bytes, 10)
		}
		t.add(l.Name, l.Agent, string(l.State), number(l.Held), number(l.Wanted), number(l.Revisions), lacks, since, l.Reason)
	}
	return t.print(cmd)
}
