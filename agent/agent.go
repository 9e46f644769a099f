package agent

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Sizes of the two queues between the connection and the agent. Nothing in the loops
// that empty them waits, so they hold only what arrives while those loops are not
// scheduled; what does not fit is dropped by the client library, and the caller's
// attempt machine goes elsewhere. A direct request may carry max_payload, so its queue
// is the shorter.
const (
	directQueue  = 256
	controlQueue = 1024
)

// flushTimeout bounds the last round trip of an agent that leaves: its results and its
// goodbye are on their way when it returns. A server that does not answer within it has
// lost the agent already.
const flushTimeout = 2 * time.Second

// Agent announces one environment, runs the tasks placed on it and serves their
// requests. See the package documentation for what it does and promises.
type Agent struct {
	cfg      Config
	err      error // of the configuration; Run returns it
	id, site string
	nc       *nats.Conn
	beatConn *nats.Conn
	handlers map[string]Handler
	ran      atomic.Bool

	bus    *bus.Bus
	clocks map[messages.Class]*bus.Clock
	jobs   jobStore
	inc    atomic.Pointer[messages.Incarnation]

	garbage bus.Garbage
	faults  counters

	mu       sync.Mutex
	doc      *messages.Placement // applied; nil before the first
	replicas map[string]*replica
	closing  bool // nothing starts any more

	byTask   atomic.Pointer[map[string][]*replica] // for the data path; replaced as a whole
	draining atomic.Bool                           // heartbeats say so
	closed   atomic.Bool                           // direct requests are answered so
	guards   guards
	flight   flight
	crowd    crowd
	link     link
	safety   *safety // nil where the agent is no robot
	outbox   outbox
	queued   queued
	accepts  acceptor
	crew     *crew                       // runs direct requests
	subjects map[string]messages.Subject // of direct requests, taken apart; the reader's

	beat        chan struct{} // a heartbeat is wanted now
	silence     func()        // ends the heartbeats and returns when none can follow
	placed      chan struct{} // a document was applied
	back        chan struct{} // the connection came back
	fatal       chan error    // the first reason to stop at once
	reconnected pulse
	lives       lives           // goroutines that run user code, or wait for some that do
	work        context.Context // of everything that handlers do; ends when they must give up
	endWork     func()
	alarms      bus.Alarms    // of executions
	abandoned   chan struct{} // closed when the time to drain is over: what still runs is left behind
}

// New makes an agent that serves the handlers over a connection. It starts nothing;
// what is wrong with cfg or the handlers is returned by [Agent.Run]. The connection
// stays the caller's; make it with [bus.Connect], or at least with
// nats.MaxReconnects(-1).
func New(nc *nats.Conn, cfg Config, handlers ...Handler) *Agent {
	cfg, byName, err := cfg.normal(handlers)
	if err == nil && nc == nil {
		err = messages.Errorf(messages.CodeBadRequest, "agent %q has no connection; give agent.New the one that bus.Connect returns", cfg.Environment.ID)
	}
	a := &Agent{
		cfg: cfg, err: err, id: cfg.Environment.ID, site: cfg.Environment.Site,
		nc: nc, beatConn: cfg.BeatConn, handlers: byName,
		clocks:    map[messages.Class]*bus.Clock{messages.Inference: {}, messages.Training: {}, messages.Action: {}},
		queued:    queued{wake: make(chan struct{}, 1)},
		replicas:  make(map[string]*replica),
		guards:    guards{newest: newNewest(), episodes: newEpisodes()},
		beat:      make(chan struct{}, 1),
		placed:    make(chan struct{}, 1),
		back:      make(chan struct{}, 1),
		fatal:     make(chan error, 1),
		abandoned: make(chan struct{}),
		subjects:  make(map[string]messages.Subject),
		accepts:   acceptor{wake: make(chan struct{}, 1)},
	}
	if a.beatConn == nil {
		a.beatConn = nc
	}
	a.crew = newCrew(&a.lives)
	a.byTask.Store(&map[string][]*replica{})
	if cfg.Environment.Tier == messages.Robot {
		a.safety = newSafety(a)
	}
	return a
}

// Counts returns how many malformed messages were dropped, by kind, and under
// "journal" and "result" how many outcomes and results could not be handed over, under
// "handover" how many requests went back to the queue because the machine had become slow.
func (a *Agent) Counts() map[string]int {
	all := a.garbage.Counts()
	if all == nil {
		all = make(map[string]int)
	}
	maps.Copy(all, a.faults.all())
	return all
}

