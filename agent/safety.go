package agent

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/agent/latch"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// barrierTime bounds what a release waits for: a round trip of the data connection, after
// which no command of before the stop can still be on its way to a handler. It is below
// the time that `fleetbus release` waits by default (5 s), so that the reason of a failure
// reaches who asked.
const barrierTime = 2 * time.Second

// mostFlushes bounds the round trips that wait for a data connection which stands still.
const mostFlushes = 4

// safety is the shell around the latch of a robot: it hears orders on a connection of its
// own, watches over the link with pings on the same connection, and sees to it that what
// the latch forbids ends. It supplements a hardware stop and never replaces it.
type safety struct {
	a     *Agent
	nc    *nats.Conn
	owned bool // opened here, so closed here
	bus   *bus.Bus
	subs  []*nats.Subscription
	store *latchFile       // nil without a state directory
	links chan nats.Status // of nc, since before it was asked anything

	mu      sync.Mutex
	m       *latch.Machine
	stops   uint64 // orders to stop that were heard
	changes uint64 // of the connection: what was asked before one says nothing of what was missed in it

	// Of open, then of follow alone.
	wasRead bool           // the orders were read once
	shown   messages.Latch // what the bucket has
	epoch   int64          // of the bucket

	saveMu sync.Mutex // one after the other, the newest last
	saved  messages.Latch

	verdict  atomic.Pointer[latch.Verdict] // for the data path
	read     chan struct{}                 // orders are to be read again
	dirty    chan struct{}                 // the latch in the bucket is not the one here
	unsaved  chan struct{}                 // that in the file is not, and nobody waits for it
	barriers chan chan struct{}            // to the loop that serves direct requests
	flushes  chan struct{}                 // holds one for each round trip of the data connection that is under way
}

// newSafety makes the safety of a robot. It talks to nobody.
func newSafety(a *Agent) *safety {
	s := &safety{
		a: a, m: latch.New(a.id, a.cfg.ReEngage),
		read: make(chan struct{}, 1), dirty: make(chan struct{}, 1), unsaved: make(chan struct{}, 1), barriers: make(chan chan struct{}),
		flushes: make(chan struct{}, mostFlushes),
	}
	s.saved = s.m.Held()
	s.publish()
	return s
}

// publish makes the machine's verdict the one that counts. s.mu is held, or nobody else
// knows s yet.
func (s *safety) publish() {
	v := s.m.Verdict()
	s.verdict.Store(&v)
}

// allows reports whether an action of a task may begin; nil: it may. Agents that are no
// robots run no actions and have no safety.
func (s *safety) allows(t messages.Task) *messages.Error {
	if s == nil {
		return nil
	}
	return s.verdict.Load().Allows(s.a.id, t)
}

// why says why the robot is stopped; "" where it is not.
func (s *safety) why() string {
	if s == nil {
		return ""
	}
	return s.verdict.Load().Why()
}

