package main

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/chaos/check"
)

// The faults that can be planted into a run. The programs that ask and serve make them,
// not fleetbus; the checker must find every one.
const (
	plantTwice   = "twice"   // an executor runs an action twice
	plantLate    = "late"    // an executor runs an action after its time
	plantOrder   = "order"   // an executor runs an action that is far ahead of its turn
	plantStale   = "stale"   // the attempt after the one that was delivered had begun
	plantChanged = "changed" // an executor gets other bytes than were sent
	plantCrash   = "crash"   // an executor ends by itself
	plantLeak    = "leak"    // an executor keeps a goroutine and some memory
	plantLost    = "lost"    // a client is told that a job is stored which is not
	plantSilent  = "silent"  // a client never hears of a request again
	plantDouble  = "double"  // a client gets two answers
	plantForged  = "forged"  // a client gets an answer that nobody gave
	plantRefused = "refused" // a client is told that an action did not run which did
	plantError   = "error"   // a client gets an error that no fault explains
	plantWriters = "writers" // two clients believe that they wrote one revision

	plantMailLost  = "mail-lost"  // a receiver never gets a message
	plantMailTwice = "mail-twice" // a receiver gets it twice
	plantMailOrder = "mail-order" // a receiver gets it far ahead of its turn
	plantDigest    = "digest"     // an agent holds something else in the end

	plantAll = "all" // all but crash and leak
)

// plant is one of them.
type plant struct {
	roles []string       // whom it befalls
	class messages.Class // of which requests; "": of all
	every uint32         // of how many it befalls one
	rule  check.Rule     // by which it must be found; "": by the soak
}

var (
	serves = []string{roleAgent}
	asks   = []string{roleClient, roleDoor}
)

// Jobs are few, so every second one is befallen.
var plants = map[string]plant{
	plantTwice:   {serves, messages.Action, 25, check.ActedOnce},
	plantLate:    {serves, messages.Action, 25, check.InTime},
	plantOrder:   {serves, messages.Action, 25, check.InOrder},
	plantStale:   {serves, messages.Training, 2, check.Newest},
	plantChanged: {serves, messages.Inference, 25, check.Whole},
	plantCrash:   {serves, messages.Inference, 200, check.Alive},
	plantLeak:    {serves, "", 10, ""},
	plantLost:    {[]string{roleClient}, messages.Training, 2, check.Kept},
	plantSilent:  {asks, messages.Inference, 25, check.Ended},
	plantDouble:  {asks, messages.Inference, 25, check.EndedOnce},
	plantForged:  {asks, messages.Inference, 25, check.Real},
	plantRefused: {asks, messages.Action, 25, check.TrueRefusal},
	plantError:   {asks, messages.Action, 25, check.Expected},
	plantWriters: {[]string{roleClient}, check.Sync, 1, check.OneWriter},

	plantMailLost:  {serves, check.Message, 25, check.Kept},
	plantMailTwice: {serves, check.Message, 25, check.ActedOnce},
	plantMailOrder: {serves, check.Message, 25, check.InOrder},
	plantDigest:    {nil, "", 1, check.Kept},
}

// planting returns the plants of a name, of a list of names, or of plantAll.
func planting(names string) (list []string, err error) {
	if names == "" {
		return nil, nil
	}
	for _, n := range strings.Split(names, ",") {
		switch {
		case n == plantAll:
			for n := range plants {
				if n != plantCrash && n != plantLeak {
					list = append(list, n)
				}
			}
		case plants[n].every > 0:
			list = append(list, n)
		default:
			return nil, fmt.Errorf("--plant: found %q, allowed are %s and %s", n, strings.Join(slices.Sorted(maps.Keys(plants)), ", "), plantAll)
		}
	}
	return list, nil
}

// plantsOf returns those of a list that befall a role.
func plantsOf(role string, list []string) (own []string) {
	for _, n := range list {
		if slices.Contains(plants[n].roles, role) {
			own = append(own, n)
		}
	}
	return own
}

// hit reports whether a planted fault befalls a request: the same ones in every life and
// every attempt.
func (p part) hit(name string, class messages.Class, id string) bool {
	if len(p.Plants) == 0 || !slices.Contains(p.Plants, name) {
		return false
	}
	h := fnv.New32a()
	h.Write([]byte(name + id))
	pl := plants[name]
	return (pl.class == "" || pl.class == class) && h.Sum32()%pl.every == 0
}