// Run serves until ctx ends, then drains: see the package documentation. It returns
// nil after a drain in which everything finished, and otherwise a [*messages.Error]:
// bad_request for a wrong configuration, unavailable where the agent could not
// register, conflict when another process took its id, backend_failed naming the
// handlers that did not return in time. All goroutines of the agent are gone when it
// returns, except those of such handlers. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	if a.err != nil {
		return a.err
	}
	if a.ran.Swap(true) {
		return messages.Errorf(messages.CodeConflict, "agent %q was run before; make a new one with agent.New", a.id)
	}
	// The listener comes first, so that no reconnection after the registration is missed.
	status := a.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer a.nc.RemoveStatusListener(status)
	b, err := bus.New(a.nc, a.cfg.Fleet, a.cfg.Replicas)
	if err != nil {
		return err
	}
	a.bus, a.jobs.a = b, a
	a.jobs.puts.Conn, a.jobs.prefix = a.nc, bus.BucketSubject(a.cfg.Fleet, bus.Jobs, "")
	defer a.jobs.puts.Close()
	if err := a.enrol(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before it had begun
		}
		return err
	}

	// The loops outlive ctx: an agent that drains still beats, renews and answers.
	loops, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var endWork context.CancelFunc
	a.work, endWork = context.WithCancel(loops)
	a.endWork = func() {
		endWork()
		a.alarms.Close() // which looks at a.work
	}
	defer a.endWork()
	if a.safety != nil {
		// Before anything can be asked of it.
		defer a.safety.close()
		if err := a.safety.open(ctx); err != nil {
			return err
		}
	}
	direct := make(chan *nats.Msg, directQueue)
	control := make(chan *nats.Msg, controlQueue)
	subs, err := a.subscribe(loops, direct, control)
	defer unsubscribe(subs)
	if err != nil {
		return err
	}
	a.claim()

	var wg sync.WaitGroup
	a.link.start = time.Now()
	beats, stopBeats := context.WithCancel(loops)
	silent := make(chan struct{})
	wg.Go(func() {
		defer close(silent)
		a.beats(beats)
	})
	a.silence = func() { stopBeats(); <-silent }
	if a.safety != nil {
		wg.Go(func() { a.safety.run(loops) })
	}
	pongs := make(chan time.Time, 1)
	for _, loop := range []func(context.Context){
		func(ctx context.Context) { a.watch(ctx, status) },
		func(ctx context.Context) { a.pings(ctx, pongs) },
		func(ctx context.Context) { a.serveDirect(ctx, direct, pongs) },
		func(ctx context.Context) { a.serveControl(ctx, control) },
		a.reconfirm, a.recall, a.keep, a.accept, a.deliver, a.takeQueued,
	} {
		wg.Go(func() { loop(loops) })
	}
	err = a.leave(ctx)
	stopBeats()
	unsubscribe(subs)
	a.endWork()
	stop()
	wg.Wait()
	a.crew.close()
	return err
}

// subscribe subscribes to everything that is sent to this agent, and returns when the
// server knows.
func (a *Agent) subscribe(ctx context.Context, direct, control chan *nats.Msg) ([]*nats.Subscription, error) {
	var subs []*nats.Subscription
	for _, s := range []struct {
		kind messages.Kind
		site string
		to   chan *nats.Msg
	}{
		{messages.KindDo, a.site, direct},
		{messages.KindPlace, a.site, control},
		{messages.KindProbe, a.site, control},
		{messages.KindCancel, a.site, control},
		{messages.KindWake, a.site, control},
		{messages.KindClaim, "", control}, // of all sites: an id is unique in the fleet
	} {
		subject := a.bus.Subject(s.kind, s.site)
		subject.Agent = a.id
		sub, err := a.nc.ChanSubscribe(subject.String(), s.to)
		if err != nil {
			return subs, bus.Explain(err, "subscribe to "+subject.String())
		}
		subs = append(subs, sub)
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := a.nc.FlushWithContext(ctx); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		// No answer means no connection: the client library subscribes again by itself.
		a.cfg.Logger.Warn("the server has not confirmed the subscriptions", "error", err)
	}
	return subs, nil
}

func unsubscribe(subs []*nats.Subscription) {
	for _, s := range subs {
		_ = s.Unsubscribe() // fails only where the connection is closed or it was done before
	}
}

// subject starts a subject of this agent's, in its own site.
func (a *Agent) subject(kind messages.Kind) messages.Subject {
	s := a.bus.Subject(kind, a.site)
	s.Agent = a.id
	return s
}

// incarnation returns the agent's current one. It changes only when the server lost its
// storage and the agent registered again.
func (a *Agent) incarnation() messages.Incarnation { return *a.inc.Load() }

// fail stops the agent at once; only the first reason counts.
func (a *Agent) fail(err error) {
	select {
	case a.fatal <- err:
	default:
	}
}
