package safety

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Times of an order. They depend on one another:
//
//   - saveTime is how long a stop waits to be saved before it is sent without: a write
//     takes about a millisecond, and a group without a leader answers nothing for 4 to
//     9 s, for which no stop can wait. Saving is then tried on.
//   - sendEvery is the pause before an order is sent again to those that have not
//     answered: one that is just reconnecting has it so much earlier. It is the robots'
//     interval of pings, after two of which they stop by themselves.
//   - strangerTime is how long an order for a robot that nobody knows waits for an answer.
const (
	saveTime     = 300 * time.Millisecond
	sendEvery    = 250 * time.Millisecond
	strangerTime = time.Second
)

// acksQueue holds the acknowledgements that have arrived and are not read yet: those of
// the largest fleet, should it answer at once.
const acksQueue = 65_536

// Order says whom to stop or to release.
type Order struct {
	Robot  string // "" means all
	Reason string // for other people
	By     string // likewise
}

// Ack is the answer of one robot.
type Ack struct {
	messages.StopAck
	Took time.Duration // from the call to the arrival of the answer
}

// Report tells what became of an order.
type Report struct {
	Stop      bool
	Robot     string         // "" means all
	Fence     messages.Fence // of the saved order; zero where it could not be saved
	SaveError error          // why it is not saved: a robot that is away will not find it
	Acks      []Ack          // sorted by robot
	Missing   []string       // robots that did not answer, sorted
	Unlisted  error          // why it is not known which robots there are
	Took      time.Duration  // from the call to the last answer
}

// Undone returns the answers of robots that are not as the order wants them: not
// stopped, or still stopped.
func (r Report) Undone() (list []Ack) {
	for _, a := range r.Acks {
		if a.Error != "" || (a.Stopped != "") != r.Stop {
			list = append(list, a)
		}
	}
	return list
}

// Done reports whether the order is saved and every robot has acknowledged it.
func (r Report) Done() bool {
	return r.SaveError == nil && r.Unlisted == nil && len(r.Missing) == 0 && len(r.Undone()) == 0
}

// Stop stops a robot, or all: actions that run are canceled, queued and new ones
// refused, until a Release. It returns when every robot has answered or ctx ends; ctx
// needs a deadline. While the connection is down it goes on trying, so that the error is
// for an order that could not be sent at all until then; look at
// [Report.Done] for everything else. Repeating it is harmless.
func Stop(ctx context.Context, nc *nats.Conn, fleet string, o Order) (Report, error) {
	return give(ctx, nc, fleet, o, true)
}

// Release ends a Stop, and the stop that a robot has made because it had lost its link.
// To release all does not release a robot that was stopped by name: its answer says so.
// The error has code unavailable where the order could not be saved in time, and conflict
// where another order came before it was: then nothing was sent. As for the rest see
// [Stop].
func Release(ctx context.Context, nc *nats.Conn, fleet string, o Order) (Report, error) {
	return give(ctx, nc, fleet, o, false)
}

// giving is an order under way.
type giving struct {
	nc     *nats.Conn
	bus    *bus.Bus
	start  time.Time
	order  messages.StopOrder
	to     string
	report Report
	acks   map[string]Ack
	robots []string // that are to answer
	listed bool
	sent   bool  // at least once
	unsent error // why it was not, the last time
}

