package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"
)

// Config is what a coordinator needs to know. Fleet and ID are needed.
type Config struct {
	Fleet    string
	ID       string        // its name, for people; two may share one
	Replicas int           // of streams and buckets that it has to make; 0: see bus.New
	LeaseTTL time.Duration // whole seconds, at least MinLeaseTTL; 0 means DefaultLeaseTTL
	Logger   *slog.Logger  // nil: slog.Default()

	// SystemEvents: listen to what the server says of closed connections. The account must
	// import it from the system account; where it may not subscribe, the server says so.
	SystemEvents bool
	Version      string // of the program, for people
}

// Coordinator is one coordinator. Its methods may be called from many goroutines, Run
// once.
type Coordinator struct {
	nc  *nats.Conn
	cfg Config
	log *slog.Logger
	bus *bus.Bus

	calm    placement.Calm // the defaults; tests shorten some
	nonce   string         // tells two coordinators of one ID apart in the lease
	garbage bus.Garbage
	events  chan placement.Event
	asks    chan func(*placement.Machine)
	work    queue
	link    linkState
	heir    heir
	lives   lives
	known   known
	doubts  doubts
	beats   beats
	quiet   quiet                                             // the Machine's goroutine's
	open    func(context.Context, bus.Bucket) (bus.KV, error) // a bucket to watch: Bus.KV, but for tests
	replies string                                            // prefix of the subjects of answers to us

	mu      sync.Mutex
	missing map[string]bool // what must be known before leading makes sense
	ready   chan struct{}   // closed when nothing is missing

	tenure atomic.Pointer[reign] // nil while somebody else may lead
}

// eventBuffer is how many events, beside heartbeats, may wait for the Machine while it makes
// a plan: one for each of 2,000 documents that are saved. What does not fit waits where it
// comes from.
const eventBuffer = 2048

const (
	haveAgents  = "agents"
	haveDesired = "desired"
)

// New makes a coordinator. It starts nothing; what is wrong with the configuration is
// Run's error.
func New(nc *nats.Conn, cfg Config) *Coordinator {
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = DefaultLeaseTTL
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	c := &Coordinator{
		nc: nc, cfg: cfg, log: cfg.Logger, nonce: nuid.Next(),
		events: make(chan placement.Event, eventBuffer), asks: make(chan func(*placement.Machine)), work: newQueue(), link: newLinkState(), heir: newHeir(), lives: newLives(),
		missing: map[string]bool{haveAgents: true, haveDesired: true}, ready: make(chan struct{}),
	}
	c.beats.init()
	c.known.init()
	c.doubts.init()
	c.replies = nc.NewInbox() + "."
	return c
}

func (c Config) check() error {
	if err := messages.CheckName("coordinator", c.ID); err != nil {
		return err
	}
	if c.LeaseTTL < MinLeaseTTL || c.LeaseTTL%time.Second != 0 {
		return messages.Errorf(messages.CodeBadRequest, "lease ttl: found %v, allowed are whole seconds from %v", c.LeaseTTL, MinLeaseTTL)
	}
	return nil
}

// Run coordinates until ctx ends, and returns when all its goroutines are gone. A server
// that is away, or loses everything, is no error: it tries on. The error is a
// *messages.Error about the configuration, or nil.
func (c *Coordinator) Run(ctx context.Context) error {
	if err := c.cfg.check(); err != nil {
		return err
	}
	var err error
	if c.bus, err = bus.New(c.nc, c.cfg.Fleet, c.cfg.Replicas); err != nil {
		return err
	}
	if c.open == nil {
		c.open = c.bus.KV
	}
	c.quiet = newQuiet(c.calm)
	stop, err := c.listen(ctx)
	if err != nil {
		return err
	}
	defer stop()
	all, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context){c.own, c.perform, c.watchLink, c.pulse, c.watchAgents, c.watchDesired, c.watchLease, c.lead} {
		all.Go(func() error {
			part(ctx)
			return nil
		})
	}
	return all.Wait()
}

// listen subscribes to what agents say.
func (c *Coordinator) listen(ctx context.Context) (stop func(), err error) {
	var subs []*nats.Subscription
	stop = func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // fails only for a closed connection
		}
	}
	// take may return no event.
	on := func(kind messages.Kind, take func(s messages.Subject, data []byte) (placement.Event, error)) error {
		pattern := c.bus.Subject(kind, "").String()
		sub, err := c.nc.Subscribe(pattern, func(m *nats.Msg) {
			s, err := messages.ParseSubject(m.Subject)
			var ev placement.Event
			if err == nil {
				ev, err = take(s, m.Data)
			}
			if err != nil {
				c.garbage.Note(c.log, string(kind), err)
				return
			}
			if ev != nil {
				c.feed(ctx, ev)
			}
		})
		if err != nil {
			return bus.Explain(err, "subscribe to "+pattern)
		}
		subs = append(subs, sub)
		return nil
	}
	// The subject signs a message: whatever its body says of its sender must agree.
	err = errors.Join(
		on(messages.KindGoodbye, func(s messages.Subject, data []byte) (placement.Event, error) {
			var g messages.Goodbye
			err := messages.Decode(data, &g)
			return placement.Goodbye{Goodbye: g}, signed(err, s.Agent, g.Agent)
		}),
		on(messages.KindUnreached, func(s messages.Subject, data []byte) (placement.Event, error) {
			var u messages.Unreached
			err := messages.Decode(data, &u)
			if err = signed(err, s.Agent, u.Agent); err != nil {
				return nil, err
			}
			// Whoever says so may be wrong, or lie: it is our own question that counts.
			if inc, _, ok := c.lives.of(u.Agent); ok && inc == u.Inc && c.doubts.put(u.Agent, time.Now()) {
				c.askSilent([]string{u.Agent})
			}
			return nil, nil
		}))
	hear := []func(context.Context) (*nats.Subscription, error){c.hearBeats, c.hearSilent}
	if c.cfg.SystemEvents {
		hear = append(hear, c.hearSystem)
	}
	for _, f := range hear {
		sub, failed := f(ctx)
		if sub != nil {
			subs = append(subs, sub)
		}
		err = errors.Join(err, failed)
	}
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

