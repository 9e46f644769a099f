package sim

import (
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
)

// tryEvery is the pause between a follower's tries for the lease.
const tryEvery = 500 * time.Millisecond

func (c *coordinator) holder() string { return c.node.name }

// tryLease takes the lease whenever it can be had.
func (c *coordinator) tryLease() {
	if c.leading {
		return
	}
	before := c.clock()
	again := c.then(func() { c.later(tryEvery, c.tryLease) })
	if c.node.cut {
		again()
		return
	}
	c.w.ask(&c.node, leaseTTL/5, func() func() {
		rev, ok := c.w.server.acquire(c.w.now, c.holder())
		if c.w.faults.sharedTerm && !ok && c.w.server.lease.rev != 0 {
			rev, ok = c.w.server.lease.rev, true
		}
		return c.then(func() {
			if !ok {
				again()
				return
			}
			c.load(messages.Term{Epoch: 1, Revision: rev}, before, again)
		})
	}, again)
}

// load reads what is saved, and then leads.
func (c *coordinator) load(term messages.Term, proven time.Time, again func()) {
	c.w.ask(&c.node, leaseTTL/5, func() func() {
		docs, revs := c.w.server.all()
		routes := c.w.server.routes
		return c.then(func() {
			c.reign++
			c.leading, c.term, c.leaseRev, c.proven, c.revs, c.routesRev = true, term, term.Revision, proven, revs, routes.rev
			loaded := placement.PlacementsLoaded{Docs: docs}
			if routes.rev != 0 {
				loaded.Routes = &routes.value
			}
			if !c.mayAct() {
				c.leading = false
				again()
				return
			}
			c.w.note("%s leads under term %s", c.node.name, term)
			c.step(loaded)
			c.step(placement.Elected{Term: term})
			c.later(leaseTTL/10, c.renew)
		})
	}, again)
}

// renew extends the lease until it cannot.
func (c *coordinator) renew() {
	if !c.leading {
		return
	}
	if !c.mayAct() {
		c.depose("the lease could not be renewed in time")
		return
	}
	reign, before := c.reign, c.clock()
	retry := c.then(func() {
		if c.in(reign) {
			c.later(leaseTTL/20, c.renew)
		}
	})
	c.w.ask(&c.node, leaseTTL/5, func() func() {
		rev, ok, unheard := c.w.server.renew(c.w.now, c.holder(), c.leaseRev)
		return c.then(func() {
			switch {
			case !c.in(reign):
			case ok:
				c.leaseRev, c.proven = rev, before
				if !c.w.faults.deafToLinks {
					c.step(placement.LinkHeard{})
				}
				c.later(leaseTTL/10, c.renew)
			case unheard:
				c.leaseRev = max(c.leaseRev, rev)
				retry()
			case c.w.faults.sharedTerm:
				c.proven = before
				c.later(leaseTTL/10, c.renew)
			default:
				c.depose("the lease is somebody else's, or expired")
			}
		})
	}, retry)
}

func (c *coordinator) depose(why string) {
	if !c.leading {
		return
	}
	c.w.note("%s leads no more: %s", c.node.name, why)
	c.reign++
	c.leading, c.last = false, nil
	c.step(placement.Deposed{Reason: why})
	c.later(tryEvery, c.tryLease)
}

// handOver stops a leader in good order: it gives the lease back.
func (c *coordinator) handOver() {
	if c.leading {
		c.w.server.release(c.holder(), c.leaseRev)
	}
	c.kill()
}
