package agent

import (
	"context"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages/bus"
)

// span is the context of an execution: it ends with the agent's work, with its time, or
// when it is told to. Those of the standard library take a timer each, and a channel that
// most handlers never look at; a request pays for that as much as for all else here.
// Contexts that a handler derives from it see the same end (see [context.AfterFunc]).
type span struct {
	work   context.Context // its values are ours, and its end is
	alarms *bus.Alarms
	alarm  bus.Alarm
	until  time.Time // zero: there is no limit

	mu    sync.Mutex
	err   error
	done  chan struct{} // nil until somebody asks
	after map[*func()]struct{}
}

// open begins the span. The alarms must be closed when the work has ended.
func (s *span) open(work context.Context, alarms *bus.Alarms, until time.Time) {
	s.work, s.alarms, s.until = work, alarms, until
	s.alarm.Bell = s
	alarms.Set(&s.alarm, until)
}

// Ring ends the span because the work has ended, or its time is over.
func (s *span) Ring() {
	err := s.work.Err()
	if err == nil {
		err = context.DeadlineExceeded
	}
	s.end(err)
}

// cancel ends the span; whoever opened it must call it.
func (s *span) cancel() {
	s.alarms.Unset(&s.alarm)
	s.end(context.Canceled)
}

func (s *span) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	if s.done != nil {
		close(s.done)
	}
	for f := range s.after {
		go (*f)()
	}
	s.after = nil
}

// Deadline implements [context.Context].
func (s *span) Deadline() (time.Time, bool) { return s.until, !s.until.IsZero() }

// Done implements [context.Context].
func (s *span) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.err != nil {
			close(s.done)
		}
	}
	return s.done
}

// Err implements [context.Context].
func (s *span) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Value implements [context.Context].
func (s *span) Value(key any) any { return s.work.Value(key) }

// AfterFunc is what package context calls instead of starting a goroutine that waits for
// Done.
func (s *span) AfterFunc(f func()) (stop func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		go f()
		return func() bool { return false }
	}
	if s.after == nil {
		s.after = make(map[*func()]struct{})
	}
	key := &f
	s.after[key] = struct{}{}
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, ok := s.after[key]
		delete(s.after, key)
		return ok
	}
}
