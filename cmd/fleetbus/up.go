package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/internal/heap"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// upFlags are the flags of `fleetbus up`.
type upFlags struct {
	listen, storeDir, file, portFile string
	httpPort                         int
	sync                             bool
}

func upCmd(a *app) *cobra.Command {
	var u upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a NATS server, a coordinator and a router in this process",
		Long: `Start a NATS server with JetStream, a coordinator and a router in this process: all that
one machine needs but the agents.

It listens on loopback. To listen elsewhere give --token, or --user and --password:
agents and clients then need the same. --tlscert and --tlskey are the server's own here.`,
		Example: `  fleetbus up
  fleetbus up -f configs/smart-factory.yaml
  fleetbus up --listen 0.0.0.0:4222 --token "$(openssl rand -hex 16)"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.up(cmd, u) },
	}
	u.serverFlags(cmd.Flags())
	cmd.Flags().StringVarP(&u.file, "file", "f", "", "fleet `FILE` to apply at start")
	return cmd
}

// serverFlags are the flags of everything that starts a server.
func (u *upFlags) serverFlags(f *pflag.FlagSet) {
	f.StringVar(&u.listen, "listen", "127.0.0.1:4222", "`HOST:PORT` to listen on; port 0 takes a free one")
	f.StringVar(&u.storeDir, "store-dir", "", "`DIRECTORY` of streams and buckets (default $XDG_STATE_HOME/fleetbus or ~/.local/state/fleetbus)")
	f.StringVar(&u.portFile, "port-file", "", "`FILE` to write the server's URL to once it listens")
	f.IntVar(&u.httpPort, "http-port", 0, "`PORT` of the NATS monitoring page, on loopback (default off)")
	f.BoolVar(&u.sync, "sync-always", false, "flush every write to the disk at once: survives a power cut, costs time")
}

// upOptions turns the flags into the server's options.
func (a *app) upOptions(cmd *cobra.Command, u upFlags, log *slog.Logger) (embed.Options, error) {
	o := embed.Options{
		Token: a.token, User: a.user, Password: a.password,
		HTTPPort: u.httpPort, SyncAlways: u.sync, Logger: log, StoreDir: u.storeDir,
	}
	// Whoever names a server here expects to join it; what says so in the environment is
	// meant for the clients that run in the same shell.
	for _, name := range []string{"server", "context", "creds", "nkey"} {
		if cmd.Flags().Changed(name) {
			return o, usagef("--%s: `%s` starts a server of its own and cannot use it; to join a server run `fleetbus coordinator` and `fleetbus router`, to choose the address give --listen", name, cmd.CommandPath())
		}
	}
	if u.httpPort < embed.RandomPort || u.httpPort > 65535 {
		return o, usagef("--http-port: found %d, allowed are 1 to 65535, and 0 for none", u.httpPort)
	}
	host, port, err := net.SplitHostPort(u.listen)
	if err != nil {
		return o, usagef("--listen: found %q, expected host:port, for example 127.0.0.1:4222", u.listen)
	}
	if o.Port, err = strconv.Atoi(port); err != nil || o.Port < embed.RandomPort || o.Port > 65535 {
		return o, usagef("--listen: found port %q, allowed are 1 to 65535, and 0 for a free one", port)
	}
	if o.Port == 0 {
		o.Port = embed.RandomPort
	}
	if o.Host = host; host == "" {
		o.Host = "0.0.0.0" // ":4222" means every address, as everywhere else
	}
	if !embed.Loopback(o.Host) && o.Token == "" && o.User == "" {
		return o, usagef("--listen %s: that is not loopback, and anybody who reaches it could command the fleet; add --token or --user and --password, or listen on 127.0.0.1", u.listen)
	}
	if a.user != "" && a.password == "" {
		o.User, o.Token = "", a.user // as for clients: a user without a password is a token
	}
	// The environment's certificate is a client's; as the server's it must be meant.
	if cmd.Flags().Changed("tlscert") {
		o.TLSCert, o.TLSKey = a.tlsCert, a.tlsKey
	}
	if o.StoreDir == "" {
		if o.StoreDir, err = stateDir(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// stateDir is where the XDG base directory specification wants what a program keeps.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) { // the specification says to ignore others
		return filepath.Join(dir, "fleetbus"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usagef("--store-dir: none given and no home directory found (%v); name one", err)
	}
	return filepath.Join(home, ".local", "state", "fleetbus"), nil
}

func (a *app) up(cmd *cobra.Command, u upFlags) error {
	heap.Floor()
	log := a.serviceLog(cmd)
	o, err := a.upOptions(cmd, u, log)
	if err != nil {
		return err
	}
	var file *fleetfile.File
	if u.file != "" {
		if file, err = a.fleetFile(cmd, u.file); err != nil {
			return err
		}
	}
	server, err := embed.New(o)
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()

	// The server outlives the others: a coordinator that stops gives its lease back
	// through it.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	gone := make(chan error, 1)
	go func() {
		gone <- server.Run(life)
		cancel() // nothing works without the server
	}()
	err = a.serve(ctx, cmd, server, o, u, file, log)
	stop()
	if failed := <-gone; failed != nil {
		return failed // it is the cause of whatever else failed
	}
	return err
}

// serve runs everything but the server until ctx ends.
func (a *app) serve(ctx context.Context, cmd *cobra.Command, server *embed.Server, o embed.Options, u upFlags, file *fleetfile.File, log *slog.Logger) error {
	if err := server.Ready(ctx); err != nil {
		return stopped(ctx, err)
	}
	open := func(name string) (*nats.Conn, error) {
		logged := func(o *nats.Options) error { logConnection(o, log); return nil }
		options := append(bus.Options(name), logged)
		if o.TLSCert != "" {
			// The other end of this pipe is in this process: there is nobody to verify, and
			// the certificate need not name this machine.
			options = append(options, nats.Secure(&tls.Config{InsecureSkipVerify: true}))
		}
		return server.Connect(options...)
	}
	forCoordinator, err := open("fleetbus coordinator")
	if err != nil {
		return stopped(ctx, err)
	}
	defer forCoordinator.Close()
	forRouter, err := open("fleetbus router")
	if err != nil {
		return stopped(ctx, err)
	}
	defer forRouter.Close()

	if file != nil {
		b, err := bus.New(forCoordinator, a.fleet, 0)
		if err != nil {
			return err
		}
		done, err := coordinator.Apply(ctx, b, file.Tasks, file.Settings)
		if err != nil {
			return stopped(ctx, err)
		}
		log.Info("applied "+u.file, "created", done.Created, "updated", done.Updated, "unchanged", len(done.Unchanged))
	}
	id := "up-" + nuid.Next()
	return supervise(ctx,
		part{"coordinator", coordinator.New(forCoordinator, coordinator.Config{
			Fleet: a.fleet, ID: id, Logger: log, Version: versionString()}).Run},
		part{"router", router.NewService(forRouter, router.Config{
			Fleet: a.fleet, Site: a.site, Origin: id, Logger: log}).Run},
		a.announcer(forCoordinator, cmd), a.provider(forCoordinator, 0, log),
		part{"announcement", func(ctx context.Context) error {
			leads := a.awaitLeader(ctx, forCoordinator)
			if err := a.announce(cmd, server, o, file, leads); err != nil {
				return err
			}
			if u.portFile != "" {
				if err := writeWhole(u.portFile, server.ClientURL()); err != nil {
					return fmt.Errorf("--port-file: %w", err)
				}
			}
			<-ctx.Done()
			return nil
		}},
	)
}

// leaderWait is how long the announcement waits for the coordinator to lead. It takes
// milliseconds, unless an earlier one was killed and its lease must expire first; nobody
// needs to wait for that, because the server is there.
const leaderWait = time.Second

// awaitLeader reports whether a coordinator leads, and waits a little for it.
func (a *app) awaitLeader(ctx context.Context, nc *nats.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	b, err := bus.New(nc, a.fleet, 0)
	if err != nil {
		return false // the coordinator reports it
	}
	for {
		if _, err := leaderState(ctx, b); err == nil {
			return true
		}
		select {
		case <-time.After(10 * time.Millisecond): // a start takes about as long
		case <-ctx.Done():
			return false
		}
	}
}

// announce prints what runs where and what to type next.
func (a *app) announce(cmd *cobra.Command, server *embed.Server, o embed.Options, file *fleetfile.File, leads bool) error {
	url := server.ClientURL()
	if a.json {
		return printLine(cmd, map[string]any{"server": url, "store_dir": o.StoreDir, "fleet": a.fleet, "site": a.site, "monitor": server.MonitorURL()})
	}
	with := a.reach(url, o)
	var s strings.Builder
	fmt.Fprintf(&s, "fleetbus %s is up\n", versionString())
	fmt.Fprintf(&s, "  server       %s (streams in %s)\n", url, o.StoreDir)
	if page := server.MonitorURL(); page != "" {
		fmt.Fprintf(&s, "  monitoring   %s\n", page)
	}
	wait := ""
	if !leads {
		wait = " (it does not lead yet: the lease of an earlier one must expire)"
	}
	fmt.Fprintf(&s, "  coordinator  fleet %s%s\n  router       site %s\n\nnext, in other terminals:\n", a.fleet, wait, a.site)
	for _, agent := range []string{
		"agent --id cloud-1 --tier cloud --compute 1000TFLOPS --storage 10000GB --network 1000Mbps --latency 50ms --price 10 --simulate",
		"agent --id edge-1 --tier edge --compute 100TFLOPS --storage 1000GB --network 100Mbps --latency 10ms --price 5 --simulate",
		"agent --id robot-1 --tier robot --compute 10TFLOPS --storage 100GB --network 10Mbps --latency 1ms --price 1 --simulate",
	} {
		fmt.Fprintf(&s, "  fleetbus %s%s\n", agent, with)
	}
	if file == nil {
		fmt.Fprintf(&s, "  fleetbus apply -f configs/smart-factory.yaml%s\n", with)
	}
	fmt.Fprintf(&s, "  fleetbus request inference inference --data hi%s\n  fleetbus placements%s\n", with, with)
	_, err := fmt.Fprint(cmd.OutOrStdout(), s.String())
	return writing(err)
}

// reach returns the flags that a client on this machine needs to get here. A selected
// NATS context would lead it elsewhere. Secrets are not printed.
func (a *app) reach(url string, o embed.Options) string {
	var flags string
	fromHere := nats.GetDefaultOptions()
	selected := loadContext(&fromHere, a.context) != nil || len(fromHere.Servers) > 0
	if url != defaultURL || selected || a.server != "" {
		flags += " --server " + url
	}
	if a.fleet != "fleet" {
		flags += " --fleet " + a.fleet
	}
	switch {
	case o.Token != "":
		flags += " --token …"
	case o.User != "":
		flags += " --user " + o.User + " --password …"
	}
	if o.TLSCert != "" {
		flags += " --tlsca …"
	}
	return flags
}
