package main

import (
	"github.com/fleetbus/fleetbus/router/gateway/httpgate"
	"github.com/spf13/cobra"
)

func gatewayHTTPCmd(a *app) *cobra.Command {
	var d doorFlags
	var cfg httpgate.Config
	var conns int
	cmd := &cobra.Command{
		Use:   "http",
		Short: "The front door for HTTP clients: the Open Inference Protocol v2",
		Long: `Clients of KServe, Triton and OpenVINO Model Server ask tasks of class inference as their
models: POST /v2/models/TASK/infer, JSON or binary, passed on byte for byte. The header
Fb-Left-Ms has the deadline. GET /openapi.yaml describes the whole.`,
		Example: `  fleetbus gateway http
  curl --data-binary @image.jpg http://127.0.0.1:8080/v2/models/detect/infer`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.MaxInFlight < 1 || conns < 1 {
				return usagef("--max-in-flight, --max-connections: found %d and %d, allowed is 1 or more", cfg.MaxInFlight, conns)
			}
			return d.run(a, cmd, "http", conns, func(at door) runnable {
				c := cfg
				c.Keys, c.MaxBody, c.Rate, c.Logger = at.keys, d.maxBody, d.rate, at.log
				c.Version, c.Connected = versionString(), at.nc.IsConnected
				return httpgate.New(at.client, at.nc.MaxPayload(), c)
			})
		},
	}
	f := cmd.Flags()
	d.define(f, "8080")
	f.IntVar(&cfg.MaxInFlight, "max-in-flight", httpgate.DefaultMaxInFlight, "requests at once, further ones are busy")
	f.IntVar(&conns, "max-connections", 1024, "connections at once, further ones wait")
	return cmd
}
