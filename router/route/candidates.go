package route

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Candidate is a replica that may be asked.
type Candidate struct {
	Agent string
	Site  string
	Inc   messages.Incarnation
	Free  bool // it is up, has a slot as far as the asking side knows, and time enough
}

// Load is what the asking side itself knows of a replica. It is its own count, not the
// last heartbeat's: sending to whoever looked least loaded a second ago is the worst
// policy there is.
type Load struct {
	InFlight int           // own requests that are there now
	Latency  time.Duration // that its handler takes, as its replies said; 0: not known
	Late     bool          // it would not be done in time
	Down     bool          // it was silent or away a moment ago, or fails
}

// less reports whether a replica is likely done sooner with one more request. Slots are
// equal within a task; how much a machine can do shows in how long it takes.
func (l Load) less(other Load) bool {
	if l.Latency > 0 && other.Latency > 0 {
		return float64(l.InFlight+1)*float64(l.Latency) < float64(other.InFlight+1)*float64(other.Latency)
	}
	return l.InFlight < other.InFlight
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

// Sites returns the sites in whose queues a request of the task may be put, the best
// first: own where a ready replica is, then the others by the rank of their best one.
func Sites(r *messages.TaskRoute, own string) []string {
	return AppendSites(nil, r, own)
}

// AppendSites is Sites into memory of the caller's, which is empty.
func AppendSites(sites []string, r *messages.TaskRoute, own string) []string {
	for i := range r.Replicas {
		e := &r.Replicas[i]
		if e.State != messages.ReplicaReady || slices.Contains(sites, e.Site) {
			continue
		}
		if sites = append(sites, e.Site); e.Site == own {
			copy(sites[1:], sites)
			sites[0] = own
		}
	}
	return sites
}

// Slots returns how many requests the ready replicas of a site serve at once.
func Slots(r *messages.TaskRoute, site string) (n int) {
	for i := range r.Replicas {
		if e := &r.Replicas[i]; e.State == messages.ReplicaReady && e.Site == site {
			n += r.Task.Slots()
		}
	}
	return n
}

// Candidates orders the ready replicas of a task for sending straight to them: those
// that are up before those that were not a moment ago, those that will be in time before
// those that will not, those with a free slot before the full ones, the own site before
// others, then by rank. Of the equal ones at the top two are taken at random, and the one
// that is likely done sooner goes first: by own requests there, weighed with the latency
// of its replies. random is any number, the caller's dice.
func Candidates(r *messages.TaskRoute, own string, load func(*messages.Route) Load, random uint64) []Candidate {
	type entry struct {
		*messages.Route
		Load
		class int
	}
	var room [8]entry // most tasks have no more, and then nothing is allocated
	list := room[:0]
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
		if e.Late {
			e.class += 1 << 10
		}
		if e.Down {
			e.class += 1 << 11
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
		if list[j].less(list[i].Load) {
			i, j = j, i
		}
		first, second := list[i], list[j]
		var restRoom [8]entry
		rest := append(restRoom[:0], list[:top]...)
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
		out[i] = Candidate{Agent: e.Agent, Site: e.Site, Inc: e.Inc, Free: e.class < 1<<9}
	}
	return out
}

// Prefer puts an agent first, where it is among the candidates; with only there is nobody
// else. It changes list.
func Prefer(list []Candidate, agent string, only bool) []Candidate {
	i := slices.IndexFunc(list, func(c Candidate) bool { return c.Agent == agent })
	switch {
	case i < 0 && only:
		return nil
	case i < 0:
		return list
	case only:
		return list[i : i+1]
	}
	first := list[i]
	copy(list[1:i+1], list[:i])
	list[0] = first
	return list
}
