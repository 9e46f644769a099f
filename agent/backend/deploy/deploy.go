package deploy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// DefaultCache is how many bytes of artifacts are kept on the disk.
const DefaultCache = 20_000_000_000

// Options is where and how tasks' commands run. Fleet, Site, Agent and Dir are needed.
type Options struct {
	Fleet string
	Site  string // of the agent
	Agent string

	Dir   string // of the deployer's own: artifacts, and the working directories of replicas
	Cache int64  // bytes of artifacts that are kept at most; 0: DefaultCache

	// Guard is the command line of a guard (package proc), for example this program and a
	// word by which it knows that it is to call proc.Guard. nil: none; then, on Linux, what a
	// command has started itself may outlive an agent that is killed, elsewhere the command
	// may, too.
	Guard []string

	Replicas int          // of the store and the stream, where they have to be made; 0: see bus.New
	Logger   *slog.Logger // gets what commands say, too; nil: slog.Default()
}

func (o Options) normal() (Options, error) {
	for _, n := range []struct{ what, name string }{{"fleet", o.Fleet}, {"site", o.Site}, {"agent", o.Agent}} {
		if err := messages.CheckName(n.what, n.name); err != nil {
			return o, err
		}
	}
	if o.Dir == "" {
		return o, messages.Errorf(messages.CodeBadRequest, "directory of artifacts of agent %q: none given; name one that is its own", o.Agent)
	}
	if o.Cache < 0 {
		return o, messages.Errorf(messages.CodeBadRequest, "cache of artifacts: found %d bytes, allowed is more than 0; 0 is the default", o.Cache)
	}
	if o.Cache == 0 {
		o.Cache = DefaultCache
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

// Deployer starts what tasks bring; it is the Deployer of an agent's Config. Its methods
// may be called from many goroutines.
type Deployer struct {
	o     Options
	b     *bus.Bus
	cache *cache
	local []string // the agent's environment, as far as it is passed on

	swept    sync.Once
	sweeping sync.WaitGroup

	mu    sync.Mutex
	ports map[string]bool // given to replicas that are open
}

// New makes a deployer. It starts nothing and sends nothing. The connection stays the
// caller's: artifacts come over it, so it had better carry nothing else.
func New(nc *nats.Conn, o Options) (*Deployer, error) {
	o, err := o.normal()
	if err != nil {
		return nil, err
	}
	b, err := bus.New(nc, o.Fleet, o.Replicas)
	if err != nil {
		return nil, err
	}
	d := &Deployer{o: o, b: b, cache: newCache(b, o.Dir, o.Cache, o.Logger), ports: make(map[string]bool)}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FLEETBUS_") && !strings.HasPrefix(v, "NATS_") {
			d.local = append(d.local, v)
		}
	}
	return d, nil
}

// Placed is told which tasks the agent is to run: what they need stays on the disk. With its
// first call goes what an agent has left there that was killed.
func (d *Deployer) Placed(tasks []messages.Task) {
	d.swept.Do(d.sweep)
	digests := make(map[string]bool)
	for _, t := range tasks {
		if t.Run == nil {
			continue
		}
		for _, digest := range t.Run.Artifacts() {
			digests[digest] = true
		}
	}
	d.cache.want(digests)
}

// Close leaves the directory to others. All servers must be closed.
func (d *Deployer) Close() {
	d.sweeping.Wait()
	d.cache.close()
}

// port finds a port of loopback that is free, and that no replica here was given. Somebody
// else may take it before the command does: the command then fails, and the next try has
// another one.
func (d *Deployer) port(ctx context.Context, url string) (string, error) {
	host := "127.0.0.1"
	if strings.Contains(url, "[::1]") {
		host = "::1"
	}
	for range 100 {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return "", messages.Errorf(messages.CodeBackendFailed, "find a free port: %v", err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		_ = l.Close() // it was never used
		if err != nil {
			return "", messages.Errorf(messages.CodeInternal, "find a free port: %v", err)
		}
		d.mu.Lock()
		taken := d.ports[port]
		d.ports[port] = true
		d.mu.Unlock()
		if !taken {
			return port, nil
		}
	}
	return "", messages.Errorf(messages.CodeBackendFailed, "find a free port: all that the system offers were given to other replicas")
}

// free refuses a port of the task's own that somebody listens on: asked there, he would be
// taken for what is started here. A process of an agent that was killed is gone in seconds.
func free(ctx context.Context, at string) error {
	u, err := url.Parse(at)
	if err != nil {
		return messages.Errorf(messages.CodeBadRequest, "run.url: %v", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", u.Host)
	switch {
	case err == nil:
		_ = l.Close() // it was never used
	case errors.Is(err, syscall.EADDRINUSE):
		return messages.Errorf(messages.CodeBackendFailed, "%s, where its server is to listen, is taken: by another process, or by the replica that this one is to replace; with %s in url and command each has a port of its own", u.Host, messages.RunPort)
	}
	return nil // what else keeps one from listening there, the command says better
}

func (d *Deployer) returnPort(port string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.ports, port)
}
