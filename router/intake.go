package router

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Times of the service's own pings, the same as those of a robot (agent/link.go) and for
// the same reason: a command that lay in our socket while we hung, or our link did, must
// not be passed on with all the time that it once had.
//
//   - Messages and pongs come through one connection in order, so a request that is read
//     after a pong left the server after that ping was sent: the last answered ping bounds
//     how long it lay in a buffer.
//   - intakeFresh is the bound up to which a request counts as just sent. It forgives
//     three pings that a busy machine answers late. Beyond it the whole bound is taken off.
//   - intakeTimeout gives a ping up that a lost connection will never answer.
const (
	intakeEvery   = 250 * time.Millisecond
	intakeFresh   = 4 * intakeEvery
	intakeTimeout = 2 * time.Second
)

// intake knows how long a request may have waited for us.
type intake struct {
	nc    *nats.Conn
	start time.Time
	ping  atomic.Int64 // when the last answered ping was sent; ns since start
}

func newIntake(nc *nats.Conn) *intake { return &intake{nc: nc, start: time.Now()} }

// run measures until ctx ends.
func (i *intake) run(ctx context.Context) {
	status := i.nc.StatusChanged(nats.CONNECTED)
	defer i.nc.RemoveStatusListener(status)
	for ctx.Err() == nil {
		sent := time.Now()
		try, done := context.WithTimeout(ctx, intakeTimeout)
		err := i.nc.FlushWithContext(try)
		done()
		if err == nil {
			// What was read before the pong may still wait for its handler; it counts by the
			// ping before. Without a connection there is nothing to wait for.
			_ = i.nc.Barrier(func() { i.ping.Store(int64(sent.Sub(i.start))) })
		}
		t := time.NewTimer(max(0, intakeEvery-time.Since(sent)))
		select {
		case <-t.C:
		case <-status: // the connection is new: so is everything that comes through it
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// late is how much must be taken off the time of a command that is read now.
func (i *intake) late(now time.Time) time.Duration {
	if d := now.Sub(i.start) - time.Duration(i.ping.Load()); d > intakeFresh {
		return d
	}
	return 0
}
