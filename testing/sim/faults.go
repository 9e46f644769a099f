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
	anyTerm       bool           // agents apply whatever document comes
	undead        bool           // a process that was superseded goes on
	servesOn      bool           // replicas take requests while they stop
	lateRoutes    time.Duration  // broadcasts are held back
	deafToLinks   bool           // coordinators do not hear of their own link
	exaggerated   float64        // agents report this many times their load
	perfectClocks bool           // no skew
}

func (f *faults) exaggerate() float64 {
	if f.exaggerated == 0 {
		return 1
	}
	return f.exaggerated
}
