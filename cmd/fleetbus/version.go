package main

import (
	"runtime"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

func versionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of fleetbus, its NATS client and Go",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.json {
				return a.printJSON(cmd, map[string]string{
					"version": versionString(), "nats_client": nats.Version,
					"go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
				})
			}
			cmd.Printf("fleetbus %s (NATS client %s, %s, %s/%s)\n", versionString(), nats.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
