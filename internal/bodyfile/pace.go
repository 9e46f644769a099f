package bodyfile

import "time"

// Bounds of a download's pace.
//
//   - MostChunks is how many chunks of 128 KiB are asked for at once: 2 MiB, that is
//     100 MB/s over a round trip of 20 ms. It also bounds what a server has in its buffers
//     for one agent.
//   - Stall is how much longer a round trip may take than twice the fastest so far before a
//     download counts as standing in others' way: a tenth of the 250 ms after which a robot's
//     ping counts as lost, and more than what a good Wi-Fi varies by.
//   - mostPause bounds the wait between two questions of a download that gives way: it goes on
//     at 1 MB/s at least.
const (
	MostChunks = 16
	Stall      = 25 * time.Millisecond
	mostPause  = 100 * time.Millisecond
)

// Pace is how fast a download goes: it asks for Chunks at once and waits for Pause between
// two questions. The zero value is where every download begins: slowly.
type Pace struct {
	Chunks int
	Pause  time.Duration
	Best   time.Duration // the fastest round trip so far
}

// Next returns the pace after a round trip, measured on the connection beside the download,
// that took rtt. It gives way by halves and speeds up by steps, so that many downloads which
// share a server come to share it evenly, and leave it room for everybody else. It is pure.
func (p Pace) Next(rtt time.Duration) Pace {
	p.Chunks = max(p.Chunks, 1)
	if p.Best == 0 || rtt < p.Best {
		p.Best = rtt
	}
	switch {
	case rtt <= 2*p.Best+Stall:
		if p.Pause /= 2; p.Pause < time.Millisecond {
			p.Pause = 0
			p.Chunks = min(p.Chunks+1, MostChunks)
		}
	case p.Chunks > 1:
		p.Chunks /= 2
	default:
		p.Pause = min(max(2*p.Pause, 10*time.Millisecond), mostPause)
	}
	return p
}
