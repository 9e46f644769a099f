package embed

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// pollInterval is how often we look at a condition of the server that it does not
// announce (its cluster port, JetStream's state). They come about in 5 to 600 ms.
const pollInterval = 2 * time.Millisecond

// Server is one NATS server in this process. Its methods may be called from many
// goroutines; Start and Stop wait for one another.
type Server struct {
	opts Options

	life sync.Mutex // held by Start and Stop from end to end
	lock *dirLock   // under life

	// mu guards the fields below and is never held while waiting: in virtual time,
	// whoever waits for a mutex stops the clock.
	mu   sync.Mutex
	port int            // to bind next time: what was asked for, and once a random one is known, that
	ns   *server.Server // nil while stopped
	gone chan struct{}  // closed when ns has shut down, by whatever cause
}

// New checks the options and makes a Server. It starts nothing and touches no file.
// The error is a [*messages.Error] with code bad_request.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	return &Server{opts: o, port: o.Port}, nil
}

// Run starts the server, waits until ctx ends and stops it gracefully: leadership of
// streams is handed over, clients are disconnected, files are closed. It returns nil
// then, and an error when the server did not start or stopped by itself.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(); err != nil {
		return err
	}
	defer s.Stop()
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil
	case <-gone:
		return messages.Errorf(messages.CodeUnavailable, "the NATS server %s stopped by itself; its log says why", s.opts.Name)
	}
}

// Start starts the server and returns when clients can connect and JetStream is
// enabled: usually within 30 ms, later where large streams are read back from disk,
// which nothing can cut short. After an error nothing is left running. The error is a
// [*messages.Error]: conflict for a port or directory that somebody else uses,
// unavailable for the rest.
func (s *Server) Start() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.server() != nil {
		return messages.Errorf(messages.CodeConflict, "start the NATS server %s: it runs already", s.opts.Name)
	}
	s.mu.Lock()
	port := s.port
	s.mu.Unlock()
	so, err := s.opts.serverOptions(port)
	if err != nil {
		return err
	}
	if err := s.opts.probe(port); err != nil {
		return err
	}
	lock, err := lockDir(s.opts.StoreDir)
	if err != nil {
		return err
	}
	ns, err := server.NewServer(so)
	if err != nil {
		lock.release()
		return messages.Errorf(messages.CodeBadRequest, "make the NATS server %s: %v", s.opts.Name, err)
	}
	log := &serverLog{log: s.opts.Logger.With("server", s.opts.Name)}
	ns.SetLoggerV2(log, s.opts.Debug, false, false)
	ns.Start()
	err = s.started(ns, log)
	if err == nil {
		err = s.askFirst(ns)
	}
	if err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		lock.release()
		return err
	}
	if port == RandomPort && !s.opts.DontListen {
		port = ns.Addr().(*net.TCPAddr).Port
	}
	gone := make(chan struct{})
	go func() { // ends with the server; Stop waits for it
		ns.WaitForShutdown()
		close(gone)
	}()
	s.lock = lock
	s.mu.Lock()
	defer s.mu.Unlock()
	s.port, s.ns, s.gone = port, ns, gone
	return nil
}

// started looks whether ns, whose Start has returned, has come up: what goes wrong in
// there reaches nobody but its log. The cluster port is bound a moment later.
func (s *Server) started(ns *server.Server, log *serverLog) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if why := log.fatal(); why != "" {
			return s.opts.startError(why)
		}
		switch {
		case !s.opts.DontListen && ns.Addr() == nil:
			return s.opts.startError("it does not listen and gave no reason")
		case !ns.JetStreamEnabled():
			return s.opts.startError("JetStream is off and gave no reason")
		case s.opts.Cluster.Name == "" || ns.ClusterAddr() != nil:
			return nil
		}
		<-tick.C
	}
}

// askWithin bounds the first question, which takes about a millisecond; a machine on which
// it takes longer than this serves nobody.
const askWithin = 20 * time.Second

