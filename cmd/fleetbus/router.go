package main

import (
	"context"

	"github.com/fleetbus/fleetbus/internal/heap"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
)

func routerCmd(a *app) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "router",
		Short: "Run a router: the door for NATS clients of any language; several may run",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			heap.Floor()
			if id == "" {
				id = "router-" + nuid.Next()
			}
			if err := messages.CheckName("--id", id); err != nil {
				return usageError{err}
			}
			log := a.serviceLog(cmd)
			return again(cmd.Context(), log, "router "+id, func(ctx context.Context) error {
				nc, err := a.connectForever(ctx, "fleetbus router "+id, log)
				if err != nil {
					return err
				}
				defer nc.Close()
				log.Info("router runs", "id", id, "fleet", a.fleet, "site", a.site, "server", nc.ConnectedUrlRedacted())
				return router.NewService(nc, router.Config{Fleet: a.fleet, Site: a.site, Origin: id, Logger: log}).Run(ctx)
			})
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "`NAME` of this router in logs and subjects (default a random one)")
	return cmd
}
