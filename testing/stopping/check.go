package stopping

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What must hold. A robot whose link is cut has stopped within SelfStop. The bound for
// acknowledgements is far above what they take (each waits for one write to disk, which
// fifty processes do at once on one), so that a busy machine does not reach it.
const (
	SelfStop = 600 * time.Millisecond
	AllAcked = 2 * time.Second
)

// Check says what of a result is not as it must be. It judges medians: on a machine
// that does other things too, one process may have to wait for its turn.
func (r Result) Check() error {
	var faults []error
	bound := func(what string, list []time.Duration, most time.Duration) {
		if len(list) == 0 {
			faults = append(faults, fmt.Errorf("%s was not measured", what))
		} else if m := Median(list); m > most {
			faults = append(faults, fmt.Errorf("%s took %v, allowed are %v: %v", what, m, most, list))
		}
	}
	bound("the acknowledgement of all robots", r.All, AllAcked)
	bound("the end of an action after a stop", r.Ended, SelfStop)
	bound("the end of an action after a cut", r.SelfStop, SelfStop)
	if r.Requests == 0 {
		faults = append(faults, errors.New("there was no load"))
	}
	if r.Failed > 0 {
		faults = append(faults, fmt.Errorf("%d inferences failed; a stop is none of their business", r.Failed))
	}
	return errors.Join(faults...)
}

// Median is the median of a list that is not empty; of an even number of times the upper
// of the two in the middle.
func Median(list []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
