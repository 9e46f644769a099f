package router

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// flushTimeout bounds the wait until the server knows our subscriptions. A server that
// is there answers within a round trip; one that is not must not hold Run up, because
// subscriptions are sent again with every reconnection.
const flushTimeout = 2 * time.Second

// Client sends requests of one origin over one connection. Make it with [NewClient],
// start [Client.Run], wait for [Client.Ready]; then all other methods may be called
// from many goroutines.
type Client struct {
	nc     *nats.Conn
	cfg    Config
	bus    *bus.Bus
	err    error // of the configuration; Run returns it
	origin string

	inbox   string // last token of the subject of results; nobody can guess it
	replies string // prefix of the subjects for everything else that comes back
	garbage bus.Garbage
	late    atomic.Uint64

	table   routeTable
	prober  prober
	streams streamHealth
	loads   loads
	reports reports
	tasks   tasks
	outbox  outbox
	alarms  bus.Alarms // of flights
	ends    ends

	begun   atomic.Bool
	running chan struct{} // closed when subscriptions stand
	stopped chan struct{} // closed when Run ends

	mu      sync.Mutex
	closing bool
	flights map[string]*flight // by request id
	free    []*flight          // landed
	landed  sync.WaitGroup     // the flights; Add only under mu and before closing
	newest  route.Newest[newestKey, *ticket]
	lastSeq uint64
}

// NewClient makes a client. It starts nothing and sends nothing; a wrong Config is
// reported by Run and Ready.
func NewClient(nc *nats.Conn, cfg Config) *Client {
	c := newClient(nc, cfg, false)
	c.origin = c.cfg.Origin
	return c
}

// newClient makes a client; that of a service speaks for any origin.
func newClient(nc *nats.Conn, cfg Config, service bool) *Client {
	cfg, err := cfg.normal(service)
	c := &Client{
		nc: nc, cfg: cfg, err: err,
		inbox: nuid.Next(), replies: nc.NewInbox() + ".",
		running: make(chan struct{}), stopped: make(chan struct{}),
		flights: make(map[string]*flight),
	}
	if c.err == nil {
		c.bus, c.err = bus.New(nc, cfg.Fleet, cfg.Replicas)
	}
	c.table.init()
	c.prober.init(c)
	c.streams.init()
	c.loads.init()
	c.reports.init()
	c.tasks.init()
	c.outbox.nc = nc
	return c
}

// Run serves the client until ctx ends: it keeps the routes fresh, takes in replies and
// watches over the agents that hold requests. It returns when everything of it is gone
// and every request has ended; nil when ctx ended it, an error for a wrong Config, a
// second call, or a connection that was closed under it.
func (c *Client) Run(ctx context.Context) (err error) {
	if c.err != nil {
		return c.err
	}
	if c.begun.Swap(true) {
		return messages.Errorf(messages.CodeConflict, "router.Client: Run was called twice; make a client for each")
	}
	ctx, cancel := context.WithCancel(ctx)
	var subs subscriptions
	var loops sync.WaitGroup
	defer func() {
		c.halt()
		c.landed.Wait()
		c.outbox.late.Wait()
		c.alarms.Close()
		cancel()
		subs.close()
		loops.Wait()
	}()

	results := c.bus.Subject(messages.KindReply, "")
	results.Origin, results.ID = c.origin, c.inbox
	subjects := newSubjectCache()
	subs.add(c.nc, results.String(), func(m *nats.Msg) { c.onResult(m, subjects) })
	subs.add(c.nc, c.replies+">", c.onReply)
	subs.add(c.nc, c.bus.Subject(messages.KindRoutes, messages.FleetSite).String(), c.onRoutes)
	if subs.err != nil {
		return bus.Explain(subs.err, "subscribe to replies")
	}
	flush, done := context.WithTimeout(ctx, flushTimeout)
	_ = c.nc.FlushWithContext(flush) // only to be ready sooner, see flushTimeout
	done()

	status := c.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(status)
	loops.Go(func() { c.prober.run(ctx) })
	loops.Go(func() { c.streams.run(ctx, c) })
	loops.Go(func() { c.remind(ctx) })
	loops.Go(func() { c.followRoutes(ctx) })
	close(c.running)
	for {
		if c.nc.IsClosed() {
			return messages.Errorf(messages.CodeUnavailable, "router.Client: the connection was closed while Run was using it; end Run's context first")
		}
		select {
		case <-ctx.Done():
			return nil
		case s := <-status:
			if s == nats.CONNECTED {
				// Perhaps another server, perhaps the same without its memory.
				c.bus.Forget()
				c.table.refresh()
			}
		}
	}
}

// halt ends what is in flight and refuses what comes.
func (c *Client) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.closing = true
		close(c.stopped)
		c.ground()
	}
}

// Ready returns nil when Run runs and the routes are known. It waits until ctx ends and
// then says what is missing: Run, the server, or a coordinator that ever wrote routes.
func (c *Client) Ready(ctx context.Context) error {
	if c.err != nil {
		return c.err
	}
	select {
	case <-c.running:
	case <-c.stopped:
		return c.ended()
	case <-ctx.Done():
		return messages.Errorf(messages.CodeUnavailable, "router.Client: Run is not running; start it first: go client.Run(ctx)")
	}
	for {
		changed := c.table.changed()
		if c.table.load() != nil {
			return nil
		}
		select {
		case <-changed:
		case <-c.stopped:
			return c.ended()
		case <-ctx.Done():
			return c.noRoutes()
		}
	}
}

func (c *Client) ended() *messages.Error {
	return messages.Errorf(messages.CodeUnavailable, "router.Client: Run has ended; make a new client")
}

// Stats counts what reached nobody.
type Stats struct {
	InFlight  int            // requests that have not ended
	Late      uint64         // results that came after the end of their request, dropped
	Malformed map[string]int // messages that could not be read, dropped, by kind
}

// Stats returns the counts since the client was made.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{InFlight: len(c.flights), Late: c.late.Load(), Malformed: c.garbage.Counts()}
}

func (c *Client) note(kind string, err error) { c.garbage.Note(c.cfg.Logger, kind, err) }

// subscriptions are opened together and closed together.
type subscriptions struct {
	list []*nats.Subscription
	gone sync.WaitGroup
	err  error
}

// pendingBytes is how much may wait for one of our handlers, which only sort. The
// default of 64 MiB is 200 large results; more than this is a program that is stuck.
const pendingBytes = 512 << 20

func (s *subscriptions) add(nc *nats.Conn, subject string, h nats.MsgHandler) {
	if s.err != nil {
		return
	}
	sub, err := nc.Subscribe(subject, h)
	if err != nil {
		s.err = err
		return
	}
	_ = sub.SetPendingLimits(-1, pendingBytes) // it fails only for a closed one, which close handles
	s.gone.Add(1)
	sub.SetClosedHandler(func(string) { s.gone.Done() })
	s.list = append(s.list, sub)
}

// close ends all and returns when none of their handlers runs any more.
func (s *subscriptions) close() {
	for _, sub := range s.list {
		_ = sub.Unsubscribe() // an error means that it is closed already, with its connection
	}
	s.gone.Wait()
}
