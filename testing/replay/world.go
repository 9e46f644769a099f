package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// world is one fleet in virtual time. It is for one goroutine, and equal seeds give equal
// runs.
type world struct {
	clock
	rng      *rand.Rand
	revision uint64
	agents   []*agent
	byID     map[string]*agent
	queues   map[queueKey]*queue
	clients  []*client
	control  *control
	ledger   *ledger
	faults   faults
	verbose  func(string) // nil: nobody listens
}

// faults are planted, each for the checker to find.
type faults struct {
	forgets bool // a request in a thousand ends without a word
	doubles bool // a request in a thousand ends twice
	invents bool // a request in a thousand is answered by nobody
	hurries bool // requests are half the work that they are
	crowds  bool // replicas serve more at once than they have slots for
	late    bool // a request in a thousand is answered after its deadline
	ghosts  bool // a machine that is off goes on serving
	wastes  bool // machines lose work on the way
}

// The hour begins when everything has been placed and has loaded for long; and after it
// nothing new comes, but what is under way ends.
const (
	warmUp   = time.Minute
	coolDown = 5 * time.Second
)

// run plays an hour by a scheme.
func run(s scheme, h *hour, troubles []trouble, seed uint64, f faults, verbose func(string)) (*figures, error) {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x5eed)), byID: make(map[string]*agent), queues: make(map[queueKey]*queue), faults: f, verbose: verbose}
	w.ledger = newLedger(w, h)
	settings := messages.DefaultSettings()
	settings.Mode = s.mode
	newControl(w, settings, s.tasks(h))
	for _, e := range s.environments() {
		w.addAgent(e).start()
	}
	for r := range robots {
		w.addClient(r)
	}
	w.control.lead()
	for _, t := range troubles {
		w.trouble(t)
	}
	var m meter
	const every = time.Second
	end := warmUp + h.last
	var sample func()
	sample = func() {
		w.control.measure(every, &m)
		if w.now+every < end {
			w.in(every, sample)
		}
	}
	w.in(warmUp, sample)
	var next func(i int)
	next = func(i int) { // one after the other: the queue of events stays short
		w.clients[h.requests[i].robot].ask(i, h.requests[i])
		if i+1 < len(h.requests) {
			w.in(warmUp+h.requests[i+1].at-w.now, func() { next(i + 1) })
		}
	}
	w.in(warmUp+h.requests[0].at, func() { next(0) })
	w.run(end + coolDown)
	if err := errors.Join(w.ledger.check(s.environments(), troubles, end+coolDown), w.ledger.checkBoxes(w.agents)); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return w.figures(h, &m), nil
}

// trouble lets a trouble begin and end.
func (w *world) trouble(t trouble) {
	a := w.byID[t.env]
	if a == nil {
		return
	}
	w.in(warmUp+t.from, func() {
		if t.slow > 0 {
			a.slow = t.slow
		}
		a.foreign += t.foreign
		if t.off && !w.faults.ghosts {
			a.stop()
		}
		a.reckon()
	})
	w.in(warmUp+t.to, func() {
		if t.slow > 0 {
			a.slow = 1
		}
		a.foreign -= t.foreign
		if t.off && !w.faults.ghosts {
			a.start()
		}
		a.reckon()
	})
}

// way is how long it takes to a machine and back, without the body.
func (w *world) way(f *flight, a *agent) time.Duration {
	d := a.env.Latency
	if a.env.Site != f.c.site && a.env.Site != messages.DefaultSite {
		d += hop
	}
	return messages.Millis(d)
}

// down reports whether a client's probes say that an agent has no connection.
func (w *world) down(agent string) bool { return w.byID[agent].missed }

func (w *world) note(e messages.Event) {
	if w.verbose != nil {
		w.verbose(fmt.Sprintf("%10v  %s %s %s: %s", (w.now - warmUp).Truncate(time.Millisecond), e.Kind, e.Agent, e.ID, e.Reason))
	}
}
