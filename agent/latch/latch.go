package latch

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Scope is which actions are to end at once.
type Scope uint8

// The scopes, each wider than the one before.
const (
	None  Scope = iota
	Bound       // those of tasks that do not go on without a link
	Every
)

// Effects are what is to be done, in this order: refuse by the new verdict, end what
// runs, run the hooks, save the latch; only then is an order acknowledged.
type Effects struct {
	Cancel Scope
	Hooks  bool   // the link was lost: the hooks of the tasks that name one
	Save   bool   // the latch has changed
	Read   bool   // what was ordered has to be read again
	Refuse string // why an order was not carried out; "" where it was
}

// Verdict says what the robot may do.
type Verdict struct {
	Known  bool   // what was ordered while it was away has been read, and the link is watched over
	Orders string // why no task may act; "" where no order says so
	Link   string // why tasks that do not go on without a link may not; "" where they may
}

// Allows reports whether an action of a task may begin: nil, or an error that says why
// not, with code stopped, or unavailable where it is not known yet.
func (v Verdict) Allows(robot string, t messages.Task) *messages.Error {
	why := v.Orders
	if why == "" && !t.GoesOn() {
		why = v.Link
	}
	switch {
	case why != "":
		return messages.Errorf(messages.CodeStopped, "robot %q is %s; it takes no actions until `fleetbus release %s`", robot, why, robot)
	case !v.Known:
		return messages.Errorf(messages.CodeUnavailable, "robot %q has just connected and has not read yet whether it was stopped meanwhile; try again", robot)
	}
	return nil
}

// Why says why the robot is stopped, for people; "" where it is not.
func (v Verdict) Why() string {
	if v.Orders != "" {
		return v.Orders
	}
	return v.Link
}

// Machine is the latch of one robot with the watch over its link. It is not safe for
// concurrent use.
type Machine struct {
	held   messages.Latch
	known  bool
	coming messages.Fence // the newest release that was heard, carried out or not
	link   watch
}

// New makes the latch of a robot that nothing stops and that does not know yet what was
// ordered. reEngage is how long a link that was lost must be well before the robot acts
// again by itself; 0: only a release ends it.
func New(robot string, reEngage time.Duration) *Machine {
	return &Machine{held: messages.Latch{V: messages.Version, Agent: robot}, link: watch{reEngage: reEngage}}
}

// Held is the latch as it is to be saved.
func (m *Machine) Held() messages.Latch { return m.held }

// Verdict is what the robot may do now.
func (m *Machine) Verdict() Verdict {
	// A link that was never measured is not watched over yet.
	return Verdict{Known: m.known && m.link.heard, Orders: m.held.Stopped(), Link: m.held.LinkStopped()}
}

// Restore takes in a latch that was saved by an earlier life of the agent. Whatever
// stopped that one stops this one.
func (m *Machine) Restore(l messages.Latch) Effects {
	before := m.held
	newer(&m.held.Own, l.Own)
	newer(&m.held.All, l.All)
	if l.Local.On && !m.held.Local.On {
		m.held.Local = l.Local
	}
	if l.Link.On && !m.held.Link.On {
		m.held.Link = l.Link
	}
	return m.changed(before)
}

// Recover takes in the latch that an earlier life has shown to others. It knows of what
// began there even where the state file does not: where there is none, or its disk was
// full. What the file's newest order is newer than has ended since.
func (m *Machine) Recover(l messages.Latch) Effects {
	since := m.held.Newest()
	for _, h := range []*messages.Hold{&l.Local, &l.Link} {
		if h.Fence.Before(since) {
			*h = messages.Hold{}
		}
	}
	return m.Restore(l)
}

// Bucket takes in the creation time of the bucket that orders are kept in now. Where the
// server's clock was put back before it was made again, its orders would count as older
// than those of the lost one, and no stop would be heard any more: so what is held of a
// bucket that is gone becomes older than everything in this one. It holds all the same.
func (m *Machine) Bucket(epoch int64) Effects {
	before := m.held
	for _, f := range []*messages.Fence{&m.held.Own.Fence, &m.held.All.Fence, &m.held.Local.Fence, &m.held.Link.Fence, &m.coming} {
		if f.Epoch > epoch {
			*f = messages.Fence{Epoch: epoch}
		}
	}
	return m.changed(before)
}

// Distrust stops the robot because its saved latch cannot be read: it may have said so.
func (m *Machine) Distrust(why string) Effects {
	before := m.held
	m.stopHere(why)
	return m.changed(before)
}

