package data

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Times of a holder. They depend on one another:
//
//   - DefaultEvery is how often it looks at all records and files although nobody told it
//     to: what a lost word costs. A look is a handful of questions and no byte of a file.
//   - again is when it looks once more after it was told to: a server of three that is
//     behind the others may have answered. Raft is behind for milliseconds.
//   - DefaultDeep is how often it reads what looks untouched: a disk may rot.
//   - askTime bounds one question, 2 MiB at most: a link of 2 Mbit/s takes 8 s for it. A
//     lost connection ends it at once, and whatever arrived counts.
//   - sayEvery is how often it says how far a download is.
//   - retryFirst to retryMost is the wait after a failure.
const (
	DefaultEvery = time.Minute
	DefaultDeep  = time.Hour

	again      = time.Second
	askTime    = 10 * time.Second
	sayEvery   = 2 * time.Second
	retryFirst = 200 * time.Millisecond
	retryMost  = time.Minute
)

// HolderConfig is what a holder needs to know. Fleet, Environment and Dir are needed.
type HolderConfig struct {
	Fleet       string
	Environment messages.Environment

	// Dir is the holder's own: a body stands there under its name, and whatever else has the
	// name of one is replaced.
	Dir string

	Every    time.Duration // how often it looks unasked; 0: DefaultEvery
	Deep     time.Duration // how often it reads what looks untouched; 0: DefaultDeep
	Replicas int           // of buckets that it has to make; 0: see bus.New
	Logger   *slog.Logger  // nil: slog.Default()

	// OnChange, if set, is called after a body was put in its place, and with Removed after
	// it was deleted. It holds the holder up while it runs.
	OnChange func(r Record, path string)
}

func (c HolderConfig) normal() (HolderConfig, error) {
	if err := messages.CheckName("fleet", c.Fleet); err != nil {
		return c, err
	}
	c.Environment = c.Environment.Normal()
	if err := c.Environment.Check(""); err != nil {
		return c, err
	}
	if c.Dir == "" {
		return c, messages.Errorf(messages.CodeBadRequest, "data directory of agent %q: none given; name one that is its own", c.Environment.ID)
	}
	if c.Every < 0 || c.Deep < 0 {
		return c, messages.Errorf(messages.CodeBadRequest, "every, deep: found %v and %v, allowed is more than 0; 0 is the default", c.Every, c.Deep)
	}
	c.Every, c.Deep = cmp.Or(c.Every, DefaultEvery), cmp.Or(c.Deep, DefaultDeep)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Holder keeps the bodies of one environment as their records say.
type Holder struct {
	nc  *nats.Conn
	cfg HolderConfig
	err error
	ran atomic.Bool

	b    *bus.Bus
	disk *disk
	wake chan struct{} // something may have changed
	read map[string]time.Time
	acks acks

	opened func(*disk) // tests look at the disk, and change it
}

// NewHolder makes a holder. It starts nothing; what is wrong with cfg is returned by Run.
// The connection stays the caller's: one that carries nothing else, made with
// [bus.Connect].
func NewHolder(nc *nats.Conn, cfg HolderConfig) *Holder {
	cfg, err := cfg.normal()
	return &Holder{nc: nc, cfg: cfg, err: err, wake: make(chan struct{}, 1), read: make(map[string]time.Time)}
}

// Run holds what is to be held until ctx ends, and returns when all is gone: nil, or what
// is wrong with the configuration, or unavailable where the connection was closed. Whatever
// else fails is said in the acknowledgements, logged, and tried again. A second holder on the same
// directory waits until the first has ended. Run may be called once.
func (h *Holder) Run(ctx context.Context) error {
	if h.err != nil {
		return h.err
	}
	if h.ran.Swap(true) {
		return messages.Errorf(messages.CodeConflict, "the holder of agent %q was run before; make a new one", h.cfg.Environment.ID)
	}
	var err error
	if h.b, err = bus.New(h.nc, h.cfg.Fleet, h.cfg.Replicas); err != nil {
		return err
	}
	h.disk, err = openDisk(ctx, h.cfg.Dir, func() {
		h.cfg.Logger.Warn("another process has the data directory; waiting until it ends", "directory", h.cfg.Dir)
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while it waited
		}
		return err
	}
	defer h.disk.Close()
	if h.opened != nil {
		h.opened(h.disk)
	}
	h.acks.h = h
	status := h.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer h.nc.RemoveStatusListener(status)
	if h.nc.IsClosed() {
		return h.closed()
	}
	words := make(chan *nats.Msg, 64) // what does not fit says the same as what does
	sub, err := h.nc.ChanSubscribe(h.b.Subject(messages.KindData, messages.FleetSite).String(), words)
	if err != nil {
		return bus.Explain(err, "subscribe to what changes")
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where the connection is closed

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	wg.Go(func() { h.listen(ctx, stop, words, status) })
	h.rounds(ctx)
	stop(nil)
	wg.Wait()
	if fault := context.Cause(ctx); messages.CodeOf(fault) == messages.CodeUnavailable {
		return fault
	}
	return nil
}

func (h *Holder) closed() error {
	return messages.Errorf(messages.CodeUnavailable, "the connection of the data of agent %q is closed and will not come back; connect with nats.MaxReconnects(-1)", h.cfg.Environment.ID)
}

// listen turns words and reconnections into reasons to look.
func (h *Holder) listen(ctx context.Context, stop context.CancelCauseFunc, words <-chan *nats.Msg, status <-chan nats.Status) {
	var late <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-words:
			late = time.After(again)
		case <-late:
			late = nil
		case s, ok := <-status:
			if !ok || s == nats.CLOSED {
				stop(h.closed())
				return
			}
			h.b.Forget()
			h.acks.forget()
		}
		h.nudge()
	}
}

