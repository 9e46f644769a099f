package route

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// How the state of a queue is read, by a client that has reason to: a request waited for
// longer than SuspectAfter without being taken.
//
//   - BacklogEvery: at most ten times a second, and only while requests come.
//   - backlogFresh: a reading that is older says nothing; several have failed then.
//   - serviceFresh: likewise the service time, which only answers tell.
//   - quickWeight: how soon it is forgotten that a replica is quick, when slower ones answer.
//     In a full queue those that waited longest are answered by the quickest replicas, so
//     only what not even they could answer is refused.
const (
	BacklogEvery = 100 * time.Millisecond
	backlogFresh = 500 * time.Millisecond
	serviceFresh = 10 * time.Second
	quickWeight  = 0.02
	stuckAfter   = 2 * BacklogEvery // and stuckTimes the service time
	stuckTimes   = 3
)

// Backlog is what a client knows of the queue of a task in a site: the state of its
// consumer as it was read, and what the client itself has sent since. The zero value is
// a queue that nobody had to wait in. It judges only by the queue: a service time that
// is too long for a deadline refuses nothing, because without answers it would stay so.
type Backlog struct {
	waited  bool      // somebody had to wait, and no reading has said since that slots are free
	asked   time.Time // when the state was last asked for
	read    time.Time // when it came
	silent  time.Time // since when it is asked for in vain
	pending int       // requests that nobody had taken then
	taken   int       // requests that somebody had then, as far as the queue knows
	count   uint64    // deliveries until then
	moved   time.Time // when that had grown
	free    int       // slots that waited for a request then
	sent    int       // own requests since the state was asked for that was read last
	since   int       // own requests since the state was last asked for
	service float64   // ns, smoothed
	quick   float64   // ns: what the quickest replica takes, forgotten slowly
	served  time.Time
}

// Waited notes that a request waits in the queue.
func (b *Backlog) Waited() { b.waited = true }

// Ask reports whether the state should be asked for now, and notes that it is. The first
// time it is asked for without a reason: to know whether there is an answer when all is
// well.
func (b *Backlog) Ask(now time.Time) bool {
	if !b.waited && !b.asked.IsZero() || now.Sub(b.asked) < BacklogEvery {
		return false
	}
	b.asked, b.since = now, 0
	if b.silent.IsZero() {
		b.silent = now
	}
	return true
}

// Stuck reports whether the queue, in which a request waits, seems to deliver nothing:
// its consumer, which used to answer, does not; or nobody asks for a request and nobody
// has one; or nothing was delivered for longer than one should take: the queue also
// counts as taken what it sent to somebody who was not there, and what was answered while
// the acknowledgement died with a server. Where it is wrong, because all slots are taken
// for long, an agent answers busy, and that is all.
func (b *Backlog) Stuck(now time.Time) bool {
	if b.read.IsZero() {
		return false // it may be that we may not ask
	}
	if !b.silent.IsZero() && now.Sub(b.silent) >= BacklogEvery {
		return true
	}
	if now.Sub(b.read) > backlogFresh {
		return false
	}
	return b.taken == 0 && b.free == 0 || now.Sub(b.moved) >= max(stuckAfter, stuckTimes*time.Duration(b.service))
}

// Read takes in the state: requests that nobody has taken, those that somebody has, pulls
// that wait, and how many deliveries there were.
func (b *Backlog) Read(now time.Time, pending, taken, free int, count uint64) {
	if b.moved.IsZero() || count != b.count {
		b.count, b.moved = count, now
	}
	b.read, b.silent = now, time.Time{}
	b.pending, b.taken, b.free, b.sent = pending, taken, free, b.since
	if pending == 0 && free > 0 {
		b.waited = false
	}
}

// Sent notes that the client puts a request into the queue.
func (b *Backlog) Sent() {
	b.sent++
	b.since++
}

// Served notes how long the handler of a request took.
func (b *Backlog) Served(now time.Time, took time.Duration) {
	if b.served.IsZero() || now.Sub(b.served) > serviceFresh {
		b.service, b.quick = float64(took), float64(took)
	}
	b.service += latencyWeight * (float64(took) - b.service)
	b.quick = min(float64(took), b.quick+quickWeight*(float64(took)-b.quick))
	b.served = now
}

// Refuse returns nil where a request that has left of its time may be answered in time
// by so many slots, or nobody knows; else a busy error that says when to try again.
func (b *Backlog) Refuse(now time.Time, left time.Duration, slots int) *messages.Error {
	if !b.waited || b.read.IsZero() || now.Sub(b.read) > backlogFresh || b.served.IsZero() || now.Sub(b.served) > serviceFresh || slots < 1 {
		return nil
	}
	before := b.pending + b.sent - b.free
	if before <= 0 {
		return nil
	}
	service := time.Duration(b.quick)
	wait := time.Duration(float64(before)/float64(slots)*b.service) - now.Sub(b.read)
	if wait <= 0 || wait+service <= left {
		return nil
	}
	err := messages.Errorf(messages.CodeBusy, "%d requests wait before it for %d slots, and one takes %v: it would be answered in about %v and has %v; ask again later, ask less often, or add replicas",
		before, slots, round(service), round(wait+service), round(left))
	err.RetryAfter = max(time.Millisecond, (wait + service - left).Round(time.Millisecond))
	return err
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
