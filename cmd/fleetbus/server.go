package main

import (
	"fmt"
	"os"

	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/internal/heap"
	"github.com/spf13/cobra"
)

// serverCmd runs the server that is built in, alone. The demo uses it; so may a person
// who wants server, coordinator and router as separate processes and has no nats-server.
func serverCmd(a *app) *cobra.Command {
	var u upFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Start the built-in NATS server alone",
		Long: `Start the NATS server that is built into this program, with JetStream, and nothing else:
for coordinators and routers in processes of their own. Any nats-server from 2.12.7 on,
with JetStream, does as well.

It listens on loopback. To listen elsewhere give --token, or --user and --password.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			heap.Floor()
			o, err := a.upOptions(cmd, u, a.serviceLog(cmd))
			if err != nil {
				return err
			}
			s, err := embed.New(o)
			if err != nil {
				return usageError{err}
			}
			if err := s.Start(); err != nil {
				return err
			}
			defer s.Stop()
			notef(cmd, "server listens on %s and keeps its streams in %s\n", s.ClientURL(), o.StoreDir)
			if u.portFile != "" {
				if err := writeWhole(u.portFile, s.ClientURL()); err != nil {
					return fmt.Errorf("--port-file: %w", err)
				}
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	u.serverFlags(cmd.Flags())
	return cmd
}

// writeWhole writes a file so that whoever sees it sees all of it.
func writeWhole(path, text string) error {
	part := path + ".part"
	if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}
