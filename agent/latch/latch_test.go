package latch

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func at(rev uint64) messages.Fence { return messages.Fence{Epoch: 1, Revision: rev} }

func order(robot string, stop bool, rev uint64) messages.StopOrder {
	o := messages.StopOrder{Agent: robot, Stop: stop, Reason: "r"}
	if rev > 0 {
		o.Fence = at(rev)
	}
	return o
}

var (
	bound  = messages.Task{Name: "move", Class: messages.Action}
	goesOn = messages.Task{Name: "blink", Class: messages.Action, OnLinkLoss: messages.LinkContinue}
)

func code(v Verdict, t messages.Task) messages.Code {
	if err := v.Allows("r1", t); err != nil {
		return err.Code
	}
	return ""
}

// wellLinked is a machine whose link was measured once.
func wellLinked(reEngage time.Duration) *Machine {
	m := New("r1", reEngage)
	m.Pong(time.Unix(999, 0), time.Unix(999, 0))
	return m
}

func TestOrders(t *testing.T) {
	type heard = messages.StopOrder
	for _, s := range []struct {
		name   string
		orders []heard
		code   messages.Code
		refuse string
	}{
		{"none", nil, "", ""},
		{"stop", []heard{order("r1", true, 1)}, messages.CodeStopped, ""},
		{"stop all", []heard{order("", true, 1)}, messages.CodeStopped, ""},
		{"stop and release", []heard{order("r1", true, 1), order("r1", false, 2)}, "", ""},
		{"stop all and release it alone", []heard{order("", true, 1), order("r1", false, 2)}, "", ""},
		{"stop and release all", []heard{order("r1", true, 1), order("", false, 2)}, messages.CodeStopped, ""},
		{"a late stop", []heard{order("r1", true, 1), order("r1", false, 3), order("r1", true, 2)}, "", ""},
		{"a late release", []heard{order("r1", true, 3), order("r1", false, 2)}, messages.CodeStopped, ""},
		{"a late release of all", []heard{order("", true, 3), order("", false, 2)}, messages.CodeStopped, ""},
		{"twice", []heard{order("r1", true, 1), order("r1", true, 1)}, messages.CodeStopped, ""},
		{"not saved", []heard{order("", true, 0)}, messages.CodeStopped, ""},
		{"not saved, then released", []heard{order("", true, 0), order("r1", false, 1)}, "", ""},
		{"not saved, then all released", []heard{order("", true, 0), order("", false, 1)}, "", ""},
		{"a release that was not saved", []heard{order("", true, 1), order("", false, 0)}, messages.CodeStopped, "a release has to be saved before it is sent"},
		{"for another robot", []heard{order("r2", true, 1)}, "", "the order is for robot r2"},
	} {
		m := wellLinked(0)
		m.Read(nil, nil)
		var fx Effects
		for _, o := range s.orders {
			fx = m.Hear(o)
		}
		if got := code(m.Verdict(), bound); got != s.code || fx.Refuse != s.refuse {
			t.Errorf("%s: code %q, refused %q; want %q, %q", s.name, got, fx.Refuse, s.code, s.refuse)
		}
		if code(m.Verdict(), goesOn) != s.code {
			t.Errorf("%s: an order is for all tasks alike", s.name)
		}
		if stopped := s.code == messages.CodeStopped; len(s.orders) > 0 && stopped && fx.Refuse == "" && fx.Cancel != Every {
			t.Errorf("%s: what runs goes on", s.name)
		}
	}
}

