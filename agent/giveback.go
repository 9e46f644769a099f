package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// What a replica does with a request out of the queue that it would not finish in time: it
// gives it back, because a faster replica may, and looks for one that has more time.
//
//   - It holds the request for up to holdTime, and asks for the next meanwhile: what it gave
//     back at once would be the first that it gets. As soon as it begins something, all
//     that it holds goes back. A delay of the server's own is no help: it is at least 10 ms,
//     and begins again with every other message that is given back with one.
//   - The server delivers what was given back before all that waits, in the order in which it
//     came back. Whoever takes one and gives older ones back puts these behind the younger, and
//     quick replicas, the only ones that could still answer the oldest, find them too late.
//     So a replica that holds something looks on when it finds what it could begin: until it
//     gets one that was never delivered, or for holdTime in all, or for lookBytes. Of what it has
//     seen it begins the oldest that it can, and gives the others back in their old order.
//   - When it gets one for the second time, it has seen all that waits. It then asks for
//     nothing for restTime, so that those who could serve what waits find it there. That is
//     twice holdTime, so it stands in their way for a third of the time at most.
//   - A request that was delivered giveBacks times is given back no more: its caller is told,
//     who may have a newer observation. A replica that is alone comes to that in some 300 ms.
//
// All are short beside what a request has left: tens of milliseconds. lookBytes is the other
// bound: many small requests are looked at for what one camera frame costs the network.
const (
	holdTime  = 2 * time.Millisecond
	restTime  = 2 * holdTime
	giveBacks = 40
	lookBytes = 64 << 10
)

// returns is what a replica holds back; its methods are pure, the replica's mu is held.
type returns struct {
	held []heldWork
	seen map[string]bool // requests that were given back since something was begun
	rest time.Time       // until then nothing is asked for; zero: it is

	found *delivery // the oldest that it could begin, while it looks on; nil: it does not
	until time.Time // then it begins found
	bytes int       // of what was looked at since it was found
}

// delivery is a message out of a queue and what the server says of it.
type delivery struct {
	msg   *nats.Msg
	seq   uint64 // its place in the queue
	count uint64 // how often it was delivered, with this time
	more  bool   // some wait that were never delivered
}

// describe reads what the server says of a delivery; all zero where it says nothing.
func describe(m *nats.Msg) delivery {
	d := delivery{msg: m}
	if meta, err := m.Metadata(); err == nil {
		d.seq, d.count, d.more = meta.Sequence.Stream, meta.NumDelivered, meta.NumPending > 0
	}
	return d
}

// heldWork is a message that is given back at a time.
type heldWork struct {
	reply string
	seq   uint64
	at    time.Time
}

func (b *returns) keep(d delivery, now time.Time) {
	b.held = append(b.held, heldWork{d.msg.Reply, d.seq, now.Add(holdTime)})
}

// hold takes in a message that nobody here would finish in time, and reports whether the
// replica should rest from now on.
func (b *returns) hold(id string, d delivery, now time.Time) (rest bool) {
	b.keep(d, now)
	b.bytes += len(d.msg.Data)
	if b.seen == nil {
		b.seen = make(map[string]bool)
	}
	if !b.seen[id] || b.found != nil {
		b.seen[id] = true
		return false
	}
	clear(b.seen)
	b.rest = now.Add(restTime)
	return true
}

// looking reports whether one that could be begun is to be shown to find first.
func (b *returns) looking() bool { return len(b.held) > 0 || b.found != nil }

// find takes in one that could be begun, and returns what is to be begun now; nil: nothing yet,
// the replica should look on. free says that another one could be begun right after it.
func (b *returns) find(d delivery, free bool, now time.Time) *nats.Msg {
	switch {
	case b.found == nil && len(b.held) == 0:
		return d.msg
	case b.found == nil:
		b.found, b.until, b.bytes = &d, b.held[0].at, 0
	case d.seq < b.found.seq:
		b.keep(*b.found, now)
		b.found = &d
	default:
		b.keep(d, now)
	}
	b.bytes += len(d.msg.Data)
	if d.count > 1 && d.more && !free && b.bytes < lookBytes && now.Before(b.until) {
		return nil
	}
	return b.take()
}

