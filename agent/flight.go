package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// execution is one request that an agent has begun.
type execution struct {
	req      messages.Request
	replica  *replica
	body     []byte
	ack      string // reply subject of the delivery; "" for a direct request
	begun    time.Time
	word     word
	ctx      context.Context // its span
	span     span
	gaveUp   atomic.Bool            // the caller cancelled it
	stopped  atomic.Pointer[string] // the robot was stopped; why
	returned atomic.Bool            // the handler has
	fate     atomic.Int32           // of one out of the queue, see handover.go
	job      *jobRun                // nil but for a job
	renewed  time.Time              // when the lease of a job was last to be extended; the keeper's
	tried    time.Time              // when its record was last looked at; the keeper's
	progress atomic.Pointer[messages.Progress]
	parts    parts
}

// begin makes the execution of a request whose time left is left.
func (r *replica) begin(req messages.Request, body []byte, ack string, left time.Duration) *execution {
	e := &execution{req: req, replica: r, body: body, ack: ack, begun: time.Now()}
	var until time.Time
	if left != messages.NoDeadline {
		until = e.begun.Add(left)
	}
	e.ctx = &e.span
	e.span.open(r.a.work, &r.a.alarms, until)
	return e
}

// cancel ends the context of an execution; it must be called at its end.
func (e *execution) cancel() { e.span.cancel() }

// cutOff reports whether a handler that returned a fault was ended by its context: it would
// have taken longer.
func (e *execution) cutOff(fault *messages.Error) bool { return fault != nil && e.ctx.Err() != nil }

// flight is the table of what runs now, by request id. The zero value is ready to use;
// the methods may be called from many goroutines.
type flight struct {
	mu  sync.Mutex
	ids map[string]*execution
}

// add enters e, unless a request of that id runs already.
func (f *flight) add(e *execution) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ids == nil {
		f.ids = make(map[string]*execution)
	}
	if f.ids[e.req.ID] != nil {
		return false
	}
	f.ids[e.req.ID] = e
	return true
}

func (f *flight) remove(e *execution) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ids, e.req.ID)
}

// holds returns those of ids that run.
func (f *flight) holds(ids []string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var held []string
	for _, id := range ids {
		if f.ids[id] != nil {
			held = append(held, id)
		}
	}
	return held
}

// cancel ends the contexts of those of ids that run, and returns them.
func (f *flight) cancel(ids []string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var held []string
	for _, id := range ids {
		if e := f.ids[id]; e != nil {
			e.gaveUp.Store(true)
			e.cancel()
			held = append(held, id)
		}
	}
	return held
}

// stop ends the contexts of the actions whose tasks match, says why, and returns how many
// those were.
func (f *flight) stop(why string, match func(messages.Task) bool) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.ids {
		if e.req.Class != messages.Action || !match(e.replica.task) {
			continue
		}
		if e.stopped.CompareAndSwap(nil, &why) {
			n++
		}
		e.cancel()
	}
	return n
}

// list appends all executions to dst.
func (f *flight) list(dst []*execution) []*execution {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.ids {
		dst = append(dst, e)
	}
	return dst
}

// names tells what runs, for people, and whether all of it is in the hands of handlers.
func (f *flight) names() (names []string, handlers bool) {
	list := f.list(nil)
	slices.SortFunc(list, func(a, b *execution) int { return cmp.Compare(a.req.ID, b.req.ID) })
	handlers = true
	for _, e := range list {
		switch {
		case e.returned.Load() && e.fate.Load() == fateHanded: // it is somebody else's
		case e.returned.Load():
			handlers = false
			names = append(names, fmt.Sprintf("request %s of task %q, whose end could not be stored or sent", e.req.ID, e.req.Task))
		default:
			names = append(names, fmt.Sprintf("handler %q with request %s of task %q", e.replica.task.HandlerName(), e.req.ID, e.req.Task))
		}
	}
	return names, handlers
}

// keep tells the server that what was pulled still runs, well before it would give it to
// somebody else, and sends the newest progress. One
// goroutine does so for all: a timer per request would cost every short one too.
func (a *Agent) keep(ctx context.Context) {
	tick := time.NewTicker(bus.InferenceProgress)
	defer tick.Stop()
	var list []*execution
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			list = a.flight.list(list[:0])
			for _, e := range list {
				if e.job != nil {
					a.keepJob(e, now)
				} else if e.ack != "" && e.fate.Load() != fateHanded {
					_ = a.nc.Publish(e.ack, bus.Progress) // without a connection the server redelivers, and that is right
				}
				a.sendProgress(e)
			}
			clear(list) // executions hold bodies
		}
	}
}
