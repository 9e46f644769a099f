package bus

import (
	"log/slog"
	"sync"
	"time"
)

// garbageEvery is how often one kind of malformed message may reach the log. A
// misbehaving neighbour sends thousands a second; a person needs one line to find it.
const garbageEvery = time.Minute

// maxGarbageKinds bounds what Garbage remembers. Kinds are names in our own code; the
// bound only guards against a caller that puts a stranger's text there.
const maxGarbageKinds = 256

// Garbage counts malformed messages by kind, and logs at most one a minute of each
// kind. Whoever meets a malformed message notes it here and drops it. The zero value
// is ready to use; the methods may be called from many goroutines.
type Garbage struct {
	mu    sync.Mutex
	kinds map[string]*garbageKind
}

type garbageKind struct {
	count  int
	silent int       // since the last line in the log
	logged time.Time // of that line; the monotonic clock
}

// Note counts a malformed message of a kind (a subject's kind such as "hb", or any
// other short name of ours) and logs it unless that kind was logged within the last
// minute. err says what was wrong with it. A nil logger means [slog.Default].
func (g *Garbage) Note(logger *slog.Logger, kind string, err error) {
	count, silent, log := g.note(kind, time.Now())
	if !log {
		return
	}
	if logger == nil {
		logger = slog.Default()
	}
	logger.Warn("malformed message dropped", "kind", kind, "error", err, "count", count, "not_logged", silent)
}

// note counts, and reports whether now is a time to log, with the number of messages
// that were not logged since the last line.
func (g *Garbage) note(kind string, now time.Time) (count, silent int, log bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.kinds[kind]
	if k == nil {
		if g.kinds == nil {
			g.kinds = make(map[string]*garbageKind)
		}
		if len(g.kinds) >= maxGarbageKinds {
			kind = "other"
		}
		if k = g.kinds[kind]; k == nil {
			k = &garbageKind{}
			g.kinds[kind] = k
		}
	}
	k.count++
	if !k.logged.IsZero() && now.Sub(k.logged) < garbageEvery {
		k.silent++
		return k.count, k.silent, false
	}
	silent, k.silent, k.logged = k.silent, 0, now
	return k.count, silent, true
}

// Counts returns how many messages were noted, by kind. The map is the caller's; it
// is nil where there were none.
func (g *Garbage) Counts() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	counts := make(map[string]int, len(g.kinds))
	for kind, k := range g.kinds {
		counts[kind] = k.count
	}
	if len(counts) == 0 {
		return nil
	}
	return counts
}
