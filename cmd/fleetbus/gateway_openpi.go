package main

import (
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/router/gateway/openpi"
	"github.com/spf13/cobra"
)

// maxMetadata bounds a file with a metadata frame, bytes.
const maxMetadata = 1 << 20

func gatewayOpenpiCmd(a *app) *cobra.Command {
	var d doorFlags
	var cfg openpi.Config
	var sticky, metadata string
	cmd := &cobra.Command{
		Use:   "openpi --task TASK",
		Short: "The front door for openpi's policy clients, which connect to it unchanged",
		Long: `Policy clients connect to it as to their policy server. It keeps their connections open
whatever happens behind it: the metadata come from the first ready replica, an observation is
tried again elsewhere while its deadline allows, and only when nothing is left does the client
get the protocol's own error.`,
		Example: `  fleetbus gateway openpi --task pi0
  fleetbus gateway openpi --task pi0 --listen 0.0.0.0:8000 --api-key-file keys --deadline 300ms`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Task == "" {
				return usagef("--task: none given; name the task that policy clients ask, for example --task pi0")
			}
			cfg.Sticky = openpi.Sticky(sticky)
			if metadata != "" {
				frame, err := readSmall(metadata, maxMetadata)
				if err != nil {
					return usagef("--metadata-file: %v", err)
				}
				cfg.Metadata = frame
			}
			if cfg.MaxConns < 1 {
				return usagef("--max-clients: found %d, allowed is 1 or more", cfg.MaxConns)
			}
			// Probes, and clients that are told that there is no room, connect too.
			return d.run(a, cmd, "openpi", 2*cfg.MaxConns+16, func(at door) runnable {
				c := cfg
				c.Keys, c.MaxBody, c.Rate, c.Logger = at.keys, d.maxBody, d.rate, at.log
				return openpi.New(at.client, at.nc.MaxPayload(), c)
			})
		},
	}
	f := cmd.Flags()
	d.define(f, "8000")
	f.StringVar(&cfg.Task, "task", "", "`NAME` of the task that answers")
	f.DurationVar(&cfg.Deadline, "deadline", 0, "what an observation may take, failovers included (default: the task's own deadline)")
	f.DurationVar(&cfg.FirstDeadline, "first-deadline", 0, fmt.Sprintf("what the first observation of a client may take; a cold model compiles with it (default %v)", openpi.DefaultFirstDeadline))
	f.DurationVar(&cfg.Hold, "hold", 0, fmt.Sprintf("how long a client waits for the first ready replica (default %v)", openpi.DefaultHold.Round(time.Minute)))
	f.StringVar(&sticky, "sticky", string(openpi.StickyOff), "for policies with state: off; prefer: a client's observations go to the same agent while it can; only: to the same agent or to nobody")
	f.StringVar(&metadata, "metadata-file", "", "`FILE` with the metadata frame (default: what a ready replica says)")
	f.IntVar(&cfg.MaxConns, "max-clients", openpi.DefaultMaxConns, "clients at once")
	return cmd
}
