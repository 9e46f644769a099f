package sim

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
)

// leaseTTL is the default of the coordinator.
const leaseTTL = 10 * time.Second

// server is what NATS keeps: the lease and the buckets. It never loses what it has
// confirmed; its clock is the world's.
type server struct {
	door     node   // by which it speaks for itself
	revision uint64 // of all buckets

	lease struct {
		holder string
		rev    uint64
		until  time.Time
	}
	docs      map[string]stored[messages.Placement]
	routes    stored[messages.Routes]
	desired   placement.TasksChanged
	registers map[string]placement.Registered
}

type stored[T any] struct {
	value T
	rev   uint64
}

func newServer() *server {
	return &server{docs: make(map[string]stored[messages.Placement]), registers: make(map[string]placement.Registered)}
}

func (s *server) next() uint64 {
	s.revision++
	return s.revision
}

// held reports whether somebody has the lease at now.
func (s *server) held(now time.Time) bool { return s.lease.rev != 0 && now.Before(s.lease.until) }

// acquire takes the lease, if it is free. One that is ours by name but that we do not act
// under is dropped, so that the next try may have it.
func (s *server) acquire(now time.Time, holder string) (rev uint64, ok bool) {
	if s.held(now) {
		if s.lease.holder == holder {
			s.lease.rev = 0
		}
		return 0, false
	}
	s.lease.holder, s.lease.rev, s.lease.until = holder, s.next(), now.Add(leaseTTL)
	return s.lease.rev, true
}

// renew extends the lease of whoever wrote rev. unheard says that an earlier renewal was
// stored without his hearing of it.
func (s *server) renew(now time.Time, holder string, rev uint64) (newer uint64, ok, unheard bool) {
	switch {
	case !s.held(now) || s.lease.holder != holder:
		return 0, false, false
	case s.lease.rev != rev:
		return s.lease.rev, false, true
	}
	s.lease.rev, s.lease.until = s.next(), now.Add(leaseTTL)
	return s.lease.rev, true, false
}

func (s *server) release(holder string, rev uint64) {
	if s.lease.holder == holder && s.lease.rev == rev {
		s.lease.rev = 0
	}
}

// put writes a document after rev, or returns what is there instead.
func (s *server) put(doc messages.Placement, rev uint64) (now stored[messages.Placement], ok bool) {
	if e := s.docs[doc.Agent]; e.rev != rev {
		return e, false
	}
	e := stored[messages.Placement]{doc, s.next()}
	s.docs[doc.Agent] = e
	return e, true
}

func (s *server) putRoutes(r messages.Routes, rev uint64) (now stored[messages.Routes], ok bool) {
	if s.routes.rev != rev {
		return s.routes, false
	}
	s.routes = stored[messages.Routes]{r, s.next()}
	return s.routes, true
}

// all returns every document, and the revisions that later writes must follow.
func (s *server) all() (docs []messages.Placement, revs map[string]uint64) {
	revs = make(map[string]uint64, len(s.docs))
	for id, e := range s.docs {
		revs[id] = e.rev
		docs = append(docs, e.value)
	}
	slices.SortFunc(docs, func(a, b messages.Placement) int { // not that it may matter
		if a.Agent < b.Agent {
			return -1
		}
		return 1
	})
	return docs, revs
}
