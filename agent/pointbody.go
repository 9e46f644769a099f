package agent

import (
	"context"
	"io"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go/jetstream"
)

// Times of the reading of a checkpoint. There is none for the whole of it, which may be
// gigabytes over a slow link.
//
//   - restoreStall is how long nothing may come before the reading fails: longer than the
//     election of a leader (4 to 9 s), after which the client library reads on.
//   - restorePoll is how soon a reader that waits notices that its context has ended.
const (
	restoreStall = 30 * time.Second
	restorePoll  = time.Second
)

// pointBody is a checkpoint that is being read; one goroutine at a time may do so.
type pointBody struct {
	io.ReadCloser
	name   string
	cancel context.CancelFunc
}

// openPoint opens a checkpoint; to open it, not to read it, it has apiTime.
func openPoint(ctx context.Context, store jetstream.ObjectStore, name string) (*pointBody, error) {
	ctx, cancel := context.WithCancel(ctx)
	limit := time.AfterFunc(apiTime, cancel)
	got, err := store.Get(pollContext{ctx}, name)
	if !limit.Stop() && err == nil {
		_ = got.Close() // it came too late, and cannot be read any more
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &pointBody{got, name, cancel}, nil
}

// Read reads what has come, and waits for restoreStall at most.
func (b *pointBody) Read(p []byte) (int, error) {
	for begun := time.Now(); ; {
		n, err := b.ReadCloser.Read(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		if time.Since(begun) >= restoreStall {
			return 0, messages.Errorf(messages.CodeUnavailable, "checkpoint %s cannot be read on: nothing has come for %v; the link or the server stands still", b.name, restoreStall)
		}
	}
}

// Close ends the reading.
func (b *pointBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

// pollContext makes each Read of an object return after restorePoll, with nothing where
// nothing has come. The client library takes a context's deadline for that of the next
// Read, and without one, five seconds for that of all.
type pollContext struct{ context.Context }

// Deadline is always restorePoll away.
func (pollContext) Deadline() (time.Time, bool) { return time.Now().Add(restorePoll), true }
