package health

import (
	"errors"
	"fmt"
	"time"
)

// When a server is asked again: Every while it is well, Doubt once something was wrong.
// Two answers in a row decide, so that a server that reloads its listener, or was asked in
// the middle of a change, is not taken down for it.
const (
	Every  = time.Second
	Doubt  = 100 * time.Millisecond
	doubts = 2
)

// Silence is the error of a question without an answer. A server that computes may be
// silent for long, so it proves nothing by itself.
type Silence struct{ Err error }

func (s Silence) Error() string { return s.Err.Error() }
func (s Silence) Unwrap() error { return s.Err }

// Judge judges a server by its answers. The zero value knows nothing yet.
type Judge struct {
	doubts int // answers in a row that were none of a server that is ready
}

// Take takes in what a question brought at now: nil, a [Silence], or what the server said
// instead. answered is when it last answered anything, hang how long it may be silent. It
// returns when to ask next, or why the server counts as dead.
func (j *Judge) Take(now, answered time.Time, hang time.Duration, err error) (next time.Duration, dead error) {
	var silent Silence
	switch {
	case err == nil:
		j.doubts = 0
		return Every, nil
	case errors.As(err, &silent):
		if quiet := now.Sub(answered); quiet >= hang {
			return 0, fmt.Errorf("it hangs: no answer to anything for %v", quiet.Round(time.Millisecond))
		}
		return Every, nil
	}
	if j.doubts++; j.doubts >= doubts {
		return 0, err
	}
	return Doubt, nil
}
