package router

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
)

// Answer is what came back.
type Answer struct {
	Body        []byte // of the model, byte for byte; the caller's
	ContentType string
	Agent       string        // who answered
	Attempt     int           // which attempt that was, from 1
	Service     time.Duration // that the handler took
	Total       time.Duration // from the call to the answer
	Parts       int           // partial results that this attempt sent before it
}

// stepper is the machine of an inference or an action.
type stepper interface {
	Step(now time.Time, ev route.Event) []route.Effect
	Done() bool
}

// flight is one request under way. Its machine is stepped by the goroutine of the
// caller, and by no other; whoever has news for it posts them. When it has landed it is
// used again: two kilobytes for each request would be most of what a client allocates.
type flight struct {
	c    *Client
	bell bus.Alarm
	wake chan struct{}
	trip

	unsent atomic.Bool // a message of it is in the outbox

	mu   sync.Mutex
	id   string // whose news are taken; "" once it has landed
	box  []arrival
	next []arrival // the box before, to be used again
	room [usualNews + 1]arrival
}

// trip is what a flight has for one request.
type trip struct {
	req     messages.Request // as it is sent, but for Attempt and Left
	body    []byte
	site    string // whose queue or journal it goes into first
	agent   string // action: the robot
	start   time.Time
	until   time.Time // the deadline
	machine stepper
	infer   route.Machine // of an inference; here, so that it costs no allocation of its own
	held    []string      // agents at which it takes a slot
	watched []string      // agents that are probed for it
	queued  bool          // it went into a queue first
	hedges  bool          // its latency counts for hedging
	answer  *Answer
	err     *messages.Error

	queuedSeq uint64 // of an action that waits: its sequence in the journal

	alarm     time.Time     // when the timer is due; zero: it is not set
	lags      bool          // its timer waits until our own connection has caught up
	onPartial func(Partial) // nil: nobody wants them
	voice     int           // the attempt whose parts are passed on
	speaker   string        // whose that is
}

// usualNews is how much news comes at once, usually: a result, and before it a PubAck.
const usualNews = 2

// maxFree bounds the flights that wait to be used again: 1 MB.
const maxFree = 512

// arrival is an event with the reply that brought it, where there is one.
type arrival struct {
	ev          route.Event
	msg         *nats.Msg
	contentType string
	service     time.Duration
	parts       int             // of a result: how many partial results came before it
	part        *messages.Reply // a partial result or a report of progress: no event of the machine's
	seq         uint64          // of Published: where an action that waits is in the journal
}

// maxBox bounds the news that wait for one request. A request has a handful; more is a
// neighbour that floods us.
const maxBox = 256

// newFlight makes a flight, of one that has landed if there is one.
func (c *Client) newFlight(req messages.Request, body []byte, start, until time.Time) *flight {
	c.mu.Lock()
	var f *flight
	if n := len(c.free); n > 0 {
		f = c.free[n-1]
		c.free = c.free[:n-1]
	}
	c.mu.Unlock()
	if f == nil {
		f = &flight{c: c, wake: make(chan struct{}, 1)}
		f.bell.Bell = f
	}
	f.trip = trip{req: req, body: body, start: start, until: until, held: f.held[:0], watched: f.watched[:0]}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id = req.ID
	f.box, f.next = f.room[:0:usualNews], f.room[usualNews:usualNews]
	return f
}

// post brings news of the request of that id. It never blocks and may be called by any
// goroutine, also by one that is late.
func (f *flight) post(id string, a arrival) {
	f.mu.Lock()
	ours := f.id == id
	if ours && (len(f.box) < maxBox || a.ev.Kind == route.Cancel) {
		f.box = append(f.box, a)
	}
	f.mu.Unlock()
	if !ours {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Ring posts that the timer has fired. One that comes when the flight has another request
// already only makes it look at its clock.
func (f *flight) Ring() {
	f.mu.Lock()
	id := f.id
	f.mu.Unlock()
	if id != "" {
		f.post(id, arrival{ev: route.Event{Kind: route.Timer}})
	}
}

func (f *flight) take() []arrival {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.box, f.next = f.next[:0], f.box
	return f.next
}

// launch makes a flight known to those who bring news.
func (c *Client) launch(f *flight) *messages.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return c.ended()
	case c.flights[f.req.ID] != nil:
		return messages.Errorf(messages.CodeConflict, "request id %s is under way already; every request needs an id of its own", f.req.ID)
	}
	c.flights[f.req.ID] = f
	c.outbox.many.Add(1)
	c.landed.Add(1)
	return nil
}

