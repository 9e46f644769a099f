package bus

import (
	"sync"
	"time"
)

// Alarms rings many alarms with one timer. A timer for every request costs more than it
// seems: the earliest one of an idle process wakes the thread that waits for the network.
// Of requests most alarms are taken back long before their time; here that does not touch
// the timer, which rings in vain at most once and is then set for the earliest that is
// left. What rings does so at its time, not in steps.
//
// The zero value is ready to use, by many goroutines.
type Alarms struct {
	mu     sync.Mutex
	timer  *time.Timer
	due    time.Time // when the timer fires; zero: it is not set
	first  *Alarm    // of those that are set
	closed bool
}

// Alarm is part of what is to be woken. Bell must be set before it is used the first time.
type Alarm struct {
	// Bell is rung by a goroutine that rings others too: it must not wait. It may still ring,
	// once, when the alarm has just been taken back or set anew.
	Bell interface{ Ring() }

	at         time.Time
	set        bool
	prev, next *Alarm
}

// Set has an alarm ring at a time, instead of any that it was set for before; the zero
// time means only with Close. After Close it rings at once, in the caller's goroutine.
func (s *Alarms) Set(a *Alarm, at time.Time) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		a.Bell.Ring()
		return
	}
	defer s.mu.Unlock()
	a.at = at
	if !a.set {
		a.set, a.next = true, s.first
		if s.first != nil {
			s.first.prev = a
		}
		s.first = a
	}
	s.wake(at)
}

// Unset takes an alarm back. One that is not set stays so.
func (s *Alarms) Unset(a *Alarm) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(a)
}

// Close rings all alarms that are set, in the caller's goroutine, and ends the timer.
func (s *Alarms) Close() {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	var rung []*Alarm
	for s.first != nil {
		rung = append(rung, s.first)
		s.drop(s.first)
	}
	s.mu.Unlock()
	for _, a := range rung {
		a.Bell.Ring()
	}
}

// wake sets the timer unless it fires before at; mu is held.
func (s *Alarms) wake(at time.Time) {
	if at.IsZero() || !s.due.IsZero() && !at.Before(s.due) {
		return
	}
	s.due = at
	if left := time.Until(at); s.timer == nil {
		s.timer = time.AfterFunc(left, s.fired)
	} else {
		s.timer.Reset(left)
	}
}

// drop takes an alarm out of the list; mu is held.
func (s *Alarms) drop(a *Alarm) {
	if !a.set {
		return
	}
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		s.first = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	a.set, a.prev, a.next = false, nil, nil
}

func (s *Alarms) fired() {
	now := time.Now()
	var rung []*Alarm
	var soonest time.Time
	s.mu.Lock()
	s.due = time.Time{}
	for a := s.first; a != nil; {
		next := a.next
		switch {
		case a.at.IsZero():
		case !now.Before(a.at):
			rung = append(rung, a)
			s.drop(a)
		case soonest.IsZero() || a.at.Before(soonest):
			soonest = a.at
		}
		a = next
	}
	if !s.closed {
		s.wake(soonest)
	}
	s.mu.Unlock()
	for _, a := range rung {
		a.Bell.Ring()
	}
}
