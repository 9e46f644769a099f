package main

import (
	"context"
	"log/slog"
	"net"
	"os"

	"github.com/fleetbus/fleetbus/internal/heap"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/router/gateway"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// keyVariable is where a key may stand instead of in a file; a command line can be read by
// everybody on the machine.
const keyVariable = "FLEETBUS_API_KEY"

// doorFlags are the flags of every gateway.
type doorFlags struct {
	listen, id    string
	keyFile       string
	cert, certKey string
	portFile      string
	maxBody       int
	rate          float64
}

func gatewayCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run a front door for clients that speak something else than NATS",
		Long: `Run a front door: what a client speaks becomes requests to the fleet, with its failover.
Several may run. They listen on this machine alone unless there is a key. docs/gateways.md
says more.`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(gatewayOpenpiCmd(a), gatewayHTTPCmd(a))
	return cmd
}

func (d *doorFlags) define(f *pflag.FlagSet, port string) {
	f.StringVar(&d.listen, "listen", "127.0.0.1:"+port, "`HOST:PORT` to listen on; beyond this machine it needs a key")
	f.StringVar(&d.id, "id", "", "`NAME` of this gateway in logs and subjects (default a random one)")
	f.StringVar(&d.keyFile, "api-key-file", "", "`FILE` with keys, one a line, of which clients send one as Authorization: Api-Key … [$"+keyVariable+" has one]")
	f.StringVar(&d.cert, "listen-cert", "", "certificate `FILE`, to serve TLS")
	f.StringVar(&d.certKey, "listen-key", "", "private key `FILE` of the certificate")
	f.StringVar(&d.portFile, "port-file", "", "`FILE` to write HOST:PORT to once it listens and is connected")
	f.IntVar(&d.maxBody, "max-body", 0, "largest `BYTES` of a request (default: what fits into a message of the NATS server)")
	f.Float64Var(&d.rate, "rate", 0, "requests a second: with openpi of one client, which then waits (default 200); with http of all, further ones are busy (default 5000)")
}

// keys are who may come in.
func (d *doorFlags) keys() (gateway.Keys, error) {
	text := []byte(os.Getenv(keyVariable))
	from := "$" + keyVariable
	if d.keyFile != "" {
		var err error
		if text, err = readSmall(d.keyFile, maxSecret); err != nil {
			return gateway.Keys{}, usagef("--api-key-file: %v", err)
		}
		from = "--api-key-file " + d.keyFile
	} else if len(text) == 0 {
		return gateway.Keys{}, nil
	}
	k, err := gateway.ParseKeys(text)
	if err != nil {
		return k, usagef("%s: %v", from, plain(err))
	}
	return k, nil
}

// door is what a gateway runs with.
type door struct {
	keys   gateway.Keys
	client *router.Client
	nc     *nats.Conn
	log    *slog.Logger
}

// runnable is a gateway.
type runnable interface {
	Run(ctx context.Context, l net.Listener, tls gateway.TLS) error
}

// run runs a gateway with a client of its own until it is told to stop.
func (d *doorFlags) run(a *app, cmd *cobra.Command, kind string, maxConns int, open func(door) runnable) error {
	heap.Floor()
	if (d.cert == "") != (d.certKey == "") {
		return usagef("--listen-cert, --listen-key: found one without the other; a certificate needs its key")
	}
	if d.maxBody < 0 || d.rate < 0 {
		return usagef("--max-body, --rate: found %d and %v, allowed is more than 0", d.maxBody, d.rate)
	}
	id := d.id
	if id == "" {
		id = "gateway-" + nuid.Next()
	}
	if err := messages.CheckName("--id", id); err != nil {
		return usageError{err}
	}
	keys, err := d.keys()
	if err != nil {
		return err
	}
	log := a.serviceLog(cmd)
	return again(cmd.Context(), log, "gateway "+id, func(ctx context.Context) error {
		// It listens first: who cannot listen need not connect, and a client that is there
		// early waits for its answer rather than being refused.
		l, err := gateway.Listen(ctx, d.listen, keys, maxConns)
		if err != nil {
			return err
		}
		defer l.Close()
		nc, err := a.connectForever(ctx, "fleetbus gateway "+id, log)
		if err != nil {
			return err
		}
		defer nc.Close()
		client := router.NewClient(nc, router.Config{Fleet: a.fleet, Site: a.site, Origin: id, Logger: log})
		g := open(door{keys: keys, client: client, nc: nc, log: log})
		log.Info("gateway runs", "kind", kind, "id", id, "listen", l.Addr().String(), "keys", keys.Any(), "tls", d.cert != "", "fleet", a.fleet, "site", a.site, "server", nc.ConnectedUrlRedacted())
		if d.portFile != "" {
			if err := writeWhole(d.portFile, l.Addr().String()); err != nil {
				return usagef("--port-file: %v", err)
			}
		}
		return besideClient(ctx, client, func(ctx context.Context) error {
			return g.Run(ctx, l, gateway.TLS{CertFile: d.cert, KeyFile: d.certKey})
		})
	})
}

// besideClient runs a door while its client runs. The client outlives the door, so that
// what is under way is finished when that is told to stop; a client that ends by itself
// takes the door with it.
func besideClient(ctx context.Context, client *router.Client, door func(context.Context) error) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- client.Run(run)
		cancel()
	}()
	err := door(inner)
	stop()
	if failed := <-ended; failed != nil {
		return failed
	}
	return err
}
