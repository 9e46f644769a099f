package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// check returns the first rule that a run broke:
//
//   - Every request of the hour arrived, once, and ended in exactly one outcome.
//   - Whatever was answered was executed to its end before, and answered in time.
//   - No replica ever served more at once than it has slots for.
//   - No machine ever did more work than it had compute for, in any second, ten seconds or
//     minute, nor for any single request: reckoned from what it declares and the troubles it
//     had, not from what the run believed.
//
// What machines say themselves is compared by checkBoxes.
func (l *ledger) check(envs []messages.Environment, troubles []trouble, end time.Duration) error {
	if err := l.checkFates(); err != nil {
		return err
	}
	byEnv, byReplica := make(map[string][]record), make(map[string][]record)
	for _, r := range l.runs {
		if r.how == running {
			r.to = end
		}
		byEnv[r.env] = append(byEnv[r.env], r)
		byReplica[r.env+" "+r.replica] = append(byReplica[r.env+" "+r.replica], r)
	}
	for _, e := range envs {
		if err := l.checkWork(byEnv[e.ID], newSupply(e, troubles), end); err != nil {
			return err
		}
		delete(byEnv, e.ID)
	}
	for id := range byEnv {
		return fmt.Errorf("%s is no machine of the fleet, and executed requests", id)
	}
	return checkSlots(byReplica)
}

func (l *ledger) checkFates() error {
	done := make(map[int]time.Duration) // when a request was first executed to its end
	for _, r := range l.runs {
		if at, ok := done[r.request]; r.how == finished && (!ok || r.to < at) {
			done[r.request] = r.to
		}
	}
	for i, f := range l.fates {
		q := l.hour.requests[i]
		at, executed := done[i]
		switch {
		case !f.arrived:
			return fmt.Errorf("request %d never arrived", i)
		case f.from != warmUp+q.at:
			return fmt.Errorf("request %d arrived at %v instead of %v", i, f.from-warmUp, q.at)
		case f.ends != 1:
			return fmt.Errorf("request %d ended %d times", i, f.ends)
		case f.outcome != answered:
		case f.at-f.from >= kinds[q.kind].deadline:
			return fmt.Errorf("request %d counts as answered, after %v of %v", i, f.at-f.from, kinds[q.kind].deadline)
		case !executed || at > f.at:
			return fmt.Errorf("request %d was answered, and nobody had executed it", i)
		}
	}
	return nil
}

// checkSlots looks for replicas that served too many at once.
func checkSlots(byReplica map[string][]record) error {
	type change struct {
		at time.Duration
		by int
	}
	for name, runs := range byReplica {
		var changes []change
		for _, r := range runs {
			changes = append(changes, change{r.from, 1}, change{r.to, -1})
		}
		slices.SortFunc(changes, func(a, b change) int { return cmp.Or(cmp.Compare(a.at, b.at), a.by-b.by) })
		n := 0
		for _, c := range changes {
			if n += c.by; n > runs[0].slots {
				return fmt.Errorf("%s served %d requests at once at %v; it has %d slots", name, n, c.at-warmUp, runs[0].slots)
			}
		}
	}
	return nil
}

// checkWork looks for work that a machine had no compute for. Only what was executed to its
// end counts, in windows that it lies within: less than was done, and never more.
func (l *ledger) checkWork(runs []record, s supply, end time.Duration) error {
	done := slices.DeleteFunc(slices.Clone(runs), func(r record) bool { return r.how != finished })
	for _, r := range done {
		if need, had := l.hour.requests[r.request].work, s.until(r.to)-s.until(r.from); need > had*(1+1e-6)+0.1 {
			return fmt.Errorf("%s did %.1f GFLOP for request %d between %v and %v, and had %.1f", r.env, need, r.request, r.from-warmUp, r.to-warmUp, had)
		}
	}
	for _, window := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		sums := make([]float64, end/window+1)
		for _, r := range done {
			if i := r.from / window; i == r.to/window {
				sums[i] += l.hour.requests[r.request].work
			}
		}
		for i, need := range sums {
			from := time.Duration(i) * window
			if had := s.until(from+window) - s.until(from); need > had*(1+1e-6)+0.1 {
				return fmt.Errorf("%s did %.1f GFLOP between %v and %v, and had %.1f", runs[0].env, need, from-warmUp, from+window-warmUp, had)
			}
		}
	}
	return nil
}

// supply is the compute that a machine really has, over time.
type supply struct {
	declared float64
	troubles []trouble
}

func newSupply(e messages.Environment, all []trouble) supply {
	return supply{e.Capacity.Compute, slices.DeleteFunc(slices.Clone(all), func(t trouble) bool { return t.env != e.ID })}
}

// until is what it could have done since the beginning, GFLOP. Troubles of one machine do
// not overlap.
func (s supply) until(at time.Duration) float64 {
	sum := ms(at) * s.declared
	for _, t := range s.troubles {
		if span := min(at, warmUp+t.to) - warmUp - t.from; span > 0 {
			has := s.declared - t.foreign
			switch {
			case t.off:
				has = 0
			case t.slow > 0:
				has = s.declared * t.slow
			}
			sum -= ms(span) * (s.declared - has)
		}
	}
	return sum
}

// checkBoxes compares what machines say that they did with what was asked of them: no less
// than the work that was finished, no more than the work that was begun.
func (l *ledger) checkBoxes(agents []*agent) error {
	finishedWork, begunWork := make(map[string]float64), make(map[string]float64)
	for _, r := range l.runs {
		work := l.hour.requests[r.request].work
		begunWork[r.env] += work
		if r.how == finished {
			finishedWork[r.env] += work
		}
	}
	for _, a := range agents {
		least, most, did := finishedWork[a.env.ID], begunWork[a.env.ID], a.box.served
		if slack := 1e-6*most + 1; did < least-slack || did > most+slack {
			return fmt.Errorf("%s did %.1f GFLOP; %.1f were begun there, and %.1f finished", a.env.ID, did, most, least)
		}
	}
	return nil
}
