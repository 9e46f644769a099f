package route

import (
	"cmp"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// Candidate is a replica that may be asked.
type Candidate struct {
	Agent string
	Site  string
	Inc   messages.Incarnation
}

// Load is what the asking side itself knows of a replica. It is its own count, not the
// last heartbeat's: sending to whoever looked least loaded a second ago is the worst
// policy there is.
type Load struct {
	InFlight int  // own requests that are there now
	Down     bool // it was silent or away a moment ago
}

// Site returns the site in whose queue a request of the task belongs: own where a ready
// replica is, else that of the best ready replica. It is "" where no replica is ready.
func Site(r *messages.TaskRoute, own string) string {
	best := ""
	for i := range r.Replicas {
		switch e := &r.Replicas[i]; {
		case e.State != messages.ReplicaReady:
		case e.Site == own:
			return own
		case best == "":
			best = e.Site // sorted by rank: the first one is the best
		}
	}
	return best
}

// Candidates orders the ready replicas of a task for sending straight to them: those
// that are up before those that were not a moment ago, those with a free slot before
// the full ones, the own site before others, then by rank. Of the equal ones at the top
// two are taken at random and the one with fewer own requests goes first; random is any
// number, the caller's dice.
func Candidates(r *messages.TaskRoute, own string, load func(*messages.Route) Load, random uint64) []Candidate {
	type entry struct {
		*messages.Route
		Load
		class int
	}
	list := make([]entry, 0, len(r.Replicas))
	for i := range r.Replicas {
		e := entry{Route: &r.Replicas[i]}
		if e.State != messages.ReplicaReady {
			continue
		}
		e.Load = load(e.Route)
		e.class = e.Rank
		if e.Site != own {
			e.class += 1 << 8
		}
		if e.InFlight >= r.Task.Slots() {
			e.class += 1 << 9
		}
		if e.Down {
			e.class += 1 << 10
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.class, b.class) })
	top := 0
	for top < len(list) && list[top].class == list[0].class {
		top++
	}
	if top > 1 {
		n := uint64(top)
		i := random % n
		j := (i + 1 + (random/n)%(n-1)) % n // never i
		if list[j].InFlight < list[i].InFlight {
			i, j = j, i
		}
		first, second := list[i], list[j]
		rest := append(list[:0:0], list[:top]...)
		list[0], list[1] = first, second
		at := 2
		for k, e := range rest {
			if uint64(k) != i && uint64(k) != j {
				list[at] = e
				at++
			}
		}
	}
	out := make([]Candidate, len(list))
	for i, e := range list {
		out[i] = Candidate{Agent: e.Agent, Site: e.Site, Inc: e.Inc}
	}
	return out
}
