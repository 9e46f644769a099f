package router

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
)

// envelope is a message that is made in memory used before: publishing copies it.
type envelope struct {
	headers messages.Headers
	msg     nats.Msg
	f       *flight
	id      string      // of the request
	what    string      // is tried, for an error
	failed  route.Event // what the flight is told where that fails
	now     bool        // or never: not out of a buffer later
}

var envelopes = sync.Pool{New: func() any { return new(envelope) }}

// free gives the memory back; nothing of it may be used afterwards.
func (e *envelope) free() {
	e.msg, e.f, e.failed = nats.Msg{}, nil, route.Event{}
	envelopes.Put(e)
}

// crowd is from how many requests on a client lets the others go first: with fewer
// there is nobody to wait for, and none has to wait for a processor that is busy with
// something else.
const crowd = 16

// turns bounds how long a caller publishes for others; then a goroutine does.
const turns = 4

// outbox publishes the inferences of many flights together: a write to the connection for
// each of them is a third of what a busy client spends. Whoever finds nobody publishing
// does it for all that come meanwhile, and lets those that can run now run before.
// Actions do not travel this way: their cancellation must not overtake them.
type outbox struct {
	nc   *nats.Conn
	many atomic.Int32 // requests in flight

	mu   sync.Mutex
	busy bool
	list []*envelope
	room []*envelope // the list before, to be used again
	late sync.WaitGroup
}

// send publishes a message soon, and posts to its flight where that fails. The flight
// must settle before it lets go of the message's body.
func (o *outbox) send(e *envelope) {
	e.f.unsent.Store(true)
	o.mu.Lock()
	o.list = append(o.list, e)
	first := !o.busy
	o.busy = true
	o.mu.Unlock()
	if !first {
		return
	}
	if o.many.Load() >= crowd {
		runtime.Gosched()
	}
	for range turns {
		if !o.turn() {
			return
		}
	}
	o.late.Go(func() {
		for o.turn() {
		}
	})
}

// turn publishes what is there; false: nothing was.
func (o *outbox) turn() bool {
	o.mu.Lock()
	list := o.list
	if len(list) == 0 {
		o.busy = false
		o.mu.Unlock()
		return false
	}
	o.list, o.room = o.room[:0], nil
	o.mu.Unlock()
	for i, e := range list {
		o.publish(e)
		list[i] = nil
	}
	o.mu.Lock()
	o.room = list
	o.mu.Unlock()
	return true
}

func (o *outbox) publish(e *envelope) {
	// A client library may be set to buffer while there is no connection, and a command
	// that comes out of a buffer after its time would be an accident.
	err := nats.ErrDisconnected
	if !e.now || o.nc.IsConnected() {
		err = o.nc.PublishMsg(&e.msg)
	}
	f, id, ev, what := e.f, e.id, e.failed, e.what
	e.free()
	if err != nil {
		ev.Err = messages.AsError(bus.Explain(err, what), messages.CodeUnavailable)
		f.post(id, arrival{ev: ev})
	}
	f.unsent.Store(false) // from here on the body is its caller's again
}

// sendNow publishes a message at once.
func (o *outbox) sendNow(e *envelope) {
	e.f.unsent.Store(true)
	o.publish(e)
}

// settle waits until nothing of a flight is in the outbox: moments, because somebody is
// publishing.
func (f *flight) settle() {
	for f.unsent.Load() {
		runtime.Gosched()
	}
}