// Unknown is called when orders may have been missed: the connection was lost.
func (m *Machine) Unknown() Effects {
	m.known = false
	return Effects{Read: true}
}

// Releases reports whether Read would let a robot act that an order stops now. What was
// sent to it before must have been refused then.
func (m *Machine) Releases(own, all *messages.StopOrder) bool {
	then := *m
	then.Read(own, all)
	return m.held.Stopped() != "" && then.held.Stopped() == ""
}

// Comes takes in that a release was heard, which is carried out by Hear when what was
// sent before it has been refused. A stop without a number, or a lost link, that comes
// meanwhile wins, however often that release is sent again.
func (m *Machine) Comes(o messages.StopOrder) {
	if !o.Stop && (o.Agent == "" || o.Agent == m.held.Agent) && m.coming.Before(o.Fence) {
		m.coming = o.Fence
	}
}

// newest is the newest order that the robot has heard of.
func (m *Machine) newest() messages.Fence {
	if f := m.held.Newest(); m.coming.Before(f) {
		return f
	}
	return m.coming
}

// Read takes in what the bucket says: the newest orders for this robot and for all; nil
// where there was never one. An order that is read only there was not given to a robot
// that hears it, so a release does not end what began here.
func (m *Machine) Read(own, all *messages.StopOrder) Effects {
	before := m.held
	for _, o := range []*messages.StopOrder{own, all} {
		if o != nil {
			newer(m.slot(*o), messages.Hold{On: o.Stop, Fence: o.Fence, Reason: o.Reason})
		}
	}
	m.known = !m.link.lost // an answer that was under way says nothing of what came after it
	return m.changed(before)
}

// Hear takes in an order that was sent. The same order may come again, or late: what is
// not newer changes nothing, except that a stop always ends what runs if the robot is
// stopped.
func (m *Machine) Hear(o messages.StopOrder) Effects {
	before := m.held
	switch {
	case o.Agent != "" && o.Agent != m.held.Agent:
		return Effects{Refuse: "the order is for robot " + o.Agent}
	case !o.Stop && m.link.lost:
		return Effects{Refuse: "its link is lost at the moment"}
	case o.Fence.IsZero() && !o.Stop:
		return Effects{Refuse: "a release has to be saved before it is sent"}
	case o.Fence.IsZero():
		m.stopHere(o.Reason)
		return m.changed(before)
	case o.Fence.Epoch < m.held.Newest().Epoch:
		// It comes late, or from a bucket that was made again after the server's clock had
		// been put back. The bucket tells; until then a stop is a stop.
		if !o.Stop {
			return Effects{Read: true, Refuse: "its number is of another bucket than the newest order's; which one counts is being read"}
		}
		m.stopHere(o.Reason)
		fx := m.changed(before)
		fx.Read = true
		return fx
	}
	newer(m.slot(o), messages.Hold{On: o.Stop, Fence: o.Fence, Reason: o.Reason})
	if !o.Stop {
		// What began here ends with a release that is newer than all that was known then;
		// one that is repeated after the link was lost anew is not.
		for _, h := range []*messages.Hold{&m.held.Local, &m.held.Link} {
			if h.On && h.Fence.Before(o.Fence) {
				*h = messages.Hold{}
			}
		}
	}
	return m.changed(before)
}

// stopHere stops the robot by something that has no number: until a release that is newer
// than all that was heard of by now.
func (m *Machine) stopHere(why string) {
	h := &m.held.Local
	if !h.On {
		*h = messages.Hold{On: true, Reason: why}
	}
	h.Fence = m.newest()
}

// slot is the hold that an order belongs to.
func (m *Machine) slot(o messages.StopOrder) *messages.Hold {
	if o.Agent == "" {
		return &m.held.All
	}
	return &m.held.Own
}

// newer replaces a hold by a newer one.
func newer(h *messages.Hold, by messages.Hold) {
	if h.Fence.Before(by.Fence) {
		*h = by
	}
}

// changed tells what follows from the difference to an earlier latch. Whenever orders
// stop the robot everything is told to end, not only when they begin to: that costs
// nothing, and a handler that began by whatever way does not go on.
func (m *Machine) changed(before messages.Latch) Effects {
	fx := Effects{Save: m.held != before}
	switch {
	case m.held.Stopped() != "":
		fx.Cancel = Every
	case m.held.Link.On:
		fx.Cancel = Bound
	}
	return fx
}
