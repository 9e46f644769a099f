package agent

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Times of a puller. Those of the pulls themselves stand in package bus.
//
//   - repullFirst to repullMost: how long it waits before it makes a missing consumer
//     again. The first is short because after the restart of a server it is the
//     reconnection that has just ended the wait; the last keeps a thousand agents from
//     hammering a group without a leader, which takes 4 to 9 s to elect one.
//   - tryFirst is how long the first attempt may take; the next ones twice as long each,
//     up to apiTime. An answer takes milliseconds; one that was lost with a leader never
//     comes, and the next attempt must not wait for it.
//   - freshEvery is how often all pulls are made anew although nothing seems wrong: a
//     single pull that was lost without a word would leave one slot idle for ever. It
//     is several times the life of a pull, so it costs nothing beside their renewal.
//   - drainTime bounds the round trip after which no delivery can be on its way any
//     more. Where the server does not answer there is none anyway.
const (
	repullFirst = 50 * time.Millisecond
	repullMost  = 2 * time.Second
	tryFirst    = 500 * time.Millisecond
	freshEvery  = 4 * bus.PullExpires
	drainTime   = time.Second
)

// puller takes work out of one queue for a replica while it is open: of inference there is
// one, of training one per priority, see lines.go. It asks for as
// many messages as there are slots free, never more, so what waits does so at the
// server, where any other replica can take it.
//
// It keeps one inbox for all its pulls and as many workers as there are slots, which
// read from it directly: no goroutine, subscription or channel is made per message. The
// sum of messages asked for and messages being served is at most the number of slots
// (with batches: of the seats of the next one),
// so whoever reads a message can serve it, except where a direct request was quicker, or one that it had looked at, see returns:
// then the message goes back to the queue in the same moment.
type puller struct {
	r       *replica
	level   messages.Priority
	msgs    chan *nats.Msg
	subject string        // where pulls are published
	lost    chan struct{} // the consumer, and with it the pulls, seem to be gone
	rerank  chan struct{} // the pulls wait at the wrong rank
	quit    chan struct{} // the workers end
	ctx     context.Context
	cancel  context.CancelFunc
	tried   chan struct{} // closed after the first attempt to pull
	ended   chan struct{} // the loop has ended

	// Guarded by r.mu.
	on      bool
	sub     *nats.Subscription
	inbox   string
	waiting int // messages asked for and not yet come
	heard   time.Time
	probing bool // the pull that waits asks whether there is something
	empty   bool // there was nothing when it asked
}

// pull is a request for n messages that is about to be sent.
type pull struct {
	by      *puller
	n, rank int
	inbox   string
	expires time.Duration
	probe   bool
}

func newPuller(r *replica, level messages.Priority) *puller {
	p := &puller{
		r: r, level: level,
		// Room for a message and a heartbeat per pull, and for the notices that the end
		// of a consumer brings; what does not fit would be lost.
		msgs:    make(chan *nats.Msg, 4*r.slots+64),
		subject: r.a.bus.PullSubject(r.a.site, r.task.Class, bus.ConsumerName(r.task.Name, level)),
		lost:    make(chan struct{}, 1), rerank: make(chan struct{}, 1),
		quit: make(chan struct{}), tried: make(chan struct{}), ended: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(r.wanted)
	return p
}

// begin starts the loop and the workers.
func (p *puller) begin() {
	for range p.r.slots {
		p.r.a.lives.begin(p.worker)
	}
	p.r.a.lives.begin(func() {
		defer close(p.ended)
		p.loop()
	})
}

// end stops pulling, gives back what was on its way and lets the workers go when they
// have finished. It does not wait for them.
func (p *puller) end() {
	p.cancel()
	<-p.ended
	close(p.quit)
}

// loop makes the consumer and the inbox, and makes them again whenever the pulls are
// lost: after a reconnection, when the consumer is gone, when the server is silent.
func (p *puller) loop() {
	defer p.halt()
	a, log := p.r.a, p.r.a.cfg.Logger.With("replica", p.r.id)
	wait := backoff{least: repullFirst, most: repullMost}
	limit := backoff{least: tryFirst, most: apiTime}
	failing := false
	var first sync.Once
	for p.ctx.Err() == nil {
		reconnected := a.reconnected.next()
		err := p.start(limit.step())
		first.Do(func() { close(p.tried) })
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			if !failing && messages.CodeOf(err) != messages.CodeCanceled { // a reconnection; at once again
				log.Warn("cannot take work from the queue; trying on", "error", err)
			}
			failing = failing || messages.CodeOf(err) != messages.CodeCanceled
			sleep(p.ctx, wait.step(), reconnected)
			continue
		}
		if failing {
			log.Info("takes work from the queue again")
		}
		failing = false
		limit.reset()
		if p.watch(reconnected) {
			wait.reset()
			continue
		}
		a.bus.Forget()
		sleep(p.ctx, wait.step(), reconnected)
	}
}

// start makes stream and consumer where they are missing, reads the server's clock and
// sends the first pulls, all within a time limit.
func (p *puller) start(limit time.Duration) error {
	a, t := p.r.a, p.r.task
	ctx, cancel := a.apiContext(p.ctx, limit)
	defer cancel()
	if _, err := a.bus.ConsumerOf(ctx, a.site, t.Class, t.Name, p.level); err != nil {
		return err
	}
	if clock := a.clocks[t.Class]; clock.Due(time.Now()) {
		// Without the clock the age of every message is unknown, and would count as over.
		if err := clock.Sync(ctx, a.bus, a.site, t.Class); err != nil {
			return err
		}
	}
	return p.fresh()
}

