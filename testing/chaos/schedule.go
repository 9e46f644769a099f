package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// kind is what is done to a target.
type kind string

const (
	killIt    kind = "kill"    // SIGKILL; started again after a while
	restartIt kind = "restart" // SIGTERM; started again when it has ended
	freezeIt  kind = "freeze"  // SIGSTOP, and SIGCONT after a while
	stallIt   kind = "stall"   // its link carries nothing and tells nobody; what waits in it comes afterwards
	severIt   kind = "sever"   // its connections are closed and it gets no new ones
)

// lane is a sequence of faults of which one is made at a time. Lanes run side by side.
type lane string

const (
	serverLane lane = "servers" // at most one server is down
	agentLane  lane = "agents"
	otherLane  lane = "others" // coordinators, routers, clients
)

// fault is one entry of the schedule.
type fault struct {
	Lane   lane          `json:"lane"`
	Kind   kind          `json:"kind"`
	Target string        `json:"target"`
	At     time.Duration `json:"at"` // from the beginning; not before the one before it is over
	For    time.Duration `json:"for"`
}

func (f fault) String() string {
	return fmt.Sprintf("%5.1f s %s %s for %.1f s", f.At.Seconds(), f.Kind, f.Target, f.For.Seconds())
}

// target is what a fault can befall, with the kinds that may. What must not befall whom:
//
//   - A server is not frozen and not cut off: a hung server is not among the faults that
//     fleetbus promises to ride out at this speed, and a cut between servers is a matter
//     of Raft's.
//   - The links of who asks are severed, not stalled: time in a caller's own socket does
//     not count against its deadline (ARCHITECTURE.md), so an action may rightly come
//     late out of there.
type target struct {
	lane  lane
	names []string
	kinds []kind
}

// span is how long a kind of fault lasts: longest is past the point at which both ends
// have noticed (pings of 2 s, two of which may be missed; three missed heartbeats).
var span = map[kind][2]time.Duration{
	killIt:    {200 * time.Millisecond, 3 * time.Second},
	restartIt: {100 * time.Millisecond, time.Second},
	freezeIt:  {200 * time.Millisecond, 6 * time.Second},
	stallIt:   {200 * time.Millisecond, 6 * time.Second},
	severIt:   {200 * time.Millisecond, 3 * time.Second},
}

// gap is the quiet between two faults of a lane. That between servers is short: what
// counts there is the wait until all replicas are current, which comes on top of it.
var gap = map[lane][2]time.Duration{
	serverLane: {time.Second, 4 * time.Second},
	agentLane:  {500 * time.Millisecond, 4 * time.Second},
	otherLane:  {500 * time.Millisecond, 5 * time.Second},
}

// calm is how long all goes well at the beginning.
const calm = 2 * time.Second

// schedule makes the faults of a run: equal seeds give equal faults. Each lane deals from
// a pack with every kind of fault for every kind of target, so that all of them come, in
// an order that the seed chooses.
func schedule(seed uint64, length time.Duration, targets []target) map[lane][]fault {
	out := make(map[lane][]fault)
	for i, l := range []lane{serverLane, agentLane, otherLane} {
		// A generator of its own for each lane: a target more in one leaves the others as
		// they were.
		r := rand.New(rand.NewPCG(seed, uint64(i)+1))
		type card struct {
			kind  kind
			names []string
		}
		var pack, left []card
		for _, t := range targets {
			for _, k := range t.kinds {
				if t.lane == l {
					pack = append(pack, card{k, t.names})
				}
			}
		}
		if len(pack) == 0 {
			continue
		}
		between := func(b [2]time.Duration) time.Duration {
			return (b[0] + time.Duration(r.Int64N(int64(b[1]-b[0])))).Round(time.Millisecond)
		}
		for at := calm + between(gap[l]); at < length; {
			if len(left) == 0 {
				left = slices.Clone(pack)
				r.Shuffle(len(left), func(i, k int) { left[i], left[k] = left[k], left[i] })
			}
			c := left[0]
			left = left[1:]
			f := fault{Lane: l, Kind: c.kind, Target: c.names[r.IntN(len(c.names))], At: at, For: between(span[c.kind])}
			out[l] = append(out[l], f)
			at += f.For + between(gap[l])
		}
	}
	return out
}
