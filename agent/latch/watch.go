package latch

import (
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Times of the watch over the link. They depend on one another:
//
//   - A ping is sent every PingEvery, also while earlier ones are without an answer.
//   - The link is lost when the last answered ping was sent Silence ago: two in a row
//     have no answer then. A cut is so noticed after 250 to 500 ms, and a TickEvery
//     later at most: 0.6 s with room for the ending of what runs.
//   - So a link whose round trip is over PingEvery counts as lost now and then, and one
//     of over Silence always: a stop would take as long to arrive.
//   - When the agent has not run for more than PingEvery it cannot tell a lost link from
//     answers that it had no time to read; it gives them PingEvery more, once.
const (
	PingEvery = 250 * time.Millisecond
	Misses    = 2
	Silence   = Misses * PingEvery
	TickEvery = 20 * time.Millisecond
)

// LeastReEngage is the shortest time after which a robot may act again by itself: eight
// times that after which a link is lost, so that one which comes and goes does not
// engage it.
const LeastReEngage = 8 * Silence

// watch is what is known of the link.
type watch struct {
	reEngage time.Duration

	heard    bool      // a ping was ever answered
	lost     bool      // too many were not
	answered time.Time // when the last answered ping was sent
	ticked   time.Time
	grace    time.Time // the link is not lost before
	graced   bool      // that was given since the last answer
	well     time.Time // since when no link was lost
}

// Pong takes in that a ping was answered, which was sent at sent.
func (m *Machine) Pong(now, sent time.Time) Effects {
	w := &m.link
	if w.heard && !sent.After(w.answered) {
		return Effects{} // answers may overtake one another on their way here
	}
	w.answered, w.graced = sent, false
	switch {
	case !w.heard:
		w.heard, w.well = true, now
	case w.lost && now.Sub(sent) < Silence:
		// An older answer says that the link was well some time ago.
		w.lost, w.well = false, now
		return m.Unknown()
	}
	return Effects{}
}

// Tick looks at the clock. armed says that a task is placed here that does not go on
// without a link.
func (m *Machine) Tick(now time.Time, armed bool) Effects {
	w := &m.link
	slept := now.Sub(w.ticked) > PingEvery // also the first time: nobody has looked yet
	w.ticked = now
	if !w.heard {
		return Effects{}
	}
	if slept && !w.graced {
		w.grace, w.graced = now.Add(PingEvery), true
	}
	switch {
	case !w.lost && now.Sub(w.answered) >= Silence && !now.Before(w.grace):
		w.lost = true
		return m.lose(armed)
	case w.lost && armed && !m.held.Link.On:
		// A task that came while the link was lost is bound by it as well.
		return m.lose(armed)
	case m.held.Link.On && !w.lost && w.reEngage > 0 && now.Sub(w.well) >= w.reEngage:
		m.held.Link = messages.Hold{}
		return Effects{Save: true}
	}
	return Effects{}
}

// lose takes in that the link is lost.
func (m *Machine) lose(armed bool) Effects {
	m.known = false
	if !armed || m.held.Link.On {
		return Effects{}
	}
	m.held.Link = messages.Hold{On: true, Fence: m.newest(), Reason: fmt.Sprintf("its pings to the server had no answer for %v", Silence)}
	return Effects{Cancel: Bound, Hooks: true, Save: true}
}

// Lost reports whether the link is lost now.
func (m *Machine) Lost() bool { return m.link.lost }
