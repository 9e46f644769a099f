package embed

import (
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats-server/v2/server"
)

// RandomPort as a port asks for one that is free.
const RandomPort = -1

// Defaults of [Options].
const (
	DefaultHost       = "127.0.0.1"
	DefaultPort       = 4222
	DefaultName       = "fleetbus"
	DefaultMaxPayload = 8 << 20
)

// The server pings a client every pingInterval and drops it when maxPingsOut pings
// were not answered: after 4 to 6 s. It is what our clients do at their end
// (messages/bus), so that both ends of a dead link find out at the same time.
const (
	pingInterval = 2 * time.Second
	maxPingsOut  = 2
)

// Options are the settings of a [Server]. Only StoreDir has no default.
type Options struct {
	Name string // name of the server, "" = "fleetbus"; servers of one cluster need different ones

	Host       string // where clients connect, "" = 127.0.0.1
	Port       int    // 0 = 4222, RandomPort = a free one
	DontListen bool   // no listener at all: in-process connections only, and no cluster
	HTTPPort   int    // monitoring page, on loopback whatever Host is; 0 = off, RandomPort = a free one

	Token          string // clients must present it; also locks the cluster port
	User, Password string // instead of Token: one user
	TLSCert        string // PEM files of clients' TLS, both or none
	TLSKey         string

	StoreDir   string // where streams are kept; made if missing, used by one server at a time
	MaxPayload int    // bytes of one message, 0 = 8 MiB
	MaxMemory  int64  // bytes of all memory streams, 0 = three quarters of this machine's
	MaxStore   int64  // bytes of all file streams, 0 = three quarters of the free disk
	SyncAlways bool   // fsync before a write is acknowledged, instead of every 2 minutes: survives a power cut

	Cluster Cluster // zero: not in a cluster

	Debug  bool         // the server's debug messages too
	Logger *slog.Logger // nil = slog.Default(); notices come as debug, the rest as what they are
}

