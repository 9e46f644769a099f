package sim

import (
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
)

// faults are planted, one for each invariant, to see that it is checked: the zero value
// plants none. They stand in the world around the Machine, or in times that nobody would
// choose; the Machine itself has no switch for them.
type faults struct {
	calm          placement.Calm // of every Machine; the zero value is the default
	boast         float64        // agents register this many times what they have
	sharedTerm    bool           // the lease is given to whoever asks
	anyTerm       bool           // agents apply documents of older terms
	overstays     bool           // a leader acts until it hears that it is none
	undead        bool           // a process that was superseded goes on
	servesOn      bool           // replicas take requests while they stop
	lateRoutes    time.Duration  // broadcasts are held back
	deafToLinks   bool           // coordinators do not hear of their own link
	oldTasks      bool           // coordinators are told of the first tasks for ever
	noise         float64        // what agents report of their load is wrong by this part
	perfectClocks bool           // no skew
}

// noise is what a bad instrument does to a measure.
func (w *world) noise() float64 {
	if w.faults.noise == 0 {
		return 1
	}
	return 1 + w.faults.noise*(2*w.rng.Float64()-1)
}
