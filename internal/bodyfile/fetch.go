package bodyfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/fleetbus/fleetbus/messages/bus"
)

// askTime bounds one question, 2 MiB at most: a link of 2 Mbit/s takes 8 s for it. A lost
// connection ends it at once, and whatever arrived counts.
const askTime = 10 * time.Second

// ErrGone says that a store has no more of a body, though it is not whole: it is gone, or a
// server that is behind the others has answered.
var ErrGone = errors.New("the store has no more of it")

// Fetch fills a part out of a store. Before each question it calls step, which tells
// others how far it is, and whose error ends it. It saves nothing at its end.
func Fetch(ctx context.Context, b *bus.Bus, store bus.Objects, p *Part, step func() error) error {
	var pace Pace
	for p.Have < p.Body.Size {
		if err := step(); err != nil {
			return err
		}
		rtt, err := roundTrip(ctx, b)
		if err != nil {
			return err
		}
		pace = pace.Next(rtt)
		if err := pause(ctx, pace.Pause); err != nil {
			return err
		}
		before := p.Have
		err = b.Ask(ctx, askTime, func(ctx context.Context) error {
			return b.Chunks(ctx, store, p.Body.Object, p.Next, pace.Chunks, p.Add)
		})
		if err != nil {
			return err
		}
		if p.Have == before {
			return ErrGone
		}
	}
	return nil
}

// roundTrip is how long the server takes to answer now.
func roundTrip(ctx context.Context, b *bus.Bus) (time.Duration, error) {
	begun := time.Now()
	err := b.Ask(ctx, askTime, b.Conn.FlushWithContext)
	return time.Since(begun), err
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// Copy writes a body to w, verified: an error says that what w got is not the body.
func Copy(ctx context.Context, b *bus.Bus, store bus.Objects, body Body, w io.Writer) error {
	sum, next, have := sha256.New(), body.First, int64(0)
	for have < body.Size {
		before := have
		err := b.Ask(ctx, askTime, func(ctx context.Context) error {
			return b.Chunks(ctx, store, body.Object, next, MostChunks, func(seq uint64, data []byte) error {
				next, have = seq+1, have+int64(len(data))
				sum.Write(data)
				_, err := w.Write(data)
				return err
			})
		})
		if err != nil {
			return err
		}
		if have == before {
			return ErrGone
		}
	}
	if hex.EncodeToString(sum.Sum(nil)) != body.Digest {
		return ErrDamaged
	}
	return nil
}
