package data

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/internal/bodyfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
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
	if p.Have > 0 {
		h.cfg.Logger.Info("a download goes on", "data", r.Name, "revision", r.Rev, "bytes", p.Have, "of", r.Size)
	}
	err = h.download(ctx, r, p, held)
	if err == nil {
		err = h.disk.commit(r, p)
	} else if serr := p.Save(); serr != nil && !isNews(err) {
		err = errors.Join(err, serr)
	}
	p.Close()
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
func (h *Holder) download(ctx context.Context, r Record, p *bodyfile.Part, held *drift.Held) error {
	var said time.Time
	looked := time.Now()
	err := bodyfile.Fetch(ctx, h.b, bus.Bodies, p, func() error {
		if time.Since(said) >= sayEvery {
			if err := h.acks.fetching(ctx, r, held, p.Have); err != nil {
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
		return nil
	})
	if errors.Is(err, bodyfile.ErrGone) {
		return h.ended(ctx, r, p.Have)
	}
	return err
}

// ended says why no chunk came any more: the object is gone because a newer revision has
// taken its place, or a server is behind.
func (h *Holder) ended(ctx context.Context, r Record, have int64) error {
	var now Record
	err := h.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		now, err = NewStore(h.b).record(ctx, r.Name)
		return err
	})
	switch {
	case messages.CodeOf(err) == messages.CodeUnauthorized || err == nil && now.Object == r.Object:
		return messages.Errorf(messages.CodeNotFound, "data %q: the store has nothing after %d of %d bytes; if that stays so, put it again", r.Name, have, r.Size)
	case err != nil:
		return err
	}
	return messages.Errorf(messages.CodeSuperseded, "data %q has revision %d now", r.Name, now.Rev)
}