// fresh moves the pulls to a new inbox. The server drops those of the old one, because
// nobody listens there any more.
func (p *puller) fresh() error {
	a := p.r.a
	inbox := a.nc.NewInbox()
	sub, err := a.nc.ChanSubscribe(inbox, p.msgs)
	if err != nil {
		return bus.Explain(err, "subscribe to the deliveries of task "+p.r.task.Name)
	}
	p.r.mu.Lock()
	old := p.sub
	p.sub, p.inbox, p.waiting, p.heard, p.on = sub, inbox, 0, time.Now(), true
	p.probing, p.empty = false, false
	first := p.r.claimLocked()
	p.r.mu.Unlock()
	if old != nil {
		_ = old.Drain() // fails only where there is no connection, and then there is nothing to drain
	}
	first.send()
	return nil
}

// watch returns true when pulls are to be made again at once, and false when the
// consumer seems to be gone.
func (p *puller) watch(reconnected <-chan struct{}) bool {
	a, class := p.r.a, p.r.task.Class
	tick := time.NewTicker(bus.PullHeartbeat)
	defer tick.Stop()
	anew := time.NewTicker(freshEvery)
	defer anew.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return true
		case <-reconnected:
			return true
		case <-p.lost:
			return false
		case <-p.rerank:
			if p.fresh() != nil {
				return false
			}
		case <-anew.C:
			if p.fresh() != nil {
				return false
			}
		case now := <-tick.C:
			if p.silent(now) {
				a.cfg.Logger.Warn("the server is silent about a waiting pull; pulling again", "replica", p.r.id)
				return true
			}
			if clock := a.clocks[class]; clock.Due(now) {
				ctx, cancel := a.apiContext(p.ctx, tryFirst) // again with the next tick
				if err := clock.Sync(ctx, a.bus, a.site, class); err != nil {
					a.cfg.Logger.Debug("server's clock not read", "error", err)
				}
				cancel()
			}
		}
	}
}

func (p *puller) silent(now time.Time) bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return p.waiting > 0 && now.Sub(p.heard) > bus.PullSilence && p.r.a.nc.IsConnected()
}

// halt ends the inbox and waits until nothing can arrive there any more.
func (p *puller) halt() {
	p.r.giveAllBack()
	p.r.mu.Lock()
	p.on = false
	sub := p.sub
	p.r.mu.Unlock()
	if sub == nil {
		return
	}
	gone := make(chan struct{})
	var once sync.Once
	sub.SetClosedHandler(func(string) { once.Do(func() { close(gone) }) })
	if err := sub.Drain(); err != nil {
		return
	}
	sleep(context.Background(), drainTime, gone)
}

// renewSoon makes the pulls wait at the replica's new rank.
func (p *puller) renewSoon() { nudge(p.rerank) }

// worker serves one message after the other until quit.
func (p *puller) worker() {
	over := false
	defer func() {
		if !over { // a handler has ended its goroutine; who asks for messages must have one that reads them
			p.r.a.lives.begin(p.worker)
		}
	}()
	for {
		select {
		case m := <-p.msgs:
			p.receive(m)
		case <-p.quit:
			for {
				select {
				case m := <-p.msgs:
					p.giveBack(m)
				default:
					over = true
					return
				}
			}
		}
	}
}

func (p *puller) giveBack(m *nats.Msg) {
	if m.Reply != "" {
		_ = p.r.a.nc.Publish(m.Reply, bus.Nak) // without a connection the ack wait does the same
	}
}

// receive handles one message of the inbox: work, or the server's word on a pull.
func (p *puller) receive(m *nats.Msg) {
	if m.Reply == "" {
		p.status(m)
		return
	}
	now := time.Now()
	p.r.mu.Lock()
	if m.Sub == p.sub {
		p.waiting, p.heard = max(0, p.waiting-1), now
		p.probing, p.empty = false, false
	}
	taken := p.r.takeLocked()
	var next claims
	if p.level != "" && taken {
		next = p.r.claimLocked() // not every free slot has a pull, see pullShare and lookLocked
	}
	p.r.mu.Unlock()
	next.send()
	if !taken {
		p.giveBack(m)
		return
	}
	p.r.serveWork(m, now)
}

// status handles what the server says of a pull. Only the current inbox counts: older
// pulls were given up.
func (p *puller) status(m *nats.Msg) {
	code := m.Header.Get("Status")
	p.r.mu.Lock()
	if m.Sub != p.sub {
		p.r.mu.Unlock()
		return
	}
	p.heard = time.Now()
	var next claims
	known := true
	switch {
	case code == "100": // it still waits
		if !p.empty {
			p.empty = true
			next = p.r.claimLocked() // lower ones may pull now
		}
	case p.probing && (code == "404" || code == "408"): // there is nothing
		p.waiting, p.probing, p.empty = 0, false, true
		next = p.r.claimLocked()
	case code == "408": // it waited long enough
		left, err := strconv.Atoi(m.Header.Get(headerPending))
		if err != nil || left < 0 {
			left = p.waiting
		}
		p.waiting, p.empty = max(0, p.waiting-left), false
		next = p.r.claimLocked()
	default: // no consumer (503, 409), no leader, no stream: all pulls are gone
		known = false
	}
	p.r.mu.Unlock()
	next.send()
	if known {
		return
	}
	if code == "" {
		p.r.a.garbage.Note(p.r.a.cfg.Logger, "delivery", errors.New("neither work nor a status"))
		return
	}
	p.r.a.cfg.Logger.Debug("pull ended", "replica", p.r.id, "status", code, "description", strings.TrimSpace(m.Header.Get("Description")))
	nudge(p.lost)
}

// headerPending tells how many messages a pull that ended had still waited for.
const headerPending = "Nats-Pending-Messages"