// take takes out what was found.
func (b *returns) take() *nats.Msg {
	m := b.found.msg
	b.found = nil
	return m
}

// due takes out what is to be given back now, the oldest first, and what is to be begun, where
// looking on has taken long enough.
func (b *returns) due(now time.Time) (replies []string, begin *nats.Msg) {
	n := 0
	for n < len(b.held) && !now.Before(b.held[n].at) {
		n++
	}
	replies = inOrder(b.held[:n])
	b.held = slices.Delete(b.held, 0, n)
	if b.found != nil && !now.Before(b.until) {
		begin = b.take()
	}
	return replies, begin
}

// all takes out all that is held or was found, the oldest first.
func (b *returns) all() (replies []string) {
	if b.found != nil {
		b.held = append(b.held, heldWork{reply: b.found.msg.Reply, seq: b.found.seq})
		b.found = nil
	}
	replies = inOrder(b.held)
	b.held = b.held[:0]
	return replies
}

// inOrder sorts by the place in the queue.
func inOrder(list []heldWork) (replies []string) {
	slices.SortStableFunc(list, func(a, b heldWork) int { return cmp.Compare(a.seq, b.seq) })
	for _, h := range list {
		replies = append(replies, h.reply)
	}
	return replies
}

// begun is to be called when something is begun: what was seen then may be of use again
// when it has ended.
func (b *returns) begun() []string {
	clear(b.seen)
	return b.all()
}

// resting reports whether nothing should be asked for.
func (b *returns) resting(now time.Time) bool { return !b.rest.IsZero() && now.Before(b.rest) }

// giveBack gives a message back, soon. Its slot is taken no more.
func (r *replica) giveBack(id string, m *nats.Msg) {
	d := describe(m)
	r.mu.Lock()
	now := time.Now()
	rest := r.returns.hold(id, d, now)
	var replies []string
	if rest {
		replies = r.returns.all()
	}
	r.mu.Unlock()
	r.nak(replies)
	if rest {
		time.AfterFunc(restTime, r.pullOn)
	} else {
		time.AfterFunc(holdTime, r.holdIsOver)
	}
}

// lookOn returns what is to be begun when m could be; nil: the next one is to be looked at.
// The slot of m is taken.
func (r *replica) lookOn(m *nats.Msg, now time.Time) *nats.Msg {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.returns.looking() || r.batch.together() {
		return m
	}
	// Whatever becomes of the one that is begun: what is kept now does not stay.
	time.AfterFunc(holdTime, r.holdIsOver)
	return r.returns.find(describe(m), r.busy < r.slots, now)
}

// holdIsOver gives back what was held long enough, and begins what was found.
func (r *replica) holdIsOver() {
	now := time.Now()
	r.mu.Lock()
	replies, m := r.returns.due(now)
	taken := m != nil && r.takeLocked()
	r.mu.Unlock()
	r.nak(replies)
	switch {
	case taken:
		r.a.lives.begin(func() { r.serveFound(m, now) })
	case m != nil:
		r.nak([]string{m.Reply})
	}
}

// pullOn asks for work after a rest.
func (r *replica) pullOn() {
	r.mu.Lock()
	next := r.claimLocked()
	r.mu.Unlock()
	next.send()
}

// giveAllBack gives back all that is held.
func (r *replica) giveAllBack() {
	r.mu.Lock()
	replies := r.returns.all()
	r.mu.Unlock()
	r.nak(replies)
}

func (r *replica) nak(replies []string) {
	for _, reply := range replies {
		_ = r.a.nc.Publish(reply, bus.Nak) // without a connection the ack wait does the same
	}
}
