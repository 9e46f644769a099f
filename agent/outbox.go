package agent

import (
	"context"
	"sync"
	"time"
)

// maxOutbox bounds the outcomes that wait for the journal: a robot at ten commands a
// second whose link is cut stops within one, and a handful of tasks may be on it.
const maxOutbox = 256

// retryOutbox is the pause between two tries to write what waits, while the connection
// seems to be there.
const retryOutbox = 2 * time.Second

// letter is an outcome for the journal. Its id makes the server drop a second copy: the
// first may have arrived and only its confirmation been lost.
type letter struct {
	subject, id string
	data        []byte
}

// outbox keeps the outcomes that the journal has not confirmed. The zero value is ready
// to use.
type outbox struct {
	mu   sync.Mutex
	list []letter
	more chan struct{}
}

func (o *outbox) wake() chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{}, 1)
	}
	return o.more
}

// put keeps a letter; the oldest goes where there is no room.
func (o *outbox) put(l letter) {
	wake := o.wake()
	o.mu.Lock()
	if len(o.list) >= maxOutbox {
		o.list = o.list[1:]
	}
	o.list = append(o.list, l)
	o.mu.Unlock()
	nudge(wake)
}

// first returns the oldest letter.
func (o *outbox) first() (letter, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		return letter{}, false
	}
	return o.list[0], true
}

// drop removes a letter if it is still the oldest.
func (o *outbox) drop(l letter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) > 0 && o.list[0].id == l.id {
		o.list = o.list[1:]
	}
}

// deliver writes what the journal has not confirmed, until ctx ends.
func (a *Agent) deliver(ctx context.Context) {
	wake := a.outbox.wake()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		for ctx.Err() == nil {
			l, ok := a.outbox.first()
			if !ok {
				break
			}
			again := a.reconnected.next()
			if a.nc.IsConnected() && a.record(l) == nil {
				a.outbox.drop(l)
				a.cfg.Logger.Info("journaled late", "outcome", l.id)
				continue
			}
			sleep(ctx, retryOutbox, again)
		}
	}
}
