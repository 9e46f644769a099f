package agent

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages/bus"
)

// What a replica does with a request out of the queue that it would not finish in time: it
// gives it back, because a faster replica may, and looks for one that has more time.
//
//   - It holds the request for up to holdTime, and asks for the next meanwhile: what it gave
//     back at once would be the first that it gets. As soon as it begins something, all
//     that it holds goes back. A delay of the server's own is no help: it is at least 10 ms,
//     and begins again with every other message that is given back with one.
//   - When it gets one for the second time, it has seen all that waits. It then asks for
//     nothing for restTime, so that those who could serve what waits find it there. That is
//     twice holdTime, so it stands in their way for a third of the time at most.
//   - A request that was delivered giveBacks times is given back no more: its caller is told,
//     who may have a newer observation. A replica that is alone comes to that in some 300 ms.
//
// All are short beside what a request has left: tens of milliseconds.
const (
	holdTime  = 2 * time.Millisecond
	restTime  = 2 * holdTime
	giveBacks = 40
)

// returns is what a replica holds back; its methods are pure, the replica's mu is held.
type returns struct {
	held []heldWork
	seen map[string]bool // requests that were given back since something was begun
	rest time.Time       // until then nothing is asked for; zero: it is
}

// heldWork is a message that is given back at a time.
type heldWork struct {
	reply string
	at    time.Time
}

// hold takes in a message, and reports whether the replica should rest from now on.
func (b *returns) hold(id, reply string, now time.Time) (rest bool) {
	b.held = append(b.held, heldWork{reply, now.Add(holdTime)})
	if b.seen == nil {
		b.seen = make(map[string]bool)
	}
	if !b.seen[id] {
		b.seen[id] = true
		return false
	}
	clear(b.seen)
	b.rest = now.Add(restTime)
	return true
}

// due takes out what is to be given back now, in the order in which it came.
func (b *returns) due(now time.Time) (replies []string) {
	n := 0
	for ; n < len(b.held) && !now.Before(b.held[n].at); n++ {
		replies = append(replies, b.held[n].reply)
	}
	b.held = slices.Delete(b.held, 0, n)
	return replies
}

// all takes out all that is held.
func (b *returns) all() (replies []string) {
	for _, h := range b.held {
		replies = append(replies, h.reply)
	}
	b.held = b.held[:0]
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
func (r *replica) giveBack(id, reply string) {
	r.mu.Lock()
	now := time.Now()
	rest := r.returns.hold(id, reply, now)
	var replies []string
	if rest {
		replies = r.returns.all()
	}
	r.mu.Unlock()
	r.nak(replies)
	if rest {
		time.AfterFunc(restTime, r.pullOn)
	} else {
		time.AfterFunc(holdTime, func() {
			r.mu.Lock()
			replies := r.returns.due(time.Now())
			r.mu.Unlock()
			r.nak(replies)
		})
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
