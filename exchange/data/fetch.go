package data

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/messages"
)

// newsEvery is how often a download looks up whether something else has come: it may be
// small and urgent, or a newer revision of what is being fetched.
const newsEvery = 500 * time.Millisecond

// fetch gets a body and puts it in its place. An error with code superseded says that it
// gave way to news and is to be gone on with.
func (h *Holder) fetch(ctx context.Context, r Record, held *drift.Held) error {
	p, err := h.disk.part(ctx, r)
	if err != nil {
		return h.acks.failed(ctx, r, held, h.disk.explain(r, err))
	}
	if p.have > 0 {
		h.cfg.Logger.Info("a download goes on", "data", r.Name, "revision", r.Rev, "bytes", p.have, "of", r.Size)
	}
	err = h.download(ctx, p, held)
	if err == nil {
		err = p.commit()
	} else if serr := p.save(); serr != nil && !isNews(err) {
		err = errors.Join(err, serr)
	}
	p.close()
	switch {
	case err == nil:
		h.read[r.Name] = time.Now()
		h.cfg.Logger.Info("data are here", "data", r.Name, "revision", r.Rev, "bytes", r.Size)
		h.changed(r)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case isNews(err):
		return err
	}
	return h.acks.failed(ctx, r, held, h.disk.explain(r, err))
}

func isNews(err error) bool { return messages.CodeOf(err) == messages.CodeSuperseded }

// download fills a part.
func (h *Holder) download(ctx context.Context, p *part, held *drift.Held) error {
	var pace drift.Pace
	var said time.Time
	looked := time.Now()
	for p.have < p.r.Size {
		if time.Since(said) >= sayEvery {
			if err := h.acks.fetching(ctx, p.r, held, p.have); err != nil {
				return err
			}
			said = time.Now()
		}
		if time.Since(looked) >= newsEvery {
			looked = time.Now()
			select {
			case <-h.wake:
				return messages.Errorf(messages.CodeSuperseded, "something has changed")
			default:
			}
		}
		rtt, err := h.roundTrip(ctx)
		if err != nil {
			return err
		}
		pace = pace.Next(rtt)
		if err := pause(ctx, pace.Pause); err != nil {
			return err
		}
		before := p.have
		err = h.b.Ask(ctx, askTime, func(ctx context.Context) error {
			return h.b.Chunks(ctx, p.r.Object, p.next, pace.Chunks, p.add)
		})
		if err != nil {
			return err
		}
		if p.have == before {
			return h.ended(ctx, p)
		}
	}
	return nil
}

// ended says why no chunk came any more: the object is gone because a newer revision has
// taken its place, or a server is behind.
func (h *Holder) ended(ctx context.Context, p *part) error {
	var now Record
	err := h.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		now, err = NewStore(h.b).record(ctx, p.r.Name)
		return err
	})
	switch {
	case messages.CodeOf(err) == messages.CodeUnauthorized || err == nil && now.Object == p.r.Object:
		return messages.Errorf(messages.CodeNotFound, "data %q: the store has nothing after %d of %d bytes; if that stays so, put it again", p.r.Name, p.have, p.r.Size)
	case err != nil:
		return err
	}
	return messages.Errorf(messages.CodeSuperseded, "data %q has revision %d now", p.r.Name, now.Rev)
}

// roundTrip is how long the server takes to answer now.
func (h *Holder) roundTrip(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	err := h.b.Ask(ctx, askTime, h.nc.FlushWithContext)
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