// Cluster are the settings of a server in a cluster. The cluster port binds
// Options.Host and asks other servers for the same token or password as clients.
type Cluster struct {
	Name   string   // the same on every server; "" = not in a cluster
	Port   int      // where other servers connect; RandomPort is not allowed, the others could not know it
	Routes []string // "host:port" of the cluster port of every server, itself included or not
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Host == "" {
		o.Host = DefaultHost
	}
	if o.Port == 0 {
		o.Port = DefaultPort
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = DefaultMaxPayload
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// check returns the first thing wrong with o, which has its defaults.
func (o Options) check() error {
	refuse := func(format string, args ...any) error {
		return messages.Errorf(messages.CodeBadRequest, format, args...)
	}
	locked := o.Token != "" || o.User != ""
	switch {
	case o.StoreDir == "":
		return refuse("storage directory: none given; name one that only this server uses")
	case strings.ContainsAny(o.Name, " \t\n"):
		return refuse("server name %q: it contains a space; use letters, digits, '-' and '_'", o.Name)
	case o.Port < RandomPort || o.Port > 65535 || o.HTTPPort < RandomPort || o.HTTPPort > 65535:
		return refuse("ports %d and %d (monitoring): allowed are 1 to 65535, and -1 for a free one", o.Port, o.HTTPPort)
	case (o.User == "") != (o.Password == ""):
		return refuse("user and password: one without the other; give both or none")
	case o.Token != "" && o.User != "":
		return refuse("a token and a user: the server knows one kind of credentials at a time; give one of them")
	case (o.TLSCert == "") != (o.TLSKey == ""):
		return refuse("TLS: certificate %q and key %q; give both or none", o.TLSCert, o.TLSKey)
	case o.MaxPayload < 0 || o.MaxPayload > server.MAX_PENDING_SIZE:
		return refuse("payload limit: %d bytes; allowed are 1 to %d", o.MaxPayload, server.MAX_PENDING_SIZE)
	case !o.DontListen && !Loopback(o.Host) && !locked:
		return refuse("listen on %s: that is not loopback, and anybody who reaches it could command the fleet; set a token or a user and password, or listen on 127.0.0.1", o.Host)
	}
	c := o.Cluster
	switch {
	case c.Name == "" && (c.Port != 0 || len(c.Routes) > 0):
		return refuse("cluster: a port or routes without a name; give the cluster a name")
	case c.Name == "":
		return nil
	case strings.ContainsAny(c.Name, " \t\n"):
		return refuse("cluster name %q: it contains a space; use letters, digits, '-' and '_'", c.Name)
	case o.DontListen:
		return refuse("cluster %q: a server that does not listen cannot be in a cluster", c.Name)
	case c.Port < 1 || c.Port > 65535:
		return refuse("cluster port: found %d, allowed are 1 to 65535", c.Port)
	case len(c.Routes) == 0:
		return refuse("cluster %q: no routes; list host:port of the cluster port of every server", c.Name)
	}
	for _, r := range c.Routes {
		if host, port, err := net.SplitHostPort(r); err != nil || host == "" || port == "" {
			return refuse("cluster route %q: expected host:port", r)
		}
	}
	return nil
}

// Loopback reports whether a host can be reached from this machine only: "localhost"
// or an address of the loopback network. Other names count as reachable, because what
// they resolve to may change.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// serverOptions turns o into the server's own. port is the client port to bind,
// RandomPort for any.
func (o Options) serverOptions(port int) (*server.Options, error) {
	so := &server.Options{
		ServerName:             o.Name,
		Host:                   o.Host,
		Port:                   port,
		DontListen:             o.DontListen,
		HTTPHost:               DefaultHost,
		HTTPPort:               o.HTTPPort,
		Authorization:          o.Token,
		Username:               o.User,
		Password:               o.Password,
		NoSigs:                 true, // signals belong to the program, not to a part of it
		NoLog:                  true, // ours is set with SetLoggerV2
		MaxPayload:             int32(o.MaxPayload),
		PingInterval:           pingInterval,
		MaxPingsOut:            maxPingsOut,
		JetStream:              true,
		DisableJetStreamBanner: true,
		StoreDir:               o.StoreDir,
		SyncAlways:             o.SyncAlways,
		JetStreamMaxMemory:     o.MaxMemory,
		JetStreamMaxStore:      o.MaxStore,
		JetStreamLimits:        server.JSLimitOpts{DefaultMaxConsumers: -1}, // see the package's doc
	}
	if o.TLSCert != "" {
		tc, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: o.TLSCert, KeyFile: o.TLSKey})
		if err != nil {
			return nil, messages.Errorf(messages.CodeBadRequest, "read the TLS certificate %s and key %s: %v; both must be PEM files that belong together", o.TLSCert, o.TLSKey, err)
		}
		so.TLSConfig = tc
	}
	if c := o.Cluster; c.Name != "" {
		so.Cluster = server.ClusterOpts{Name: c.Name, Host: o.Host, Port: c.Port}
		var who *url.Userinfo
		switch {
		case o.Token != "":
			so.Cluster.Username, so.Cluster.Password = "route", o.Token
		case o.User != "":
			so.Cluster.Username, so.Cluster.Password = o.User, o.Password
		}
		if so.Cluster.Username != "" {
			who = url.UserPassword(so.Cluster.Username, so.Cluster.Password)
		}
		for _, r := range c.Routes {
			so.Routes = append(so.Routes, &url.URL{Scheme: "nats-route", User: who, Host: r})
		}
	}
	return so, nil
}

// probe tries the ports that the server is about to bind, because the server tells
// only its log why it could not.
func (o Options) probe(port int) error {
	type door struct {
		what, host string
		port       int
	}
	var doors []door
	if !o.DontListen && port != RandomPort {
		doors = append(doors, door{"clients", o.Host, port})
	}
	if o.HTTPPort > 0 {
		doors = append(doors, door{"monitoring", DefaultHost, o.HTTPPort})
	}
	if o.Cluster.Name != "" {
		doors = append(doors, door{"the cluster", o.Host, o.Cluster.Port})
	}
	for _, d := range doors {
		address := net.JoinHostPort(d.host, strconv.Itoa(d.port))
		l, err := net.Listen("tcp", address)
		if err != nil {
			return listenError(d.what, address, err)
		}
		if err := l.Close(); err != nil {
			return listenError(d.what, address, err)
		}
	}
	return nil
}