func TestUnknownUntilRead(t *testing.T) {
	m := New("r1", 0)
	m.Read(nil, nil)
	if got := code(m.Verdict(), bound); got != messages.CodeUnavailable {
		t.Fatalf("before the link was measured: %q", got)
	}
	m = wellLinked(0)
	if got := code(m.Verdict(), bound); got != messages.CodeUnavailable {
		t.Fatalf("before anything was read: %q", got)
	}
	stop := order("", true, 5)
	if fx := m.Read(nil, &stop); fx.Cancel != Every || !fx.Save {
		t.Fatalf("a stop that was read: %+v", fx)
	}
	release := order("", false, 6)
	m.Read(nil, &release)
	if got := code(m.Verdict(), bound); got != "" {
		t.Fatalf("a release that was read: %q", got)
	}
	if fx := m.Unknown(); !fx.Read || code(m.Verdict(), bound) != messages.CodeUnavailable {
		t.Fatal("after the connection was lost nothing is known")
	}
	if fx := m.Read(nil, &release); fx != (Effects{}) || code(m.Verdict(), bound) != "" {
		t.Fatalf("the same again: %+v", fx)
	}
}

func TestRestore(t *testing.T) {
	first := New("r1", 0)
	first.Read(nil, nil)
	first.Hear(order("r1", true, 3))
	first.Hear(order("", true, 0))
	first.held.Link = messages.Hold{On: true, Fence: at(3), Reason: "no answer"}
	second := New("r1", 0)
	if fx := second.Restore(first.Held()); fx.Cancel != Every || second.Held() != first.Held() {
		t.Fatalf("%+v, held %+v", fx, second.Held())
	}
	// What was read and what was saved are told apart by the fence, not by who is first.
	release := order("r1", false, 4)
	second.Read(&release, nil)
	if got := second.Verdict(); got.Orders != "stopped: r" || got.Link == "" {
		t.Fatalf("a release that nobody heard ended what began here: %+v", got)
	}
	second.Hear(order("r1", false, 5))
	if why := second.Verdict().Why(); why != "" {
		t.Fatalf("released and %s", why)
	}
	third := New("r1", 0)
	third.Distrust("state file: not JSON")
	third.Read(nil, nil)
	if got := third.Verdict().Why(); got != "stopped: state file: not JSON" {
		t.Fatal(got)
	}
}

// script drives the watch: every PingEvery a ping is sent, and answered after rtt while
// the link carries.
type script struct {
	m       *Machine
	now     time.Time
	sent    time.Time
	pending []time.Time
	fx      []Effects
	armed   bool
}

func newScript(reEngage time.Duration) *script {
	s := &script{m: New("r1", reEngage), now: time.Unix(1000, 0), armed: true}
	s.m.Read(nil, nil)
	return s
}

// run lets d pass and returns how long it took until the link was lost; d where not.
func (s *script) run(d time.Duration, carries bool, rtt time.Duration) time.Duration {
	start := s.now
	lostAfter := d
	for ; s.now.Sub(start) < d; s.now = s.now.Add(TickEvery) {
		if s.now.Sub(s.sent) >= PingEvery {
			s.sent = s.now
			s.pending = append(s.pending, s.now)
		}
		for carries && len(s.pending) > 0 && s.now.Sub(s.pending[0]) >= rtt {
			if fx := s.m.Pong(s.now, s.pending[0]); fx.Read {
				s.m.Read(nil, nil)
			}
			s.pending = s.pending[1:]
		}
		was := s.m.Lost()
		if fx := s.m.Tick(s.now, s.armed); fx != (Effects{}) {
			s.fx = append(s.fx, fx)
		}
		if s.m.Lost() && !was && lostAfter == d {
			lostAfter = s.now.Sub(start)
		}
	}
	return lostAfter
}

func TestLinkLostInTime(t *testing.T) {
	for offset := time.Duration(0); offset < PingEvery; offset += 10 * time.Millisecond {
		for _, rtt := range []time.Duration{0, 40 * time.Millisecond, 150 * time.Millisecond} {
			s := newScript(0)
			if took := s.run(2*time.Second+offset, true, rtt); took != 2*time.Second+offset {
				t.Fatalf("lost after %v although every ping is answered after %v", took, rtt)
			}
			took := s.run(time.Second, false, 0)
			if took < Silence-PingEvery-rtt-TickEvery || took > Silence+TickEvery {
				t.Fatalf("cut %v after a ping, round trip %v: lost after %v", offset, rtt, took)
			}
			if len(s.fx) != 1 || s.fx[0] != (Effects{Cancel: Bound, Hooks: true, Save: true}) {
				t.Fatalf("effects %+v", s.fx)
			}
			if code(s.m.Verdict(), bound) != messages.CodeStopped || code(s.m.Verdict(), goesOn) != messages.CodeUnavailable {
				t.Fatalf("%+v", s.m.Verdict())
			}
		}
	}
}