func give(ctx context.Context, nc *nats.Conn, fleet string, o Order, stop bool) (Report, error) {
	g := giving{nc: nc, start: time.Now(), acks: make(map[string]Ack)}
	g.order = messages.StopOrder{Agent: o.Robot, Stop: stop, Reason: o.Reason, By: o.By, ID: nuid.Next()}
	g.report = Report{Stop: stop, Robot: o.Robot}
	if o.Robot != "" {
		if err := messages.CheckName("robot", o.Robot); err != nil {
			return g.report, err
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		return g.report, messages.Errorf(messages.CodeBadRequest, "an order to stop or release needs a context with a deadline: until then it waits for those that do not answer")
	}
	var err error
	if g.bus, err = bus.New(nc, fleet, 0); err != nil {
		return g.report, err
	}
	kind := map[bool][2]messages.Kind{true: {messages.KindStop, messages.KindStopAll}, false: {messages.KindRelease, messages.KindReleaseAll}}[stop]
	subject := g.bus.Subject(kind[0], messages.FleetSite)
	if subject.Agent = o.Robot; o.Robot == "" {
		subject.Kind = kind[1]
	}
	g.to = subject.String()

	back := g.bus.Subject(messages.KindStopAck, messages.FleetSite)
	back.ID = g.order.ID
	acks := make(chan *nats.Msg, acksQueue)
	sub, err := nc.ChanSubscribe(back.String(), acks)
	if err != nil {
		return g.report, bus.Explain(err, "subscribe to the acknowledgements")
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where the connection is closed

	saved := g.persist(ctx, stop)
	if !stop && g.report.SaveError != nil {
		return g.report, g.report.SaveError
	}
	// Persist, then send; see saveTime for the exception.
	g.send()
	g.collect(ctx, acks, saved)
	g.finish()
	if !g.sent {
		return g.report, g.unsent
	}
	return g.report, nil
}

// persist saves the order: a release within the whole time, a stop within saveTime, after
// which it goes on in the background and the result comes through the channel.
func (g *giving) persist(ctx context.Context, stop bool) <-chan save {
	s := saver{bus: g.bus, order: g.order, start: g.start}
	result := make(chan save, 1)
	go func() { result <- persistently(ctx, func() save { return s.try(ctx) }) }()
	var late <-chan time.Time
	if stop {
		t := time.NewTimer(saveTime)
		defer t.Stop()
		late = t.C
	}
	select {
	case s := <-result:
		g.saved(s)
		return nil
	case <-late:
		g.report.SaveError = messages.Errorf(messages.CodeUnavailable, "the order is not saved: JetStream does not answer")
		return result
	}
}

func (g *giving) saved(s save) {
	g.report.Fence, g.report.SaveError, g.order.Fence = s.fence, s.err, s.fence
}

// send sends the order, and keeps what became of that until it is sent again.
func (g *giving) send() {
	data, err := messages.Encode(&g.order)
	if err == nil {
		err = g.nc.Publish(g.to, data)
	}
	tried := "send the order"
	if g.report.SaveError == nil {
		tried += ", which is saved: robots find it when they look, within 30 s"
	}
	if g.unsent = bus.Explain(err, tried); err == nil {
		g.sent = true
	}
}

// collect takes in answers until everybody has answered or ctx ends.
func (g *giving) collect(ctx context.Context, acks <-chan *nats.Msg, saved <-chan save) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list := make(chan roll, 1)
	go func() {
		list <- persistently(ctx, func() (r roll) {
			err := g.bus.Ask(ctx, readTime, func(ctx context.Context) error {
				r = roster(ctx, g.bus, g.order.Agent)
				return r.err
			})
			r.err = err
			return r
		})
	}()
	again := time.NewTicker(sendEvery)
	defer again.Stop()
	var stranger <-chan time.Time
	for !g.complete() || saved != nil {
		select {
		case <-ctx.Done():
			return
		case <-stranger:
			return
		case m := <-acks:
			g.take(m)
		case r := <-list:
			g.robots, g.report.Unlisted = r.robots, r.err
			g.listed = r.err == nil
			if code := messages.CodeOf(r.err); code == messages.CodeNotFound || code == messages.CodeBadRequest {
				stranger = time.After(strangerTime)
			}
		case s := <-saved:
			g.saved(s)
			saved = nil
			g.send() // with its number now
		case <-again.C:
			g.send() // also where the connection was down for a moment
		}
	}
}

// complete reports whether everybody who is to answer has done so.
func (g *giving) complete() bool {
	if !g.listed {
		return false
	}
	for _, robot := range g.robots {
		if a, ok := g.acks[robot]; !ok || a.Error != "" {
			return false
		}
	}
	return true
}

// take takes in an answer. The last one counts, except that a robot which has done it
// once has done it.
func (g *giving) take(m *nats.Msg) {
	subject, err := messages.ParseSubject(m.Subject)
	var ack messages.StopAck
	if err == nil {
		err = messages.Decode(m.Data, &ack)
	}
	if err != nil || ack.Agent != subject.Agent {
		return // a robot that does not answer well has not answered
	}
	if before, ok := g.acks[ack.Agent]; ok && before.Error == "" {
		return
	}
	g.acks[ack.Agent] = Ack{ack, time.Since(g.start)}
}

func (g *giving) finish() {
	for _, a := range g.acks {
		// Whatever the robot could save, it finds the order when its agent starts again.
		a.Saved = a.Saved || g.report.SaveError == nil
		g.report.Acks = append(g.report.Acks, a)
		g.report.Took = max(g.report.Took, a.Took)
	}
	slices.SortFunc(g.report.Acks, func(a, b Ack) int { return strings.Compare(a.Agent, b.Agent) })
	robots := g.robots
	if robot := g.order.Agent; robot != "" {
		robots = []string{robot}
		if _, ok := g.acks[robot]; ok {
			g.report.Unlisted = nil // it is there, whatever the list says
		}
	} else if !g.listed && g.report.Unlisted == nil {
		g.report.Unlisted = messages.Errorf(messages.CodeUnavailable, "which robots there are could not be read in time")
	}
	for _, robot := range robots {
		if _, ok := g.acks[robot]; !ok {
			g.report.Missing = append(g.report.Missing, robot)
		}
	}
}

// roll is who is to answer.
type roll struct {
	robots []string // sorted
	err    error
}

func (r roll) failure() error { return r.err }

// roster reads which robots are to answer: one, or all that are registered.
func roster(ctx context.Context, b *bus.Bus, robot string) roll {
	kv, err := b.KV(ctx, bus.Agents)
	if err != nil {
		return roll{err: err}
	}
	if robot == "" {
		var r roll
		r.err = each(ctx, kv, func(e jetstream.KeyValueEntry) {
			var reg messages.Registration
			if messages.Decode(e.Value(), &reg) == nil && reg.Environment.Tier == messages.Robot {
				r.robots = append(r.robots, e.Key())
			}
		})
		slices.Sort(r.robots)
		return r
	}
	e, err := kv.Get(ctx, robot)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return roll{err: messages.Errorf(messages.CodeNotFound, "no agent %q has ever registered in fleet %s; `fleetbus agents` lists them", robot, b.Fleet)}
	}
	if err != nil {
		return roll{err: bus.Explain(err, "read the registration of "+robot)}
	}
	var reg messages.Registration
	if messages.Decode(e.Value(), &reg) == nil && reg.Environment.Tier != messages.Robot {
		return roll{err: messages.Errorf(messages.CodeBadRequest, "agent %q is of tier %s; only robots run actions, so there is nothing to stop; `fleetbus drain %s` empties it", robot, reg.Environment.Tier, robot)}
	}
	return roll{robots: []string{robot}}
}

// each calls f with every entry of a bucket.
func each(ctx context.Context, kv jetstream.KeyValue, f func(jetstream.KeyValueEntry)) error {
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return bus.Explain(err, "read bucket "+kv.Bucket())
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return bus.Explain(ctx.Err(), "read bucket "+kv.Bucket())
		case e, ok := <-w.Updates():
			if !ok {
				return messages.Errorf(messages.CodeUnavailable, "read bucket %s: the connection was lost", kv.Bucket())
			}
			if e == nil {
				return nil
			}
			f(e)
		}
	}
}
