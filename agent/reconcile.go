package agent

import (
	"reflect"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// held is what reconcile must know of a replica that is here.
type held struct {
	placed   messages.PlacedReplica
	stopping bool // it was told to stop
	ended    bool // it has stopped
}

// deed is what is to be done to one replica.
type deed string

const (
	deedStart  deed = "start"  // open it
	deedRank   deed = "rank"   // pull at another rank from now on
	deedStop   deed = "stop"   // take no more, finish, close
	deedForget deed = "forget" // it has stopped and nobody asks for it
)

type step struct {
	deed    deed
	id      string
	replica messages.PlacedReplica // as the document has it; for start and rank
}

// reconcile returns what leads from the replicas that are here to those that the
// document wants, in the order of their ids. A replica whose service changed is
// stopped; it is started again when reconcile is called after it has ended. It is pure:
// equal arguments give equal steps, and when the steps are done and the stopped ones
// have ended, the next call returns only what those made possible.
func reconcile(have map[string]held, want []messages.PlacedReplica) []step {
	var steps []step
	wanted := make(map[string]bool, len(want))
	for _, w := range want {
		wanted[w.ID] = true
		h, here := have[w.ID]
		switch {
		case w.Drain && here && !h.stopping:
			steps = append(steps, step{deed: deedStop, id: w.ID})
		case w.Drain: // it stops or has stopped, and the document may go on naming it
		case !here, h.ended:
			steps = append(steps, step{deedStart, w.ID, w})
		case h.stopping: // started again when it has ended
		case !sameService(h.placed.Task, w.Task):
			steps = append(steps, step{deed: deedStop, id: w.ID})
		case h.placed.Rank != w.Rank:
			steps = append(steps, step{deedRank, w.ID, w})
		}
	}
	for id, h := range have {
		switch {
		case wanted[id]:
		case h.ended:
			steps = append(steps, step{deed: deedForget, id: id})
		case !h.stopping:
			steps = append(steps, step{deed: deedStop, id: id})
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return strings.Compare(a.id, b.id) })
	return steps
}

// sameService reports whether a replica that was opened for a also serves b: whether
// they differ only in what concerns the planner.
func sameService(a, b messages.Task) bool { return reflect.DeepEqual(a.Service(), b.Service()) }

// handedOver reports whether a document leaves the agent nothing to serve.
func handedOver(doc *messages.Placement) bool {
	if doc == nil {
		return true
	}
	for _, r := range doc.Replicas {
		if !r.Drain {
			return false
		}
	}
	return true
}
