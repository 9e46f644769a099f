package main

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/router/route"
)

// queue is the work queue of a task in a site as the server keeps it: the oldest message
// goes to the pull of the best rank that waits, and of equal ones to the one that has
// waited longest.
type queue struct {
	w       *world
	pending []*message
	pulls   []*replica
	taken   int    // delivered, and neither acknowledged nor given back
	count   uint64 // deliveries, ever
}

// message is an inference that was put into a queue.
type message struct {
	q          *queue
	f          *flight
	deliveries int
}

type queueKey struct{ site, task string }

func (w *world) queueOf(site, task string) *queue {
	k := queueKey{site, task}
	if w.queues[k] == nil {
		w.queues[k] = &queue{w: w}
	}
	return w.queues[k]
}

func (q *queue) put(f *flight) {
	q.pending = append(q.pending, &message{q: q, f: f})
	q.match()
}

// offer is one pull of a replica.
func (q *queue) offer(r *replica) {
	q.pulls = append(q.pulls, r)
	q.match()
}

// withdraw forgets the pulls of a replica: its inbox is gone.
func (q *queue) withdraw(r *replica) {
	q.pulls = slices.DeleteFunc(q.pulls, func(o *replica) bool { return o == r })
}

func (q *queue) match() {
	for len(q.pending) > 0 && len(q.pulls) > 0 {
		best := 0
		for i, r := range q.pulls {
			if r.placed.Rank < q.pulls[best].placed.Rank {
				best = i
			}
		}
		r, m := q.pulls[best], q.pending[0]
		q.pulls = slices.Delete(q.pulls, best, best+1)
		q.pending = slices.Delete(q.pending, 0, 1)
		m.deliveries++
		q.taken++
		q.count++
		q.w.in(q.w.way(m.f, r.a)/2+r.a.transfer(m.f), func() { r.receive(m) })
	}
}

// acked: the message is done with.
func (m *message) acked() { m.q.taken-- }

// again puts the message back, d from now: whoever had it gave it back, or is gone.
func (m *message) again(d time.Duration) {
	m.q.taken--
	m.q.w.in(d, func() {
		m.q.pending = slices.Insert(m.q.pending, 0, m)
		m.q.match()
	})
}

// died: whoever had it is gone, which the server learns by its ack wait.
func (m *message) died() { m.again(route.QueueAckWait) }
