package natstest

import (
	"testing"
	"time"
)

// pollInterval is how often Eventually looks.
const pollInterval = 2 * time.Millisecond

// Eventually waits until ok returns true, and ends the test when it has not within
// that time; what says what was waited for. It works in virtual time too.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for end := time.Now().Add(within); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("natstest: waited %v in vain for %s", within, what)
		}
	}
}
