package agent

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// What a replica does with a request that it has begun, when it finds that its machine has
// become slow: it gives it back to the queue, for another replica to answer it in time. Nobody
// knows that a machine has become slow before the first request shows it; without this that
// one is lost, and the time that is spent on it too.
//
//   - Only a task that says that it is idempotent is handed over: whoever takes it begins
//     anew, and a handler that does not heed its context goes on. What such a one returns in
//     time is an answer like any other. Nor is one that has a single replica in its queue:
//     nobody else would take it, and late is sooner than never.
//   - It is in doubt when it has taken overrun of what is expected, and is handed over then
//     if it would miss its deadline on a machine as slow as this one was the last time, and
//     somebody else has handoverLeast left to answer it.
//   - For handoverGrace the agent answers probes as if it held it still: until then whoever
//     takes it has said so, and its caller need not look for another. That is more than a
//     caller's interval between two probes (20 ms), and less than it takes the server to
//     deliver anew what was lost.
const (
	handoverLeast = 5 * time.Millisecond
	handoverGrace = 25 * time.Millisecond
)

// What became of an execution out of the queue.
const (
	fateOpen     = iota
	fateReturned // its handler was quicker
	fateHanded   // it is in the queue again
)

// watch arranges that e is handed over when that is due. The timer is to be stopped when the
// handler has returned; nil: it stays here, come what may.
func (r *replica) watch(e *execution, left time.Duration) *time.Timer {
	if !r.task.Idempotent || alone(r.task) || e.req.Stream || r.batch.together() || asksMetadata(e.req) || left == messages.NoDeadline {
		return nil
	}
	r.mu.Lock()
	after, all := r.load.overrun(), r.load.ifSlow()
	r.mu.Unlock()
	if after == 0 || all <= left || left-after < handoverLeast {
		return nil
	}
	return time.AfterFunc(after, e.handOver)
}

// alone reports whether a task has one replica at most in each queue: there is one queue a site.
func alone(t messages.Task) bool {
	return t.Per == messages.PerSite || t.Per == messages.PerFleet && t.Replicas < 2
}

// handOver gives e back to the queue and ends its context, unless its handler has returned.
func (e *execution) handOver() {
	if !e.fate.CompareAndSwap(fateOpen, fateHanded) {
		return
	}
	r := e.replica
	r.mu.Lock()
	r.load.overran(e.begun, time.Now())
	r.mu.Unlock()
	e.word.said.Store(true) // whoever takes it says the next word
	r.nak([]string{e.ack})  // first: its caller waits
	e.cancel()
	r.a.cfg.Logger.Debug("handed over: the machine has become slow", "request", e.req.ID, "replica", r.id)
	r.a.faults.add("handover")
}

// endsHere notes that the handler has returned; false: e was handed over before.
func (e *execution) endsHere(t *time.Timer) bool {
	if t != nil {
		t.Stop()
	}
	return e.fate.CompareAndSwap(fateOpen, fateReturned)
}

// look reports whether this agent has begun a request, and has given it back to the queue since.
func (f *flight) look(id string) (runs, handed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.ids[id]
	return e != nil, e != nil && e.fate.Load() == fateHanded
}

// leave takes e out of the table at its end; one that was handed over, handoverGrace later.
func (f *flight) leave(e *execution) {
	if e.fate.Load() == fateHanded {
		time.AfterFunc(handoverGrace, func() { f.remove(e) })
		return
	}
	f.remove(e)
}
