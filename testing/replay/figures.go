package main

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// figures are what a run came to.
type figures struct {
	Requests    int
	Utilisation float64 // percent of the compute that is paid for
	Machines    float64 // percent of the machines on which something is placed
	Mean        float64 // ms; who was not answered in time counts with its deadline
	P50, P99    float64
	Cost        float64 // per hour
	Missed      float64 // percent that were not answered in time
	Refused     float64 // percent that were told so early; they are among those that missed
	Moves       int
	ByKind      [3]kindFigures
}

// kindFigures are those of one service.
type kindFigures struct {
	Mean, P99, Missed float64
	Tiers             map[messages.Tier]float64 // percent of the answers, by who gave them
}

func (w *world) figures(h *hour, m *meter) *figures {
	out := &figures{Requests: len(h.requests), Moves: w.control.moves}
	var all []time.Duration
	var kind [3][]time.Duration
	var missed [3]int
	refusals := 0
	for i, f := range w.ledger.fates {
		k := h.requests[i].kind
		took := f.at - f.from
		if f.outcome != answered {
			took = kinds[k].deadline
			missed[k]++
		}
		if f.outcome == refused {
			refusals++
		}
		all = append(all, took)
		kind[k] = append(kind[k], took)
	}
	out.Mean, out.P50, out.P99 = spread(all)
	out.Missed = percent(missed[0]+missed[1]+missed[2], len(all))
	out.Refused = percent(refusals, len(all))
	work := 0.0
	var by [3]map[messages.Tier]int
	for k := range by {
		by[k] = make(map[messages.Tier]int)
	}
	for _, r := range w.ledger.runs {
		if r.how == finished {
			q := h.requests[r.request]
			work += q.work
			by[q.kind][w.byID[r.env].env.Tier]++
		}
	}
	for k := range kinds {
		f := &out.ByKind[k]
		f.Mean, _, f.P99 = spread(kind[k])
		f.Missed = percent(missed[k], len(kind[k]))
		f.Tiers = make(map[messages.Tier]float64)
		n := by[k][messages.Cloud] + by[k][messages.Edge] + by[k][messages.Robot]
		for t, v := range by[k] {
			f.Tiers[t] = percent(v, n)
		}
	}
	if m.held > 0 {
		out.Utilisation, out.Machines = 100*work/1000/m.held, 100*work/1000/m.machine
	}
	out.Cost = m.paid / h.last.Hours()
	return out
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }

// spread returns mean, median and 99th percentile, ms; it sorts the list.
func spread(list []time.Duration) (mean, p50, p99 float64) {
	if len(list) == 0 {
		return 0, 0, 0
	}
	slices.Sort(list)
	var sum time.Duration // whole numbers: 200,000 requests of a second are far from the end of an int64
	for _, d := range list {
		sum += d
	}
	at := func(p float64) float64 { return ms(list[min(len(list)-1, int(p*float64(len(list))))]) }
	return ms(sum) / float64(len(list)), at(0.5), at(0.99)
}
