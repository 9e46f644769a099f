package bus

import (
	"context"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// clockMaxAge is how long one reading of the server's clock is good. Quartz drifts by
// under 100 ppm: 3 ms in that time, far below the shortest deadline (10 ms for an
// action, which does not pass through a stream).
const clockMaxAge = 30 * time.Second

// Clock maps the local monotonic clock to the server's, so that the age of a stored
// message can be told without comparing the clocks of two hosts. It errs to the old
// side by at most one round trip. The zero value knows nothing until Sync.
type Clock struct {
	mu     sync.Mutex
	local  time.Time // when the reading was asked for; monotonic
	server time.Time // what the server said; it was read later than local
}

// Sync reads the server's clock through the stream of a class in a site.
func (c *Clock) Sync(ctx context.Context, b *Bus, site string, class messages.Class) error {
	return c.sync(ctx, b, StreamName(b.Fleet, site, class))
}

func (c *Clock) sync(ctx context.Context, b *Bus, stream string) error {
	s, err := b.JS.Stream(ctx, stream)
	if err != nil {
		return Explain(err, "read the server's clock")
	}
	sent := time.Now()
	info, err := s.Info(ctx)
	if err != nil {
		return Explain(err, "read the server's clock")
	}
	c.set(sent, info.TimeStamp)
	return nil
}

func (c *Clock) set(sent, server time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.local, c.server = sent, server
}

// Due reports whether it is time to Sync again: well before the reading expires.
func (c *Clock) Due(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server.IsZero() || now.Sub(c.local) > clockMaxAge/2
}

// Age returns how long ago the server stored a message with this timestamp, never
// less than the truth. ok is false where it is not known, and then the message must
// count as expired.
//
// The server read its clock at some moment after local, so at now it shows at most
// server + (now − local).
func (c *Clock) Age(stored, now time.Time) (age time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := now.Sub(c.local)
	if c.server.IsZero() || stored.IsZero() || since > clockMaxAge {
		return 0, false
	}
	return max(0, c.server.Add(since).Sub(stored)), true
}