// ground ends the flights, because Run ends; c.mu is held.
func (c *Client) ground() {
	for id, f := range c.flights {
		f.post(id, arrival{ev: route.Event{Kind: route.Cancel, Err: c.ended()}})
	}
}

// land is the one place where a flight gives back all that it has taken.
func (c *Client) land(f *flight) {
	f.settle()
	c.outbox.many.Add(-1)
	for _, agent := range f.watched {
		c.prober.remove(f, agent)
	}
	for _, agent := range f.held {
		c.loads.add(agent, f.req.Task, -1)
	}
	c.alarms.Unset(&f.bell)
	f.mu.Lock()
	f.id = ""
	clear(f.room[:]) // they hold bodies
	f.box, f.next = nil, nil
	f.mu.Unlock()
	c.mu.Lock()
	delete(c.flights, f.req.ID)
	f.trip = trip{held: f.held, watched: f.watched} // after that nobody reads it
	if len(c.free) < maxFree {
		c.free = append(c.free, f) // from here on it is another's
	}
	c.mu.Unlock()
	c.landed.Done()
}

// airborne is what others than its caller's goroutine may know of a flight.
type airborne struct {
	f      *flight
	id     string
	origin string
	class  messages.Class
	site   string
	parts  bool // somebody wants its parts
}

func (f airborne) post(a arrival) { f.f.post(f.id, a) }

// flying returns the flight of a request that has not landed.
func (c *Client) flying(id string) (airborne, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flights[id]
	if f == nil {
		return airborne{}, false
	}
	return airborne{f, id, f.req.Origin, f.req.Class, f.site, f.onPartial != nil}, true
}

// fly runs the request to its end, in the goroutine of its caller.
func (f *flight) fly(ctx context.Context) (*Answer, *messages.Error) {
	if err := f.c.launch(f); err != nil {
		return nil, err
	}
	defer f.c.land(f)
	f.step(time.Now(), arrival{ev: route.Event{Kind: route.Start}})
	gone := ctx.Done()
	for !f.machine.Done() {
		over := false
		if gone == nil { // waiting for one thing costs half of waiting for two
			<-f.wake
		} else {
			select {
			case <-f.wake:
			case <-gone:
				over, gone = true, nil // told once: an action that is being withdrawn goes on for a moment
			}
		}
		for _, a := range f.take() {
			f.step(time.Now(), a)
		}
		if over { // what came before it counts: so it knows where in the journal it waits
			f.cancel(ctx.Err())
		}
	}
	return f.answer, f.err
}

// cancel ends the request because of its context, or because Run ends. A context that
// ran out of time is past the deadline, which is not later than its own.
func (f *flight) cancel(why error) {
	now := time.Now()
	select {
	case <-f.c.stopped: // a context that ends with Run is Run's end, not the caller's wish
		f.step(now, arrival{ev: route.Event{Kind: route.Cancel, Err: f.c.ended()}})
		return
	default:
	}
	if errors.Is(why, context.DeadlineExceeded) {
		if now.Before(f.until) {
			now = f.until
		}
		f.step(now, arrival{ev: route.Event{Kind: route.Timer}})
		return
	}
	f.step(now, arrival{ev: route.Event{Kind: route.Cancel}})
}