func TestLinkStaysLatched(t *testing.T) {
	s := newScript(0)
	s.run(time.Second, true, 0)
	s.run(time.Second, false, 0)
	if fx := s.m.Hear(order("r1", false, 1)); fx.Refuse == "" {
		t.Fatal("a release was taken while the link is lost")
	}
	for range 5 {
		s.run(time.Hour/60, true, 0)
		s.run(time.Second, false, 0)
	}
	s.run(time.Minute, true, 0)
	if code(s.m.Verdict(), bound) != messages.CodeStopped || code(s.m.Verdict(), goesOn) != "" {
		t.Fatalf("a link that is well again engaged the robot: %+v", s.m.Verdict())
	}
	if len(s.fx) != 1 {
		t.Fatalf("the hooks ran for every loss: %+v", s.fx)
	}
	s.m.Hear(order("r1", false, 1))
	if code(s.m.Verdict(), bound) != "" {
		t.Fatal("released and still stopped")
	}
	s.run(time.Second, false, 0)
	s.run(time.Second, true, 0)
	// The release of before the second loss comes again.
	s.m.Hear(order("r1", false, 1))
	if code(s.m.Verdict(), bound) != messages.CodeStopped || len(s.fx) != 2 {
		t.Fatalf("an old release ended a new loss: %+v, effects %+v", s.m.Verdict(), s.fx)
	}
}

func TestReEngage(t *testing.T) {
	s := newScript(LeastReEngage)
	s.run(time.Second, true, 0)
	for range 5 { // it flaps
		s.run(time.Second, false, 0)
		s.run(LeastReEngage-time.Second/2, true, 0)
		if code(s.m.Verdict(), bound) != messages.CodeStopped {
			t.Fatal("a flapping link engaged the robot")
		}
	}
	s.run(time.Second, true, 0)
	if code(s.m.Verdict(), bound) != "" {
		t.Fatalf("the link was well for long enough: %+v", s.m.Verdict())
	}
}

func TestNotArmed(t *testing.T) {
	s := newScript(0)
	s.armed = false
	s.run(time.Second, true, 0)
	s.run(time.Second, false, 0)
	if len(s.fx) != 0 || s.m.Verdict().Known {
		t.Fatalf("effects %+v, %+v", s.fx, s.m.Verdict())
	}
	s.armed = true // a task was placed meanwhile
	s.run(100*time.Millisecond, false, 0)
	if len(s.fx) != 1 || !s.fx[0].Hooks {
		t.Fatalf("a task that came while the link was lost is not bound by it: %+v", s.fx)
	}
}

// A machine that stood still must not take the answers that it did not read for a lost
// link; and one that stands still again and again must notice a lost one all the same.
func TestSleptOver(t *testing.T) {
	s := newScript(0)
	s.run(time.Second, true, 0)
	s.now = s.now.Add(20 * time.Second)
	if took := s.run(time.Second, true, 20*time.Millisecond); took != time.Second || len(s.fx) != 0 {
		t.Fatalf("the link was lost %v after a sleep: %+v", took, s.fx)
	}
	begun := s.now
	for !s.m.Lost() {
		s.run(TickEvery, false, 0)
		s.now = s.now.Add(300 * time.Millisecond)
		if s.now.Sub(begun) > 3*time.Second {
			t.Fatal("a busy machine never notices")
		}
	}
}

