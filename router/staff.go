package router

import "sync"

// maxStaff bounds the goroutines of a service that wait for a request: what a burst leaves
// behind, some 16 kB each.
const maxStaff = 256

// staff runs requests on goroutines that are used again: a new one for each would grow its
// stack each time. No request waits for another.
type staff struct {
	do func(caller)

	mu     sync.Mutex
	idle   []chan caller // who rested last is last: what it needs is still in the caches
	closed bool
	gone   sync.WaitGroup
}

// run serves a request on a goroutine that is idle, or on a new one. It may not be called
// after close.
func (s *staff) run(q caller) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		next := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		next <- q // it has room for one, and its owner has nothing to do
		return
	}
	s.mu.Unlock()
	s.gone.Go(func() {
		next := make(chan caller, 1)
		for ok := true; ok; q, ok = <-next {
			s.do(q)
			q = caller{} // it holds a body
			if !s.rest(next) {
				return
			}
		}
	})
}

// rest reports whether to wait for the next request.
func (s *staff) rest(next chan caller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.idle) >= maxStaff {
		return false
	}
	s.idle = append(s.idle, next)
	return true
}

// close sends the idle ones away, and returns when all are gone.
func (s *staff) close() {
	s.mu.Lock()
	s.closed = true
	for _, next := range s.idle {
		close(next)
	}
	s.idle = nil
	s.mu.Unlock()
	s.gone.Wait()
}
