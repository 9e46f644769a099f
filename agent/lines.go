package agent

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// Priorities. A replica of a training task pulls from three queues with the same slots. It
// must not take a job of a lower priority while one of a higher waits, and not ask twice
// per job whether one does. So:
//
//   - At the highest queue one pull waits, whatever else does. While it waits there is
//     nothing in that queue, so the others may be pulled from without asking.
//   - When that pull has brought something, the next free slot first asks there
//     (a probe, which the server answers at once), and only after its "no messages" pulls
//     from below.
//   - From the lowest queue it pulls when the pulls at the one above have waited for a
//     heartbeat of the server.
//
// The pulls together may so ask for more messages than there are slots. What comes when
// none is free goes back to its queue in the same moment, as when a direct request was
// quicker, and is not asked for again before a slot is free.

// newLines makes the pullers of a replica, and returns the one that the rest of it deals
// with; nil where the task's requests are not pulled.
func newLines(r *replica) (*puller, []*puller) {
	if !pulled(r.task) {
		return nil, nil
	}
	if r.task.Class != messages.Training {
		p := newPuller(r, "")
		return p, []*puller{p}
	}
	var main *puller
	var lines []*puller
	for _, level := range messages.Priorities() {
		p := newPuller(r, level)
		lines = append(lines, p)
		if level == messages.Normal {
			main = p
		}
	}
	return main, lines
}

// claims are the pulls that are to be sent after the replica's lock was let go of, one a
// line at most.
type claims [3]pull

func (c *claims) send() {
	for i := range c {
		if c[i].by != nil {
			c[i].by.send(c[i])
		}
	}
}

// claimLocked takes the free slots that no pull covers yet, from the highest line on for as
// long as there is nothing to be had above. send must follow; mu is held.
func (r *replica) claimLocked() (list claims) {
	for i, p := range r.lines {
		list[i] = p.claimLocked()
		if p.level != "" && !p.clearLocked() {
			break
		}
	}
	return list
}

// clearLocked reports whether lower lines may be pulled from: a pull waits here, and has
// found nothing. A line that has no connection, or no consumer yet, holds nobody up.
func (p *puller) clearLocked() bool { return !p.on || p.waiting > 0 && p.empty }

// lookLocked makes the one pull of the highest line: a probe, and when that has found
// nothing, one that waits.
func (p *puller) lookLocked() pull {
	switch {
	case p.waiting > 0:
		return pull{}
	case p.empty:
		return p.askLocked(1, bus.PullExpires)
	}
	q := p.askLocked(1, 0)
	q.probe, p.probing = true, true
	return q
}

// claimLocked takes all free slots that no pull covers yet; send must follow. The
// replica's mu is held. A nil puller claims nothing.
func (p *puller) claimLocked() pull {
	if p == nil || !p.on || !p.r.open || p.r.returns.resting(time.Now()) {
		return pull{}
	}
	n := p.r.slots - p.r.busy
	if p.r.batch.together() {
		n = p.r.batch.want()
	}
	if p.level == messages.High && n > 0 {
		return p.lookLocked()
	}
	if p.level != "" && p.waiting > p.r.slots/pullShare {
		return pull{} // nothing waits at the server, and what comes finds a pull
	}
	return p.askLocked(n, bus.PullExpires)
}

// pullShare: a line of jobs has more pulls wait when less than this part of the slots has
// one waiting. A pull for each slot that gets free would be a message for each short job;
// and while pulls wait, no job does.
const pullShare = 4

// followLocked asks for those that go along with the lead of a batch, until it begins.
// send must follow, the replica's mu is held; a nil puller asks for nothing.
func (p *puller) followLocked(until time.Duration) pull {
	if p == nil || !p.on || !p.r.open {
		return pull{}
	}
	return p.askLocked(p.r.batch.most-p.r.batch.seats, max(until, time.Millisecond))
}

// askLocked is a pull for n messages less those that are asked for already.
func (p *puller) askLocked(n int, expires time.Duration) pull {
	if n -= p.waiting; n <= 0 {
		return pull{}
	}
	p.waiting += n
	return pull{by: p, n: n, rank: p.r.placed.Rank, inbox: p.inbox, expires: expires}
}

func (p *puller) send(q pull) {
	if q.n == 0 {
		return
	}
	var buf [160]byte
	ask := bus.PullRequestFor(buf[:0], q.n, q.rank, q.expires)
	if q.probe {
		ask = bus.ProbeRequest(buf[:0], q.n, q.rank)
	}
	if err := p.r.a.nc.PublishRequest(p.subject, q.inbox, ask); err != nil {
		p.unsent(q)
	}
}

// unsent takes back a pull that was not sent: the next reconnection makes it again.
func (p *puller) unsent(q pull) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.inbox == q.inbox {
		p.waiting = max(0, p.waiting-q.n)
	}
}