// A stop without a number that comes while a release is being carried out wins, however
// often that release is sent again; so does a lost link.
func TestRepeatedRelease(t *testing.T) {
	m := wellLinked(0)
	m.Read(nil, nil)
	m.Hear(order("r1", true, 1))
	release := order("r1", false, 2)
	m.Comes(release) // the agent waits for its data connection now
	m.Hear(order("", true, 0))
	m.Hear(release)
	if got := code(m.Verdict(), bound); got != messages.CodeStopped {
		t.Fatalf("a release of before it ended a stop: %q", got)
	}
	newer := order("r1", false, 3)
	m.Comes(newer)
	m.Hear(order("r1", true, 0)) // repeated, too
	m.Hear(newer)
	if got := code(m.Verdict(), bound); got != messages.CodeStopped {
		t.Fatalf("a release of before its repetition ended a stop: %q", got)
	}
	m.Hear(order("", false, 4))
	if got := code(m.Verdict(), bound); got != "" {
		t.Fatalf("released: %q", got)
	}
	m.Comes(order("r1", false, 5))
	m.Tick(time.Unix(1010, 0), true)
	m.Tick(time.Unix(1010, 0).Add(2*PingEvery), true)
	m.Pong(time.Unix(1011, 0), time.Unix(1011, 0))
	m.Read(nil, nil)
	m.Hear(order("r1", false, 5))
	if got := code(m.Verdict(), bound); got != messages.CodeStopped {
		t.Fatalf("a release of before it ended a lost link: %q", got)
	}
}

// The bucket was lost, and made again after the server's clock had been put back: its
// orders have numbers that look older, and count all the same.
func TestBucketOfAnEarlierTime(t *testing.T) {
	of := func(epoch int64, rev uint64, stop bool) messages.StopOrder {
		return messages.StopOrder{Agent: "r1", Stop: stop, Fence: messages.Fence{Epoch: epoch, Revision: rev}}
	}
	for _, stopped := range []bool{false, true} {
		m := wellLinked(0)
		m.Read(nil, nil)
		m.Hear(of(2000, 7, true))
		if !stopped {
			m.Hear(of(2000, 8, false))
		}
		stop, release := of(1000, 1, true), of(1000, 2, false)
		if fx := m.Hear(stop); fx.Cancel != Every || !fx.Read || code(m.Verdict(), bound) != messages.CodeStopped {
			t.Fatalf("a stop was not heard: %+v, %+v", fx, m.Verdict())
		}
		if fx := m.Hear(release); fx.Refuse == "" || !fx.Read {
			t.Fatalf("a release that may be old was taken: %+v", fx)
		}
		m.Bucket(1000)
		m.Read(&stop, nil)
		if code(m.Verdict(), bound) != messages.CodeStopped {
			t.Fatal("the new bucket released the robot")
		}
		if fx := m.Hear(release); fx.Refuse != "" || code(m.Verdict(), bound) != "" {
			t.Fatalf("not released: %+v, %+v", fx, m.Verdict())
		}
		if fx := m.Bucket(1000); fx.Save {
			t.Fatal("the same bucket changes something")
		}
	}
}

// What a full disk has kept out of the state file stands in the bucket.
func TestRecover(t *testing.T) {
	shown := messages.Latch{Agent: "r1", Own: messages.Hold{Fence: at(3)}, Link: messages.Hold{On: true, Fence: at(3), Reason: "no answer"}}
	for _, s := range []struct {
		file messages.Fence // its newest order
		link bool
	}{{messages.Fence{}, true}, {at(3), true}, {at(4), false}} {
		m := New("r1", 0)
		m.Restore(messages.Latch{Agent: "r1", Own: messages.Hold{Fence: s.file}})
		m.Recover(shown)
		if m.Held().Link.On != s.link {
			t.Errorf("file of %v: link lost %v, want %v", s.file, m.Held().Link.On, s.link)
		}
	}
}

func TestReleases(t *testing.T) {
	m := wellLinked(0)
	m.Hear(order("r1", true, 2))
	older, newer, all := order("r1", false, 1), order("r1", false, 3), order("", false, 4)
	if m.Releases(&older, &all) || !m.Releases(&newer, nil) || m.Verdict().Orders == "" {
		t.Error("what reading would do is told wrongly, or done")
	}
	m.Hear(order("", true, 0))
	if m.Releases(&newer, nil) {
		t.Error("what was read ended a stop without a number")
	}
}
