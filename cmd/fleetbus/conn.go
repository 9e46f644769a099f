package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"
)

// resolve turns the flags, the environment and the NATS context into the options of a
// connection, without dialling. Each stronger source replaces the weaker one: flags, the
// environment (complete has filled it into the flags), the context, the default. The
// URL and the credentials are replaced separately, as the nats CLI does it.
func (a *app) resolve(name string) (nats.Options, error) {
	o := nats.GetDefaultOptions()
	if err := loadContext(&o, a.context); err != nil {
		return o, err
	}
	switch {
	case a.server != "":
		o.Url, o.Servers = "", splitURLs(a.server)
	case len(o.Servers) == 0:
		o.Servers = []string{defaultURL}
	}
	options := bus.Options(name)
	// A credentials error after a server's restart may be the server's mistake; by
	// default the client gives up for ever after two of them.
	options = append(options, nats.IgnoreAuthErrorAbort(), nats.Timeout(min(a.timeout, defaultTimeout)))
	credentials, err := a.credentials()
	if err != nil {
		return o, err
	}
	if len(credentials) > 0 {
		o.User, o.Password, o.Token, o.TokenHandler = "", "", "", nil
		o.UserInfo, o.UserJWT, o.SignatureCB, o.Nkey = nil, nil, nil, ""
	}
	options = append(options, credentials...)
	if a.tlsCert != "" {
		options = append(options, nats.ClientCert(a.tlsCert, a.tlsKey))
	}
	if a.tlsCA != "" {
		options = append(options, nats.RootCAs(a.tlsCA))
	}
	for _, option := range options {
		if err := option(&o); err != nil {
			return o, usagef("connection flags: %v", err)
		}
	}
	return o, nil
}

// credentials are the ways to say who we are; one at most.
func (a *app) credentials() ([]nats.Option, error) {
	var list []nats.Option
	var used []string
	use := func(flag string, option nats.Option) {
		list, used = append(list, option), append(used, flag)
	}
	if a.creds != "" {
		if _, err := os.Stat(a.creds); err != nil {
			return nil, usagef("--creds: %v", err)
		}
		use("--creds", nats.UserCredentials(a.creds))
	}
	if a.nkey != "" {
		option, err := nats.NkeyOptionFromSeed(a.nkey)
		if err != nil {
			return nil, usagef("--nkey %s: %v", a.nkey, err)
		}
		use("--nkey", option)
	}
	switch {
	case a.user != "" && a.password != "":
		use("--user", nats.UserInfo(a.user, a.password))
	case a.user != "":
		use("--user", nats.Token(a.user))
	}
	if a.token != "" {
		use("--token", nats.Token(a.token))
	}
	if len(used) > 1 {
		return nil, usagef("%s: found %d ways to authenticate (flags and environment), allowed is one", strings.Join(used, ", "), len(used))
	}
	return list, nil
}

// errLoaded ends nats.Connect before it dials.
var errLoaded = errors.New("loaded")

// loadContext reads a NATS context into o: the one named, else the one that `nats context
// select` chose, else none. The library can only connect; an option that fails stops it
// when it has read everything and dialled nothing.
func loadContext(o *nats.Options, name string) error {
	if name == "" && os.Getenv("XDG_CONFIG_HOME") == "" {
		if home, _ := os.UserHomeDir(); home == "" {
			return nil // a container without a home has no selected context
		}
	}
	_, _, err := natscontext.Connect(name, func(read *nats.Options) error {
		*o = *read
		return errLoaded
	})
	if err != nil && !errors.Is(err, errLoaded) {
		return usagef("NATS context %q: %v; `nats context ls` lists the contexts, --server does without", name, err)
	}
	var servers []string
	for _, s := range o.Servers {
		if s != "" {
			servers = append(servers, s)
		}
	}
	o.Servers = servers
	return nil
}

func splitURLs(list string) []string {
	var urls []string
	for u := range strings.SplitSeq(list, ",") {
		if u = strings.TrimSpace(u); u != "" {
			urls = append(urls, u)
		}
	}
	return urls
}

// reasonDialer remembers why the last dial failed: the client itself only says that no
// server was available.
type reasonDialer struct {
	inner nats.CustomDialer
	mu    sync.Mutex
	last  error
}

