package coordinator

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
)

// owner has the Machine. One goroutine owns it.
type owner struct {
	c     *Coordinator
	m     *placement.Machine
	timer *time.Timer
}

func newOwner(c *Coordinator) *owner {
	return &owner{c: c, m: placement.New(c.calm), timer: time.NewTimer(0)}
}

// own is the goroutine that owns the Machine.
func (c *Coordinator) own(ctx context.Context) {
	o := newOwner(c)
	defer o.timer.Stop()
	look := time.NewTicker(lookSilent)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case look := <-c.asks:
			look(o.m)
		case ev := <-c.events:
			o.take(ev)
		case <-o.timer.C:
			o.take(placement.Tick{})
		case now := <-look.C:
			c.askSilent(append(c.quiet.due(now), c.doubts.due(now)...))
		case <-c.beats.ready:
			o.hear()
		}
	}
}

// take folds an event, and before it the beats that have come: any Step may judge who is
// silent, and who beat before it is not.
func (o *owner) take(ev placement.Event) {
	o.hear()
	o.step(time.Now(), ev)
}

func (o *owner) step(now time.Time, ev placement.Event) {
	for _, e := range o.m.Step(now, ev) {
		if w, ok := e.(placement.WakeAt); ok {
			o.timer.Reset(w.At.Sub(now))
		} else {
			o.c.work.put(e)
		}
	}
}

// beatsPerLook is how many beats are folded with one look at the clock: a fraction of a
// millisecond's, unless one of them makes a plan due.
const beatsPerLook = 64

// hear folds the beats that have come.
func (o *owner) hear() {
	list := o.c.beats.take()
	now := time.Now()
	for i := range list {
		if i%beatsPerLook == 0 {
			now = time.Now()
		}
		o.step(now, placement.Heartbeat{Heartbeat: list[i]})
		o.c.quiet.heard(list[i].Agent, now)
	}
	o.c.beats.done(list)
}
