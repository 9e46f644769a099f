package main

import "time"

// outcome is how a request ended for its caller.
type outcome uint8

const (
	open     outcome = iota
	answered         // in time
	late             // no answer within its deadline
	refused          // with an error, before that
)

// ending is how an execution ended.
type ending uint8

const (
	running ending = iota
	finished
	canceled
	killed // its machine was switched off
)

// ledger writes down what really happened: what callers saw, and what machines did. The
// checker in check.go has nothing but it, the hour, and the troubles.
type ledger struct {
	w     *world
	hour  *hour
	fates []fate // by request
	runs  []record
}

// fate is what became of a request.
type fate struct {
	arrived  bool
	outcome  outcome
	ends     int
	from, at time.Duration
}

// record is one execution.
type record struct {
	env, replica string
	request      int
	slots        int
	from, to     time.Duration
	how          ending
}

func newLedger(w *world, h *hour) *ledger {
	return &ledger{w: w, hour: h, fates: make([]fate, len(h.requests)), runs: make([]record, 0, len(h.requests)*9/8)}
}

func (l *ledger) arrived(f *flight) {
	l.fates[f.id].arrived, l.fates[f.id].from = true, l.w.now
	if l.w.faults.invents && f.id%1000 == 0 {
		l.ends(f, answered)
	}
}

func (l *ledger) ends(f *flight, o outcome) {
	faults := l.w.faults
	switch {
	case faults.forgets && f.id%1000 == 0:
		return
	case faults.doubles && f.id%1000 == 0:
		l.fates[f.id].ends++
	case faults.invents && l.fates[f.id].ends > 0:
		return
	case faults.late && o == late:
		o = answered
	}
	l.fates[f.id].ends++
	l.fates[f.id].outcome, l.fates[f.id].at = o, l.w.now
}

func (l *ledger) begun(e *execution) int {
	l.runs = append(l.runs, record{env: e.r.a.env.ID, replica: e.r.placed.ID, request: e.f.id, slots: e.r.slots(), from: l.w.now})
	return len(l.runs) - 1
}

func (l *ledger) ended(i int, how ending) { l.runs[i].to, l.runs[i].how = l.w.now, how }