// open connects, reads what an earlier life saved, and subscribes. What fails is
// returned, because a robot that cannot be stopped must not run.
func (s *safety) open(ctx context.Context) error {
	s.nc = s.a.cfg.SafetyConn
	if s.nc == nil {
		nc, err := sibling(s.a.nc)
		if err != nil {
			return bus.Explain(err, "open the connection for stops of robot "+s.a.id)
		}
		s.nc, s.owned = nc, true
	}
	s.links = s.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	var err error
	if s.bus, err = bus.New(s.nc, s.a.cfg.Fleet, s.a.cfg.Replicas); err != nil {
		return err
	}
	if dir := s.a.cfg.StateDir; dir != "" {
		if s.store, err = openLatchFile(dir, s.a.cfg.Fleet, s.a.id); err != nil {
			return err
		}
		s.recall()
	}
	for _, sub := range []struct {
		kind messages.Kind
		hear func(*nats.Msg, messages.Kind)
	}{
		{messages.KindStop, s.stop}, {messages.KindStopAll, s.stop},
		{messages.KindRelease, s.release}, {messages.KindReleaseAll, s.release},
	} {
		subject := s.subject(sub.kind)
		heard, err := s.nc.Subscribe(subject, func(m *nats.Msg) { sub.hear(m, sub.kind) })
		if err != nil {
			return bus.Explain(err, "subscribe to "+subject)
		}
		s.subs = append(s.subs, heard)
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	sent := time.Now()
	err = s.nc.FlushWithContext(ctx)
	if err == nil {
		// The first ping was answered. With the orders read the robot can act as soon as a
		// task is placed here; where either fails, follow and watchLink try on.
		s.step(func(m *latch.Machine) latch.Effects { return m.Pong(time.Now(), sent) })
		err = s.readOrders(ctx, func() error { return nil }) // no command can reach it yet
	}
	if err != nil {
		s.a.cfg.Logger.Warn("not read yet whether this robot was stopped; it takes no actions before", "error", err)
	}
	return nil
}

// sibling opens another connection as nc was opened, without the callbacks by which its
// owner follows that one; errors, such as a refused subject, are reported all the same.
func sibling(nc *nats.Conn) (*nats.Conn, error) {
	o := nc.Opts
	o.Name += " safety"
	o.ClosedCB, o.DisconnectedCB, o.DisconnectedErrCB, o.ConnectedCB, o.ReconnectedCB = nil, nil, nil, nil, nil
	o.DiscoveredServersCB, o.LameDuckModeHandler = nil, nil
	o.FlusherTimeout = time.Second // what it writes is small; longer means that the link is gone
	o.ReconnectBufSize = -1        // an acknowledgement out of a buffer would be a lie
	return o.Connect()
}

// subject is a fleet-wide subject of this robot's.
func (s *safety) subject(kind messages.Kind) string {
	subject := s.bus.Subject(kind, messages.FleetSite)
	subject.Agent = s.a.id
	return subject.String()
}

// close ends the subscriptions, and the connection where it was opened here.
func (s *safety) close() {
	unsubscribe(s.subs)
	if s.links != nil {
		s.nc.RemoveStatusListener(s.links)
	}
	if s.owned && s.nc != nil {
		s.nc.Close()
	}
}

// run watches over the link and the orders until ctx ends.
func (s *safety) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { s.follow(ctx) })
	wg.Go(func() { s.watchLink(ctx) })
	wg.Go(func() { s.keepSaved(ctx) })
	wg.Wait()
}

// step lets the machine take something in and does what follows, but for the saving. It
// returns how many actions it told to end.
func (s *safety) step(take func(*latch.Machine) latch.Effects) (fx latch.Effects, canceled int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := *s.verdict.Load()
	fx = take(s.m)
	if before.Why() != "" && s.m.Verdict().Why() == "" {
		s.a.queued.release(time.Now()) // before anything may begin again
	}
	// First nothing new begins, then what runs ends: see begins for what comes between.
	s.publish()
	v := *s.verdict.Load()
	if fx.Cancel != latch.None {
		canceled = s.a.flight.stop(v.Why(), func(t messages.Task) bool { return fx.Cancel == latch.Every || !t.GoesOn() })
	}
	if fx.Hooks {
		s.a.runHooks(v.Why())
	}
	if fx.Read {
		nudge(s.read)
	}
	if v.Why() != before.Why() {
		if why := v.Why(); why != "" {
			s.a.cfg.Logger.Warn("robot stopped", "why", why, "actions_canceled", canceled)
		} else {
			s.a.cfg.Logger.Info("robot released")
		}
		s.a.beatNow()
	}
	return fx, canceled
}

// begins is asked when an action has been entered in the table of what runs. A stop
// either finds it there, or has changed the verdict before this looks: so none slips
// through between the two.
func (s *safety) begins(e *execution) *messages.Error { return s.allows(e.replica.task) }

