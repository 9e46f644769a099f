package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// known says up to what revision each watcher has told the Machine of its bucket. A
// follower may have missed something (its watcher's server stopped, and nobody said so);
// while it follows that costs nothing, but a leader that does not know a task stops it. So
// whoever takes the lease first makes sure that it knows what was written last.
type known struct {
	mu      sync.Mutex
	upTo    map[bus.Bucket]messages.Fence
	changed chan struct{}                // closed and replaced with every change
	again   map[bus.Bucket]chan struct{} // has a value when the watcher is to begin anew
}

// mustKnow are the buckets that a leader acts on.
var mustKnow = []bus.Bucket{bus.Desired, bus.Agents}

func (k *known) init() {
	k.upTo, k.changed, k.again = make(map[bus.Bucket]messages.Fence), make(chan struct{}), make(map[bus.Bucket]chan struct{})
	for _, b := range append([]bus.Bucket{bus.LeaseKV}, mustKnow...) {
		k.again[b] = make(chan struct{}, 1)
	}
}

// note says that everything up to a revision was told.
func (k *known) note(b bus.Bucket, f messages.Fence) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.upTo[b].Before(f) {
		return
	}
	k.upTo[b] = f
	close(k.changed)
	k.changed = make(chan struct{})
}

// has reports whether everything up to a revision was told; changed is closed when that
// may be so later.
func (k *known) has(b bus.Bucket, f messages.Fence) (ok bool, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.upTo[b].Epoch == f.Epoch && k.upTo[b].Revision >= f.Revision, k.changed
}

// onItsWay is how long news may take from a server to us, before the watcher is begun
// anew. If they come later than that, nothing is lost but a listing.
const onItsWay = 50 * time.Millisecond

// catchUp waits until the Machine was told of everything that was written before, to
// the buckets that a leader acts on. It fails when ctx ends.
func (c *Coordinator) catchUp(ctx context.Context) error {
	for _, bucket := range mustKnow {
		kv, err := c.bus.KV(ctx, bucket)
		if err != nil {
			return err
		}
		last, err := kv.Last(ctx)
		if err != nil {
			return err
		}
		if err := c.awaitKnown(ctx, bucket, messages.Fence{Epoch: kv.Epoch, Revision: last}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Coordinator) awaitKnown(ctx context.Context, bucket bus.Bucket, f messages.Fence) error {
	wait := time.NewTimer(onItsWay)
	defer wait.Stop()
	for {
		ok, changed := c.known.has(bucket, f)
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return messages.Errorf(messages.CodeUnavailable, "bucket %s: what was written last has not been heard of: %v", bucket, ctx.Err())
		case <-changed:
		case <-wait.C:
			c.log.Warn("this coordinator has missed something; reading it again before it leads", "bucket", bucket)
			signal(c.known.again[bucket])
		}
	}
}