// askFirst asks JetStream something before others can. The server makes the way back for
// JetStream's answers (a prefix and a subscription to it) with the first question of an
// account, in two steps: a question of another connection that comes between the two is
// answered with the prefix, before anybody listens there, and its caller waits for its
// whole timeout (5 s in our programs). A fleet that meets a new server asks all at once.
// Nobody waits for the answer: the way is there when the question has been read, and in a
// cluster without a leader nobody answers.
func (s *Server) askFirst(ns *server.Server) error {
	fail := func(err error) error {
		return messages.Errorf(messages.CodeUnavailable, "ask the NATS server %s in this process: %v", s.opts.Name, err)
	}
	nc, err := nats.Connect("", append(s.credentials(), nats.InProcessServer(ns), nats.Timeout(askWithin), nats.NoReconnect())...)
	if err != nil {
		return fail(err)
	}
	defer nc.Close()
	if err := nc.PublishRequest("$JS.API.INFO", nc.NewInbox(), nil); err != nil {
		return fail(err)
	}
	if err := nc.FlushTimeout(askWithin); err != nil { // read, and so taken in
		return fail(err)
	}
	return nil
}

// Stop shuts the server down gracefully and waits until it is gone, its files are
// closed and its directory is free for the next one. A stopped server can be started
// again. Stop on a stopped server does nothing.
func (s *Server) Stop() {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	ns, gone := s.ns, s.gone
	s.ns, s.gone = nil, nil
	s.mu.Unlock()
	if ns == nil {
		return
	}
	ns.Shutdown()
	<-gone
	s.lock.release()
	s.lock = nil
}

// server returns the running server, nil where there is none.
func (s *Server) server() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ns
}

// Ready waits until the server takes requests: it listens, JetStream is enabled, and
// in a cluster this server has caught up with the leader. A server in a cluster is
// not ready before most of the others are. It returns ctx's error otherwise, wrapped
// in a [*messages.Error] with code unavailable.
func (s *Server) Ready(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		why := s.notReady()
		if why == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return messages.Errorf(messages.CodeUnavailable, "wait for the NATS server %s: %s (%v)", s.opts.Name, why, ctx.Err())
		case <-tick.C:
		}
	}
}

// notReady says what is missing, "" for nothing.
func (s *Server) notReady() string {
	ns := s.server()
	switch {
	case ns == nil || !ns.Running():
		return "it does not run"
	case !ns.JetStreamEnabled():
		return "JetStream is not enabled"
	case s.opts.Cluster.Name != "" && !ns.JetStreamIsCurrent():
		return "it waits for a leader of cluster " + s.opts.Cluster.Name + "; do most servers of it run, and do the routes name them?"
	}
	return ""
}

// ClientURL returns the URL for clients on this machine, without credentials; "" for a
// server that does not listen, or whose random port is not known before it starts.
func (s *Server) ClientURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.DontListen || s.port == RandomPort {
		return ""
	}
	u := url.URL{Scheme: "nats", Host: net.JoinHostPort(reachable(s.opts.Host), strconv.Itoa(s.port))}
	if s.opts.TLSCert != "" {
		u.Scheme = "tls"
	}
	return u.String()
}

// reachable turns "every address" into one that a client can dial.
func reachable(host string) string {
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return DefaultHost
	}
	return host
}

// MonitorURL returns the URL of the monitoring page, "" where there is none or the
// server does not run.
func (s *Server) MonitorURL() string {
	ns := s.server()
	if ns == nil || ns.MonitorAddr() == nil {
		return ""
	}
	return "http://" + ns.MonitorAddr().String()
}

// InProcessConn opens a connection that touches no network, for nats.InProcessServer.
// The server wants the same credentials on it as on every other. A refusal takes as
// long as the client's timeout: such a connection has no buffer, and server and client
// first wait for one another to read.
func (s *Server) InProcessConn() (net.Conn, error) {
	ns := s.server()
	if ns == nil {
		return nil, errors.New("the NATS server " + s.opts.Name + " does not run")
	}
	return ns.InProcessConn()
}

// Connect connects in process, with the server's own credentials. opts come last.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := append(s.credentials(), nats.InProcessServer(s))
	nc, err := nats.Connect(s.ClientURL(), append(all, opts...)...)
	if err != nil {
		return nil, messages.Errorf(messages.CodeUnavailable, "connect to the NATS server %s in this process: %v", s.opts.Name, err)
	}
	return nc, nil
}

// credentials are those that the server asks for.
func (s *Server) credentials() []nats.Option {
	switch {
	case s.opts.Token != "":
		return []nats.Option{nats.Token(s.opts.Token)}
	case s.opts.User != "":
		return []nats.Option{nats.UserInfo(s.opts.User, s.opts.Password)}
	}
	return nil
}