func (h *Holder) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// rounds looks at everything, again and again, until ctx ends.
func (h *Holder) rounds(ctx context.Context) {
	wait := retryFirst
	said := ""
	for ctx.Err() == nil {
		err := h.round(ctx)
		due := h.cfg.Every - rand.N(h.cfg.Every/10+1) // a fleet that was started at once does not look at once for ever
		switch {
		case err == nil:
			wait, said = retryFirst, ""
		case messages.CodeOf(err) == messages.CodeSuperseded: // a download gave way to news
			continue
		default:
			if text := err.Error(); text != said && ctx.Err() == nil {
				said = text
				h.cfg.Logger.Warn("data are not as they should be; trying on", "agent", h.cfg.Environment.ID, "error", err)
			}
			due, wait = wait, min(2*wait, retryMost)
		}
		t := time.NewTimer(due)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-h.wake:
		}
		t.Stop()
	}
}

// round looks once at every record and does what is to be done, the small first. It
// returns the first fault; what it is of does not hold up the rest.
func (h *Holder) round(ctx context.Context) error {
	var records []Record
	err := h.b.Ask(ctx, askTime, func(ctx context.Context) (err error) {
		records, err = list(ctx, h.b)
		return err
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.Size, b.Size) })
	wanted := make(map[string]bool)
	var first error
	for _, r := range records {
		wanted[r.Name] = !r.Removed && r.For.Has(h.cfg.Environment)
		err := h.settle(ctx, r)
		if ctx.Err() != nil || messages.CodeOf(err) == messages.CodeSuperseded {
			return err
		}
		if first == nil {
			first = err
		}
	}
	h.disk.Tidy(func(name string) bool { return wanted[name] })
	return first
}

// settle does about one record what is to be done.
func (h *Holder) settle(ctx context.Context, r Record) error {
	deep := time.Since(h.read[r.Name]) >= h.cfg.Deep && !h.read[r.Name].IsZero()
	var held *drift.Held
	if known, ok := h.disk.held[r.Name]; ok {
		held = &known
	}
	step := drift.Decide(r, h.cfg.Environment, held, h.disk.look(r.Name), deep)
	if step == drift.Verify {
		ok, err := h.disk.verify(ctx, r)
		h.read[r.Name] = time.Now()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !os.IsNotExist(err):
			return h.acks.failed(ctx, r, held, h.disk.explain(r, err))
		case ok:
			step = drift.Hold
		default:
			h.cfg.Logger.Warn("a file is not what it should be; getting it again", "data", r.Name, "revision", r.Rev)
			step = drift.Fetch
		}
	}
	switch step {
	case drift.Fetch:
		if err := h.fetch(ctx, r, held); err != nil {
			return err
		}
	case drift.Remove:
		if err := h.disk.remove(r.Name); err != nil {
			return h.disk.explain(r, err)
		}
		h.cfg.Logger.Info("data removed", "data", r.Name)
		h.changed(r)
		return h.acks.gone(ctx, r.Name)
	case drift.Leave:
		if held == nil {
			return h.acks.gone(ctx, r.Name)
		}
		return nil
	}
	if h.read[r.Name].IsZero() {
		h.read[r.Name] = time.Now()
	}
	if now, ok := h.disk.held[r.Name]; !ok || now.Digest != r.Digest {
		h.nudge() // somebody wrote to the file as it came: look again
		return nil
	}
	return h.acks.synced(ctx, r)
}

func (h *Holder) changed(r Record) {
	if h.cfg.OnChange != nil {
		h.cfg.OnChange(r, filepath.Join(h.cfg.Dir, r.Name))
	}
}
