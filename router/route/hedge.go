package route

import (
	"slices"
	"time"
)

// How requests of tasks that allow it are hedged: sent to a second agent as well when they
// take unusually long.
//
//   - hedgeLeast answers must be known before anything is unusual; the p95 is that of
//     the last hedgeWindow, so it follows the task within seconds.
//   - hedgeShare of the requests may be hedged: whatever the p95 is worth, the load
//     never grows by more. Up to hedgeSaved of them may be saved for a bad moment.
//   - HedgeMin: below it the second request would cost more than the wait.
const (
	hedgeLeast  = 20
	hedgeWindow = 128
	hedgeShare  = 0.05
	hedgeSaved  = 10
	hedgeEvery  = 16 // answers between two reckonings of the p95
	HedgeMin    = 2 * time.Millisecond
)

// Hedge is what a client knows of a task whose requests may be hedged, and its budget.
// The zero value is ready to use.
type Hedge struct {
	times  [hedgeWindow]time.Duration
	n      int // answers noted
	p95    time.Duration
	budget float64
}

// Answered notes how long a request took, from the call to the answer.
func (h *Hedge) Answered(took time.Duration) {
	h.times[h.n%hedgeWindow] = took
	h.n++
	h.budget = min(h.budget+hedgeShare, hedgeSaved)
	if h.n == hedgeLeast || h.n > hedgeLeast && h.n%hedgeEvery == 0 {
		times := slices.Clone(h.times[:min(h.n, hedgeWindow)])
		slices.Sort(times)
		h.p95 = max(HedgeMin, times[len(times)*95/100])
	}
}

// After returns when a request is unusually late; 0 where nobody knows.
func (h *Hedge) After() time.Duration { return h.p95 }

// Take takes one hedge out of the budget, if there is one.
func (h *Hedge) Take() bool {
	if h.budget < 1 {
		return false
	}
	h.budget--
	return true
}

// hedge sends the request, which is late, to a second agent that has a free slot: once,
// and only while one that can be relied on has it. One that still waits in the queue is
// late because all slots are taken, and gets the first that is free anyway.
func (m *Machine) hedge() {
	m.hedged = true
	if m.begun >= m.p.Attempts || !m.anyLive() || m.waiting() >= 0 {
		return
	}
	for _, c := range m.p.Candidates() {
		if c.Free && !slices.Contains(m.asked, c.Agent) && !m.holds(c.Agent) {
			if m.p.MayHedge() {
				m.begin(c, CauseHedge)
			}
			return
		}
	}
}
