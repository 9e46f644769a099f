package order

import "time"

// askEvery is how often a sender asks whether what it has stored still waits, unless it is
// told: a receipt may be lost with the sender's link. Until it knows, it goes on storing.
const askEvery = time.Second

// Way is which way the next message goes.
type Way int

// The ways.
const (
	Ask      Way = iota // first find out whether something waits
	Straight            // to the receiver; where it does not take it, Store
	Store               // behind what waits
)

// Lane is what a sender knows of its messages to one receiver. Messages go straight as
// long as none waits, and behind those that wait until the last of them is settled: so none
// overtakes another, also where the receiver comes or goes in between. The zero value knows
// nothing, as a sender that has begun anew: its former life may have left something.
type Lane struct {
	clear bool   // nothing waits
	known bool   // whether something waits was asked, or done by this sender itself
	last  string // the last message that was stored by this sender
	asked time.Time
}

// Way returns which way the next message goes.
func (l *Lane) Way(now time.Time) Way {
	switch {
	case l.clear:
		return Straight
	case !l.known || now.Sub(l.asked) >= askEvery:
		return Ask
	}
	return Store
}

// Found is the answer to Ask: whether messages of this sender wait for the receiver.
func (l *Lane) Found(waits bool, now time.Time) {
	l.known, l.asked, l.clear = true, now, !waits
}

// Storing says that a message is about to be stored: from now on the next ones must go
// behind it, also where it is not known whether it was.
func (l *Lane) Storing(id string, now time.Time) {
	if l.clear {
		l.asked = now
	}
	l.clear, l.known, l.last = false, true, id
}

// Settled says that the receiver has dealt with a message that was stored. Those before it
// it has dealt with before.
func (l *Lane) Settled(id string) {
	if id == l.last && l.known {
		l.clear = true
	}
}
