package router

import "time"

// largeBody is from which size on a body may be what keeps our own connection busy: on
// 10 Mbit/s 32 kB take 26 ms.
const largeBody = 32 << 10

// hold reports whether a timer of a request must not count yet, and sets it again. A
// large body on its way through a narrow uplink delays the stream's confirmation for as
// long as it takes (301 kB at 10 Mbit/s: 241 ms); to take that for a stream that does not
// answer would send the body a second time, and make everything later still. The deadline
// is never held.
func (f *flight) hold(now time.Time) bool {
	if len(f.body) < largeBody || !now.Before(f.until) {
		return false
	}
	if f.alarm.IsZero() || now.Before(f.alarm) {
		return false // a timer of the request that this flight had before; its own is still set
	}
	behind := f.c.prober.behind()
	if !behind && !f.lags {
		return false
	}
	// When the ping behind the body was answered, what the body was for has one more round:
	// its answer follows that of the ping.
	f.lags = behind
	wait := min(probeEvery, f.until.Sub(now))
	f.alarm = now.Add(wait)
	f.c.alarms.Set(&f.bell, f.alarm)
	return true
}

// behind reports whether what we sent to the server two rounds ago has not reached it.
func (p *prober) behind() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.awake && p.round-p.pong.Load() >= 2
}