func signed(err error, subject, body string) error {
	if err == nil && subject != body {
		err = messages.Errorf(messages.CodeBadRequest, "sent by %q in the name of %q", subject, body)
	}
	return err
}

// feed hands an event to the Machine's goroutine.
func (c *Coordinator) feed(ctx context.Context, ev placement.Event) {
	select {
	case c.events <- ev:
	case <-ctx.Done():
	}
}

// have notes that something is known.
func (c *Coordinator) have(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.missing[what] {
		return
	}
	delete(c.missing, what)
	if len(c.missing) == 0 {
		close(c.ready)
	}
}

// look runs f in the Machine's goroutine, and reports whether it did. What f keeps must
// share nothing with the Machine.
func (c *Coordinator) look(ctx context.Context, f func(*placement.Machine)) bool {
	done := make(chan struct{})
	select {
	case c.asks <- func(m *placement.Machine) {
		defer close(done)
		f(m)
	}:
		<-done
		return true
	case <-ctx.Done():
		return false
	}
}

// linkState tells whoever waits that the connection came back.
type linkState struct {
	mu   sync.Mutex
	back chan struct{} // closed at the next reconnection
	at   time.Time     // before the newest question was sent that the server has answered
}

func (l *linkState) heard(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.Before(at) {
		l.at = at
	}
}

func (l *linkState) last() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

func newLinkState() linkState { return linkState{back: make(chan struct{})} }

// reconnects returns a channel that is closed at the next reconnection.
func (c *Coordinator) reconnects() <-chan struct{} {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.link.back
}

// lookEvery is how often watchLink looks at the connection itself: the client drops
// changes of state that nobody takes in time, and a Machine that missed the last one
// would take itself for deaf for ever.
//
// A connection that stalls says nothing for 4 to 6 s. So the server is asked every pulseEvery,
// and where it has not answered for blindAfter the connection counts as down: that is more
// than a beat takes, and with the rest (a look, a ping) well below Calm.LostAfter less a beat,
// so that nobody is lost for a silence that is our own, however small the fleet.
const (
	lookEvery  = 250 * time.Millisecond
	pulseEvery = 500 * time.Millisecond
	blindAfter = 1500 * time.Millisecond
)

// pulse asks the server again and again whether it hears us.
func (c *Coordinator) pulse(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case sent := <-tick.C:
			try, cancel := context.WithTimeout(ctx, blindAfter)
			if c.nc.FlushWithContext(try) == nil {
				c.link.heard(sent)
			}
			cancel()
		}
	}
}

// watchLink tells the Machine of its own connection: silence means nothing while nobody
// can be heard.
func (c *Coordinator) watchLink(ctx context.Context) {
	changes := c.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(changes)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	up := c.nc.IsConnected()
	var told time.Time // the last answer that the Machine was told of
	c.link.heard(time.Now())
	if up {
		c.feed(ctx, placement.LinkUp{})
	}
	for {
		var s nats.Status
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			s = c.nc.Status()
			if blind := now.Sub(c.link.last()) > blindAfter; s == nats.CONNECTED && blind {
				s = nats.DISCONNECTED
				if up {
					c.log.Warn("the server does not answer; nobody is taken for lost until it does", "since", now.Sub(c.link.last()))
				}
			}
			if (s == nats.CONNECTED) == up {
				// Once a second is enough: beats come no more often.
				if last := c.link.last(); up && now.Sub(last) < 2*lookEvery && last.Sub(told) >= time.Second {
					told = last
					c.feed(ctx, placement.LinkHeard{})
				}
				continue
			}
		case next, ok := <-changes:
			if !ok {
				changes = nil // the connection was closed; look finds it so
				continue
			}
			if s = next; s == nats.CONNECTED {
				c.link.heard(time.Now())
			}
		}
		if up = s == nats.CONNECTED; !up {
			c.feed(ctx, placement.LinkDown{})
			continue
		}
		c.bus.Forget()
		c.feed(ctx, placement.LinkUp{})
		c.link.mu.Lock()
		close(c.link.back)
		c.link.back = make(chan struct{})
		c.link.mu.Unlock()
	}
}
