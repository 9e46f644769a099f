package main

import (
	"context"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
)

func coordinatorCmd(a *app) *cobra.Command {
	var id string
	var replicas int
	var lease time.Duration
	var system bool
	cmd := &cobra.Command{
		Use:   "coordinator",
		Short: "Run a coordinator; several may run, one of them leads",
		Long: `Run a coordinator. Several may run: one leads, the others follow and take over when its
lease expires. Requests are served by the last plan even when none runs.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if id == "" {
				id = "coordinator-" + nuid.Next()
			}
			// Said before it connects: a server that is away must not hide a typing error.
			if err := messages.CheckName("--id", id); err != nil {
				return usageError{err}
			}
			if cmd.Flags().Changed("replicas") && replicas != 1 && replicas != 3 && replicas != 5 {
				return usagef("--replicas: found %d, allowed are 1, 3 and 5", replicas)
			}
			if lease < coordinator.MinLeaseTTL || lease%time.Second != 0 {
				return usagef("--lease-ttl: found %v, allowed are whole seconds from %v", lease, coordinator.MinLeaseTTL)
			}
			log := a.serviceLog(cmd)
			return again(cmd.Context(), log, "coordinator "+id, func(ctx context.Context) error {
				nc, err := a.connectForever(ctx, "fleetbus coordinator "+id, log)
				if err != nil {
					return err
				}
				defer nc.Close()
				log.Info("coordinator runs", "id", id, "fleet", a.fleet, "server", nc.ConnectedUrlRedacted())
				// Where all clients are Go programs no router runs, and jobs need a sweeper.
				sweeper, err := router.NewSweeper(nc, router.Config{Fleet: a.fleet, Origin: sweeperName(id), Replicas: replicas, Logger: log})
				if err != nil {
					return err
				}
				return supervise(ctx,
					part{"sweeper of jobs", sweeper.Run},
					part{"coordinator", coordinator.New(nc, coordinator.Config{
						Fleet: a.fleet, ID: id, Replicas: replicas, LeaseTTL: lease, Logger: log, Version: versionString(), SystemEvents: system,
					}).Run},
					a.announcer(nc, cmd), a.provider(nc, replicas, log))
			})
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "`NAME` of this coordinator, for people (default a random one)")
	cmd.Flags().IntVar(&replicas, "replicas", 0, "how many servers keep each stream and bucket: 1, 3 or 5 (default 3 in a cluster, else 1)")
	cmd.Flags().DurationVar(&lease, "lease-ttl", coordinator.DefaultLeaseTTL, "after how long another coordinator takes over from a dead leader, whole seconds")
	cmd.Flags().BoolVar(&system, "system-events", false, "find dead agents sooner by what the server says of closed connections; the account must import it from the system account (docs/operations.md)")
	return cmd
}

// sweeperName is how a coordinator's sweeper signs its questions to agents. Names have a
// limit, and the coordinator's own may be as long as that.
func sweeperName(id string) string {
	const prefix = "sweeper-"
	return prefix + strings.TrimRight(id[:min(len(id), messages.MaxName-len(prefix))], "-_")
}
