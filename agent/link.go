package agent

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Times of the data connection's own pings. They depend on one another:
//
//   - pingEvery feeds the heartbeat's figures: over 3 s without an answer and the
//     coordinator calls the agent stale.
//   - pingOften is used where actions run. Messages and pongs come through one
//     connection in order, so a message that was read after a pong left the server
//     after the ping was sent: the last answered ping bounds how long a command lay in
//     a buffer on its way.
//   - linkFresh is the bound up to which a command counts as just sent. It forgives
//     three pings that a busy machine answers late. Beyond it the whole bound is taken
//     off the command's time: a robot that was frozen, or cut off for a while, must not
//     execute what waited in its socket.
//   - pingTimeout is under the 3 s above, so that one lost ping cannot make an agent
//     stale.
const (
	pingEvery   = time.Second
	pingOften   = 250 * time.Millisecond
	linkFresh   = 4 * pingOften
	pingTimeout = 2 * time.Second
)

// link is what the agent knows of its data connection. The methods may be called from
// many goroutines.
type link struct {
	start    time.Time    // set before the loops begin
	answered atomic.Int64 // when the last answered ping was sent; ns since start
	rtt      atomic.Int64 // ns
	least    atomic.Int64 // ns; the shortest of the last round trips, 0 before the first
	often    atomic.Bool
	changed  pulse
}

func (l *link) setOften(often bool) {
	if l.often.Swap(often) != often {
		l.changed.fire()
	}
}

func (l *link) every() time.Duration {
	if l.often.Load() {
		return pingOften
	}
	return pingEvery
}

// figures returns how long ago the last answered ping was sent, and how long its answer
// took.
func (l *link) figures(now time.Time) (age, rtt time.Duration) {
	return max(0, now.Sub(l.start)-time.Duration(l.answered.Load())), time.Duration(l.rtt.Load())
}

// trips are the last round trips. The shortest is what the way takes; what the others took
// longer is what waited for something, on it or at its ends.
type trips struct {
	took [16]time.Duration
	next int
}

// add takes one in and returns the shortest.
func (t *trips) add(took time.Duration) time.Duration {
	t.took[t.next%len(t.took)] = max(1, took)
	t.next++
	return slices.Min(t.took[:min(t.next, len(t.took))])
}

// pings measures the data connection, and hands the time at which every answered ping
// was sent to the loop that serves direct requests.
func (a *Agent) pings(ctx context.Context, pongs chan<- time.Time) {
	var last trips
	for ctx.Err() == nil {
		again, changed := a.reconnected.next(), a.link.changed.next()
		sent := time.Now()
		if a.ping(ctx) == nil {
			a.link.answered.Store(int64(sent.Sub(a.link.start)))
			took := time.Since(sent)
			a.link.rtt.Store(int64(took))
			a.link.least.Store(int64(last.add(took)))
			select {
			case pongs <- sent:
			case <-ctx.Done():
			}
		}
		t := time.NewTimer(max(0, a.link.every()-time.Since(sent)))
		select {
		case <-t.C:
		case <-again: // the connection is new: so is everything that comes through it
		case <-changed:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (a *Agent) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return a.nc.FlushWithContext(ctx)
}

// lateness returns how much must be taken off the time of a command that is read now,
// when the last ping whose pong came before it was sent at pinged.
func lateness(pinged, now time.Time) time.Duration {
	if d := now.Sub(pinged); d > linkFresh {
		return d
	}
	return 0
}
