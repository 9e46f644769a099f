package agent

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// What two calls cost each other is taken out of their times, call by call.
func TestCrowd(t *testing.T) {
	var c crowd
	at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
	a := c.enter(at(0))
	b := c.enter(at(10))
	if got := c.leave(at(30), a); got != 20*time.Millisecond { // 10 alone, half of 20
		t.Errorf("the first: %v", got)
	}
	d := c.enter(at(20)) // whose clock was read before it had to wait
	if got := c.leave(at(50), b); got != 20*time.Millisecond {
		t.Errorf("the second: %v", got)
	}
	if got := c.leave(at(60), d); got != 20*time.Millisecond {
		t.Errorf("the third: %v", got)
	}
	e := c.enter(at(1000)) // nothing ran meanwhile
	if got := c.leave(at(1007), e); got != 7*time.Millisecond {
		t.Errorf("after a rest: %v", got)
	}
}

// Requests of many lengths, in crowds of one to four: of a machine that is shared, of one with
// a core for each, and of one that is half so.
func TestSharingIsLearned(t *testing.T) {
	for name, power := range map[string]float64{"shared": 1, "a core for each": 0, "half": 0.5} {
		rng := rand.New(rand.NewPCG(7, 7))
		var s sharing
		for range 2000 {
			work := 10 * math.Exp(0.4*rng.NormFloat64())
			crowd := 1 + 3*rng.Float64()
			took := work * math.Pow(crowd, power)
			s.ended(time.Duration(took*1e6), time.Duration(took/crowd*1e6), 1000)
		}
		if want := 10 * math.Exp(0.08); math.Abs(s.alone-want) > 0.25*want {
			t.Errorf("%s: alone it takes %.3g ms, want %.3g", name, s.alone, want)
		}
		if math.Abs(s.kbit-8) > 1e-9 {
			t.Errorf("%s: %v kbit", name, s.kbit)
		}
	}
}

// A single time out of all proportion hardly counts, and one that lasts is believed.
func TestSharingOutlier(t *testing.T) {
	var s sharing
	for range 50 {
		s.ended(10*time.Millisecond, 10*time.Millisecond, 0)
	}
	s.ended(time.Minute, time.Minute, 0)
	if s.alone > 14 {
		t.Errorf("after one minute that was lost: %v ms", s.alone)
	}
	for range 60 {
		s.ended(100*time.Millisecond, 100*time.Millisecond, 0)
	}
	if s.alone < 90 {
		t.Errorf("it takes 100 ms for long: %v ms", s.alone)
	}
}
