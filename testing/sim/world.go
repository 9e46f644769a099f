package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// begin is when every play begins, on the clock that nobody has.
var begin = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// world is a fleet and everything around it.
type world struct {
	seed   uint64
	rng    *rand.Rand
	now    time.Time
	queue  events
	seq    int
	steps  int // of Machines
	faults faults

	delay       time.Duration // of a message, at most; half of it at least
	loss, dupes float64       // of messages that nobody repeats
	saveLoss    float64       // of what is asked of the server

	first   []messages.Task // that were desired; see faults.oldTasks
	server  *server
	coords  []*coordinator
	agents  []*agent // in the order of their ids
	byID    map[string]*agent
	clients []*client
	ledger  *ledger

	trail   []string // the last lines of what happened
	verbose func(string)
}

// violation is what a play that fails panics with, so that it ends at once.
type violation struct{ text string }

func newWorld(seed uint64, f faults) *world {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), now: begin, faults: f, delay: 20 * time.Millisecond, byID: make(map[string]*agent)}
	w.server = newServer()
	w.ledger = newLedger(w)
	w.server.desired.Settings = messages.DefaultSettings()
	return w
}

// fail ends the play: an invariant is broken.
func (w *world) fail(format string, args ...any) {
	panic(violation{fmt.Sprintf("%v: "+format, append([]any{w.elapsed()}, args...)...)})
}

func (w *world) elapsed() time.Duration { return w.now.Sub(begin).Truncate(time.Millisecond) }

// trailLines is how many lines a failure prints.
const trailLines = 60

func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf("%10v  "+format, append([]any{w.elapsed()}, args...)...)
	if w.verbose != nil {
		w.verbose(line)
	}
	if len(w.trail) >= trailLines {
		w.trail = slices.Delete(w.trail, 0, len(w.trail)-trailLines+1)
	}
	w.trail = append(w.trail, line)
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return x
}

func (w *world) in(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now.Add(max(0, d)), w.seq, do})
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// until lets time pass until what holds, d at most, and reports whether it does.
func (w *world) until(d time.Duration, what func() bool) bool {
	for end := w.now.Add(d); w.now.Before(end); {
		if what() {
			return true
		}
		w.run(100 * time.Millisecond)
	}
	return what()
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d) + 1)) }

func (w *world) latency() time.Duration { return w.delay/2 + w.upTo(w.delay/2) }

// node is whoever has a link to the server.
type node struct {
	name string
	cut  bool
	last time.Time // of the last thing that had to arrive in order
}

// send passes a message between two nodes, by way of the server: late, not at all, or
// twice, and not in the order in which it was sent.
func (w *world) send(from, to *node, do func()) {
	if from.cut || w.chance(w.loss) {
		return
	}
	pass := func() {
		w.in(w.latency(), func() {
			if !to.cut {
				do()
			}
		})
	}
	pass()
	if w.chance(w.dupes) {
		pass()
	}
}

// ask is a request to the server's store: serve runs there, what it returns runs when the
// answer arrives, lost when none came in time. That none came says nothing about whether
// it was served.
func (w *world) ask(n *node, timeout time.Duration, serve func() func(), lost func()) {
	done := false
	if !n.cut && !w.chance(w.saveLoss) {
		w.in(w.latency(), func() {
			if n.cut {
				return
			}
			answer := serve()
			if w.chance(w.saveLoss) {
				return
			}
			w.in(w.latency(), func() {
				if !n.cut && !done {
					done = true
					answer()
				}
			})
		})
	}
	w.in(timeout, func() {
		if !done {
			done = true
			lost()
		}
	})
}

// ordered passes what a watcher sees: all of it and in order, as long as the link holds.
func (w *world) ordered(to *node, do func()) {
	at := w.now.Add(w.latency())
	if at.Before(to.last) {
		at = to.last
	}
	to.last = at
	w.in(at.Sub(w.now), func() {
		if !to.cut {
			do()
		}
	})
}

func (w *world) story() string { return strings.Join(w.trail, "\n") }