func (d *reasonDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := d.inner.Dial(network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = err
	return conn, err
}

func (d *reasonDialer) reason() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// noServer is ErrNoServers with the reason of the last dial in its place.
type noServer struct{ reason error }

func (e noServer) Error() string        { return e.reason.Error() }
func (e noServer) Is(target error) bool { return target == nats.ErrNoServers }
func (e noServer) Unwrap() error        { return e.reason }

// connect opens a connection; the first attempt must succeed. log gets what happens to it
// later. The returned connection is the caller's to close.
func (a *app) connect(ctx context.Context, name string, log *slog.Logger) (*nats.Conn, error) {
	o, err := a.resolve(name)
	if err != nil {
		return nil, err
	}
	return dial(ctx, o, log)
}

func dial(ctx context.Context, o nats.Options, log *slog.Logger) (*nats.Conn, error) {
	dialer := &reasonDialer{inner: o.CustomDialer}
	if dialer.inner == nil {
		dialer.inner = &net.Dialer{Timeout: o.Timeout}
	}
	o.CustomDialer = dialer
	logConnection(&o, log)
	type result struct {
		nc  *nats.Conn
		err error
	}
	// The client's Connect knows no context. A person who presses Ctrl-C must not wait
	// for its timeout; a connection that comes too late is closed.
	done := make(chan result, 1)
	go func() {
		nc, err := o.Connect()
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err == nil {
			return r.nc, nil
		}
		return nil, explainConnect(r.err, dialer.reason(), strings.Join(o.Servers, ","))
	case <-ctx.Done():
		go func() {
			if r := <-done; r.nc != nil {
				r.nc.Close()
			}
		}()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, explainConnect(nats.ErrNoServers, context.Cause(ctx), strings.Join(o.Servers, ","))
		}
		return nil, ctx.Err()
	}
}

func explainConnect(err, reason error, urls string) error {
	tried := "connect to " + bus.Redact(urls)
	text := err.Error()
	switch {
	case reason != nil && (errors.Is(err, nats.ErrNoServers) || isNetwork(err)):
		err = noServer{reason}
	case strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ") || errors.Is(err, nats.ErrSecureConnRequired) || errors.Is(err, nats.ErrSecureConnWanted):
		return messages.Errorf(messages.CodeUnauthorized, "%s: %v; check --tlsca, --tlscert and --tlskey, and whether the server speaks TLS", tried, err)
	}
	return bus.Explain(err, tried)
}

// isNetwork reports whether err is one of the network itself: no such host, no route.
func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network)
}

// logConnection makes o report what happens to the connection.
func logConnection(o *nats.Options, log *slog.Logger) {
	log = log.With("connection", o.Name)
	o.DisconnectedErrCB = func(_ *nats.Conn, err error) {
		if err != nil {
			log.Warn("connection lost; reconnecting until it is back", "error", err)
		}
	}
	o.ReconnectedCB = func(nc *nats.Conn) { log.Info("connected again", "server", nc.ConnectedUrlRedacted()) }
	o.AsyncErrorCB = func(_ *nats.Conn, sub *nats.Subscription, err error) {
		subject := ""
		if sub != nil {
			subject = sub.Subject
		}
		log.Warn("NATS reports an error", "error", err, "subject", subject)
	}
}

// connectForever is connect for programs that run unattended: it tries until ctx ends.
// What no waiting can mend (a missing credentials file, a bad flag) fails at once.
func (a *app) connectForever(ctx context.Context, name string, log *slog.Logger) (*nats.Conn, error) {
	// From half a second, because `up` and its agents are often started together, to
	// five, which is how long an operator who has just mended something will wait.
	const first, last = 500 * time.Millisecond, 5 * time.Second
	for wait := first; ; wait = min(2*wait, last) {
		nc, err := a.connect(ctx, name, log)
		var usage usageError
		if err == nil || errors.As(err, &usage) || ctx.Err() != nil {
			return nc, err
		}
		log.Warn("not connected yet: "+oneLine(err), "next_attempt_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// bus opens a connection for one question, with everything that hangs on it.
func (a *app) bus(ctx context.Context, log *slog.Logger) (*bus.Bus, func(), error) {
	nc, err := a.connect(ctx, "fleetbus cli", log)
	if err != nil {
		return nil, nil, err
	}
	b, err := bus.New(nc, a.fleet, 0)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return b, nc.Close, nil
}

// within bounds a question by --timeout.
func (a *app) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.timeout, fmt.Errorf("--timeout %v is over", a.timeout))
}