// stop handles an order to stop: end what runs, save, acknowledge.
func (s *safety) stop(m *nats.Msg, kind messages.Kind) {
	o := messages.StopOrder{Stop: true, Reason: "an empty message on " + m.Subject}
	if len(m.Data) > 0 { // `nats pub fb.<fleet>._fleet.stop ""` stops too
		o = messages.StopOrder{}
		if !s.decode(m, kind, &o) {
			return
		}
	} else if kind == messages.KindStop {
		o.Agent = s.a.id
	}
	s.mu.Lock()
	s.stops++
	s.mu.Unlock()
	fx, canceled := s.step(func(m *latch.Machine) latch.Effects { return m.Hear(o) })
	s.acknowledge(m, o, fx.Refuse, canceled)
}

// release handles an order to release. What was sent before it must have been refused
// before the robot acts again, so it waits for the data connection; a stop that comes
// meanwhile wins, also over the same release when it is sent again.
func (s *safety) release(m *nats.Msg, kind messages.Kind) {
	var o messages.StopOrder
	if !s.decode(m, kind, &o) {
		return
	}
	s.mu.Lock()
	stops := s.stops
	s.m.Comes(o)
	s.mu.Unlock()
	if err := s.barrier(); err != nil {
		s.acknowledge(m, o, "its data connection does not answer, and commands of before the stop may still be in it: "+err.Error(), 0)
		return
	}
	fx, _ := s.step(func(l *latch.Machine) latch.Effects {
		if s.stops != stops {
			return latch.Effects{Refuse: "another stop came before it was done"}
		}
		return l.Hear(o)
	})
	s.acknowledge(m, o, fx.Refuse, 0)
}

// barrier returns when everything that the server sent on the data connection before it
// was called has been refused or begun.
func (s *safety) barrier() error {
	ctx, cancel := context.WithTimeout(s.a.work, barrierTime)
	defer cancel()
	// The answer comes through the same pipe, behind all that is in it. The call is made
	// aside: it may wait for the lock of a connection that stands still in a write, for
	// longer than its context allows.
	select {
	case s.flushes <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	flushed := make(chan error, 1)
	go func() {
		defer func() { <-s.flushes }()
		flushed <- s.a.nc.FlushWithContext(ctx)
	}()
	select {
	case err := <-flushed:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan struct{})
	select {
	case s.barriers <- done:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *safety) decode(m *nats.Msg, kind messages.Kind, o *messages.StopOrder) bool {
	err := messages.Decode(m.Data, o)
	stop := kind == messages.KindStop || kind == messages.KindStopAll
	all := kind == messages.KindStopAll || kind == messages.KindReleaseAll
	if err == nil && (o.Stop != stop || o.Agent != "" == all || !all && o.Agent != s.a.id) {
		// Permissions guard the subject alone.
		err = messages.Errorf(messages.CodeBadRequest, "subject %q and the order disagree: robot %q, stop %v", m.Subject, o.Agent, o.Stop)
	}
	if err != nil {
		s.a.garbage.Note(s.a.cfg.Logger, string(kind), err)
	}
	return err == nil
}

// acknowledge saves the latch and tells what holds now.
//
// Persist, then ack: what was acknowledged holds after a restart, too.
func (s *safety) acknowledge(m *nats.Msg, o messages.StopOrder, refused string, canceled int) {
	err := s.save()
	if o.ID == "" && m.Reply == "" {
		return
	}
	v := *s.verdict.Load()
	ack := messages.StopAck{
		Agent: s.a.id, Inc: s.a.incarnation(), Fence: o.Fence, Stopped: v.Why(), Canceled: canceled, Error: refused,
		Saved: err == nil && s.store != nil || !o.Fence.IsZero(), Link: v.Orders == "" && v.Link != "",
	}
	if err != nil && refused == "" && !ack.Saved {
		ack.Error = err.Error()
	}
	data, err := messages.Encode(&ack)
	to := m.Reply
	if o.ID != "" {
		// Signed by the subject: nobody else may publish there.
		subject := s.bus.Subject(messages.KindStopAck, messages.FleetSite)
		subject.Agent, subject.ID = s.a.id, o.ID
		to = subject.String()
	}
	if err == nil {
		err = s.nc.Publish(to, data)
	}
	if err != nil {
		s.a.cfg.Logger.Warn("order not acknowledged; it will be sent again", "error", err)
	}
}