// step feeds the machine and does what it says.
func (f *flight) step(now time.Time, a arrival) {
	if f.machine.Done() {
		return
	}
	if a.part != nil {
		f.passOn(a)
		return
	}
	if a.ev.Kind == route.Timer && f.hold(now) {
		return
	}
	switch a.ev.Kind {
	case route.Published:
		f.queuedSeq = a.seq
	case route.Accepted:
		f.trace(TraceAccepted, a.ev.Agent, a.ev.Attempt, "")
	case route.Result:
		f.note(now, a)
	case route.HolderLost:
		f.trace(TraceLost, a.ev.Agent, 0, "")
	case route.HolderHung:
		f.trace(TraceHung, a.ev.Agent, 0, "")
	}
	for _, e := range f.machine.Step(now, a.ev) {
		switch e.Kind {
		case route.PublishWork:
			f.trace(TraceSent, "", e.Attempt, "")
			f.enqueue(e, now)
		case route.WriteIntent:
			f.trace(TraceSent, "", e.Attempt, "")
			f.journal(e, now)
		case route.WriteQueued:
			f.writeQueued(e, now)
		case route.WakeRobot:
			f.wakeRobot(e)
		case route.Withdraw:
			f.withdraw(e)
		case route.SendDirect:
			f.direct(e, now)
		case route.ProbeOn:
			f.watch(e)
		case route.ProbeOff:
			f.unwatch(e.Agent)
		case route.CancelAt:
			f.settle() // what is to be dropped comes before the word to drop it
			f.c.cancelAt(e.Site, e.Agent, f.req.Origin, f.req.ID)
		case route.WakeAt:
			f.alarm = e.At
			f.c.alarms.Set(&f.bell, e.At)
		case route.Finish:
			if f.err = e.Err; e.Err == nil {
				f.answer = &Answer{
					Body: a.msg.Data, ContentType: a.contentType, Agent: e.Agent, Attempt: e.Attempt,
					Service: a.service, Total: now.Sub(f.start), Parts: a.parts,
				}
			}
		}
	}
}

// note remembers how a replica answered.
func (f *flight) note(now time.Time, a arrival) {
	if f.req.Class != messages.Inference {
		return
	}
	switch err := a.ev.Err; {
	case err == nil && f.req.ContentType == messages.MetadataType: // the model was not asked
	case err == nil:
		f.c.loads.note(now, a.ev.Agent, f.req.Task, a.service, false)
		if f.queued {
			f.c.tasks.queue(f.site, f.req.Task, func(b *route.Backlog) { b.Served(now, a.service) })
		}
		if f.hedges {
			f.c.tasks.hedge(f.req.Task, func(h *route.Hedge) { h.Answered(now.Sub(f.start)) })
		}
	case err.Code == messages.CodeBackendFailed:
		f.c.loads.note(now, a.ev.Agent, f.req.Task, 0, true)
	}
}

// watch probes an agent for this request, and takes a slot there if it holds it.
func (f *flight) watch(e route.Effect) {
	if e.Attempt == 0 {
		f.c.stuck(f.site, f.req.Task) // what it says is of interest when it has waited longer
	}
	if !slices.Contains(f.watched, e.Agent) {
		f.watched = append(f.watched, e.Agent)
	}
	f.c.prober.add(f, e.Agent, e.Site, e.Attempt > 0)
	if e.Attempt > 0 && !slices.Contains(f.held, e.Agent) {
		f.held = append(f.held, e.Agent)
		f.c.loads.add(e.Agent, f.req.Task, 1)
	}
}

func (f *flight) unwatch(agent string) {
	if i := slices.Index(f.watched, agent); i >= 0 {
		f.watched = slices.Delete(f.watched, i, i+1)
		f.c.prober.remove(f, agent)
	}
	if i := slices.Index(f.held, agent); i >= 0 {
		f.held = slices.Delete(f.held, i, i+1)
		f.c.loads.add(agent, f.req.Task, -1)
	}
}

func (f *flight) trace(kind TraceKind, agent string, attempt int, cause route.Cause) {
	if f.c.cfg.Trace != nil {
		f.c.trace(TraceEvent{Kind: kind, ID: f.req.ID, Class: f.req.Class, Task: f.req.Task, Key: f.req.Key, Agent: agent, Attempt: attempt, Cause: string(cause)})
	}
}

func (c *Client) trace(e TraceEvent) {
	if c.cfg.Trace != nil {
		e.At = time.Now()
		c.cfg.Trace(e)
	}
}
