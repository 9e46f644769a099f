package natstest

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fleetbus/fleetbus/internal/embed"
)

// oneBubble keeps bubbles of one process apart.
var oneBubble sync.Mutex

// Bubble runs f in virtual time (testing/synctest), with everything that NATS needs
// for it: [Start] within f starts a server in process, and minutes of its timers pass
// in milliseconds. See the package's doc for the rules.
//
// It must not run beside other NATS tests of the same process: no t.Parallel, and best
// a test binary (a package directory) of its own for virtual-time tests.
func Bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	oneBubble.Lock()
	defer oneBubble.Unlock()
	release := embed.HoldAccessClock()
	defer release()
	inBubble.Store(true)
	defer inBubble.Store(false)
	emptyPools()
	defer emptyPools()
	synctest.Test(t, f)
}

// emptyPools empties every sync.Pool; it takes two collections, the first of which
// only moves a pool's content aside. nats.go and others keep timers in pools, and a
// timer that was made outside of a bubble and is used inside, or the other way round,
// ends the process.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}
