package main

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestScheduleIsTheSeeds(t *testing.T) {
	a, b, c := schedule(7, fullLength, cast()), schedule(7, fullLength, cast()), schedule(8, fullLength, cast())
	if !reflect.DeepEqual(a, b) {
		t.Error("equal seeds give different faults")
	}
	if reflect.DeepEqual(a, c) {
		t.Error("another seed gives the same faults")
	}
	// A longer run begins like a shorter one.
	for l, faults := range schedule(7, fullLength/2, cast()) {
		if !reflect.DeepEqual(faults, a[l][:len(faults)]) {
			t.Errorf("%s: half a run is not the first half of a run", l)
		}
	}
}

// Whatever the seed: enough faults, of every kind, one at a time in each lane.
func TestScheduleHoldsWhatIsPromised(t *testing.T) {
	for seed := range uint64(200) {
		kinds := make(map[string]bool)
		n := 0
		for l, faults := range schedule(seed, fullLength, cast()) {
			end := calm
			for _, f := range faults {
				if f.At < end+gap[l][0] || f.At >= fullLength || f.For < span[f.Kind][0] || f.For > span[f.Kind][1] {
					t.Fatalf("seed %d: %v comes too soon, too late or lasts too long", seed, f)
				}
				end = f.At + f.For
				kinds[string(f.Kind)] = true
				if l != serverLane { // that one waits for the servers besides
					n++
				}
				i := slices.IndexFunc(cast(), func(c target) bool {
					return c.lane == l && slices.Contains(c.names, f.Target) && slices.Contains(c.kinds, f.Kind)
				})
				if i < 0 {
					t.Fatalf("seed %d: %v befalls whom it must not", seed, f)
				}
			}
		}
		if n < leastFaults || len(kinds) != len(span) {
			t.Errorf("seed %d: %d faults beside those of servers, of %d kinds", seed, n, len(kinds))
		}
	}
}

func TestShortRunsHaveFewerFaults(t *testing.T) {
	if n := len(schedule(1, shortest, cast())[serverLane]); n == 0 || n > 10 {
		t.Errorf("%d faults of servers in %v", n, shortest)
	}
	if len(schedule(1, calm, cast())) != 0 {
		t.Error("faults while all is to go well")
	}
	if got := schedule(1, time.Minute, nil); len(got) != 0 {
		t.Errorf("faults of nobody: %v", got)
	}
}
