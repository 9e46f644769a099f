package agent

import (
	"cmp"
	"math"
	"time"
)

// Weights of the smoothed figures that heartbeats carry. A latency follows a change
// within about ten requests; a rate within about five seconds, the time after which
// the coordinator acts on it.
//
// What the next request is expected to take, and by how much one differs from that, follow
// a drift within three requests, and a leap, by leapFactor or more, at once: something else
// runs on the machine, or does not any more. One that was cut off after such a leap would have
// taken longer still; cutFactor of it is taken for the usual time, and too much soon shows.
// What is expected is good for as long as expectGood after the last one.
//
// A request that takes overrunBy longer, and at least overrunLeast, than any did lately shows that
// the machine has become slow: what a pause now and then costs is no news, as long as it is no
// leap. Lately is some 200 requests, as longestWeight has it. How slow it is, the last time
// tells. Before there was one it is taken for slowGuess times as slow: too low a guess loses the
// request and all the time that is spent on it, too high a one has another begin it anew. And for slowMost times
// at most: one that takes longer is another kind of request, and says nothing of the next.
// Until a request has come to its end, or a second one has taken too long, that is a guess, which
// is good for guessGood: what was a pause of a garbage collector's is over by then, and it is
// as quick as before.
const (
	expectWeight = 0.3
	leapFactor   = 1.65
	cutFactor    = 1.3
	expectGood   = time.Second
	guessGood    = 100 * time.Millisecond

	overrunBy     = 0.05
	overrunLeast  = 2 * time.Millisecond // timers and the scheduler are late by as much
	longestWeight = 0.005
	slowGuess     = 3
	slowMost      = 4

	latencyWeight = 0.2
	rateTime      = 5 * time.Second
	rateLeast     = 500 * time.Millisecond // a rate over less time would be noise
)

// load is what one replica has served. It is pure and not safe for concurrent use.
type load struct {
	served  uint64
	latency float64 // ms, smoothed
	rate    float64 // per second, smoothed

	usual
	last   time.Time
	quick  float64 // ms that were expected before the machine became slow; 0: it is not
	slower float64 // by what factor it was, the last time; 0: it never was
	guess  bool    // that it is slow, and how much: no request has shown it to its end, or twice

	counted uint64 // served, when the rate was last reckoned
	at      time.Time
}

// usual is what requests take while the machine stays as it is, in ms.
type usual struct {
	expect  float64 // what the next one takes; follows changes sooner than latency
	spread  float64 // by how much one differs from that
	longest float64 // what one took at most lately
}

// times is what they would take on a machine that is so many times as slow.
func (u usual) times(by float64) usual { return usual{u.expect * by, u.spread * by, u.longest * by} }

// most is what one may take.
func (u usual) most() float64 { return u.expect + spreads*u.spread }

// begun counts a request.
func (l *load) begun() { l.served++ }

// ended takes a service time into what is known. cut says that the request did not come to
// its end, so it would have taken longer.
func (l *load) ended(took time.Duration, cut bool, now time.Time) {
	l.last = now
	ms := float64(took) / float64(time.Millisecond)
	if l.latency == 0 {
		l.latency = ms
	}
	l.latency += latencyWeight * (ms - l.latency)
	if cut {
		if ms > leapFactor*l.expect {
			l.guess = false
			l.slows(cutFactor * ms)
		}
		return
	}
	guess := l.guess
	l.guess = false
	switch {
	case l.expect > 0 && ms > leapFactor*l.expect:
		l.slows(ms)
	case l.expect == 0, guess, ms < l.expect/leapFactor:
		l.leap(ms)
	default:
		l.spread += expectWeight * (math.Abs(ms-l.expect) - l.spread)
		l.expect += expectWeight * (ms - l.expect)
		l.longest = max(ms, l.longest+longestWeight*(ms-l.longest))
	}
	if l.quick == 0 {
		return
	}
	if by := ms / l.quick; by > leapFactor {
		l.slower = min(by, slowMost)
	} else {
		l.quick = 0
	}
}

// slows takes a service time for the usual one of a machine that has become slow.
func (l *load) slows(ms float64) {
	if l.quick == 0 {
		l.quick = l.expect
	}
	l.leap(ms)
}

// overrun is after how much service a request shows that the machine has become slow; 0:
// nothing is known, or it is slow already.
func (l *load) overrun() time.Duration {
	u := l.usual
	switch {
	case l.expect == 0 || l.quick > 0 && !l.guess:
		return 0
	case l.guess:
		u = l.quickly()
	}
	least := float64(overrunLeast) / float64(time.Millisecond)
	return time.Duration((max(u.most(), u.longest) + max(overrunBy*u.expect, least)) * float64(time.Millisecond))
}

// ifSlow is what a request takes in all where the machine has become slow.
func (l *load) ifSlow() time.Duration {
	return time.Duration(l.slowTime() * float64(time.Millisecond))
}

func (l *load) slowTime() float64 {
	if l.guess {
		return l.expect
	}
	return l.expect * cmp.Or(l.slower, slowGuess)
}

// overran notes that a request that was begun at a time has shown that the machine has become
// slow. Of several that run at once each shows it; it has become slow once.
func (l *load) overran(begun, now time.Time) {
	switch {
	case l.quick == 0:
		// It would have taken at least that long, and may have been a pause: the next of the
		// same length is in doubt no more when a few were.
		l.longest = max(l.longest, min(float64(now.Sub(begun))/float64(time.Millisecond), leapFactor*l.expect))
		l.slows(l.slowTime())
		l.guess = true
	case begun.After(l.last):
		l.guess = false
	}
	l.last = now
}

// leap takes a service time for the usual one from now on; by how much others differ from
// it stays the same share.
func (l *load) leap(ms float64) {
	if l.expect > 0 {
		l.usual = l.times(ms / l.expect)
		return
	}
	l.usual = usual{expect: ms, longest: ms}
}

// spreads is how many mean deviations a request may take longer than is expected. Where all
// lengths within a range are as likely, that is the longest.
const spreads = 2

// hopeless reports whether a request that has left may take longer. Whatever is begun in
// vain keeps one waiting that could be answered. Who has served nothing for a while begins
// it all the same, to see whether that is still so.
func (l *load) hopeless(left time.Duration, now time.Time) bool {
	u := l.usual
	if l.guess && now.Sub(l.last) >= guessGood {
		u = l.quickly()
	}
	return now.Sub(l.last) < expectGood && float64(left)/float64(time.Millisecond) < u.most()
}

// quickly is what was usual before the machine seemed to become slow.
func (l *load) quickly() usual { return l.times(l.quick / l.expect) }

// measure brings the rate up to now and returns it.
func (l *load) measure(now time.Time) float64 {
	since := now.Sub(l.at)
	switch {
	case l.at.IsZero():
	case since < rateLeast:
		return l.rate
	default:
		current := float64(l.served-l.counted) / since.Seconds()
		weight := 1 - math.Exp(-since.Seconds()/rateTime.Seconds())
		l.rate += weight * (current - l.rate)
	}
	l.counted, l.at = l.served, now
	return l.rate
}

// wait is how long a caller who found no free slot should wait: about until one is
// free, but never nothing.
func (l *load) wait() time.Duration {
	return max(time.Millisecond, time.Duration(l.latency*float64(time.Millisecond)))
}
