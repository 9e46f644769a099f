package sim

import (
	"flag"
	"fmt"
	"testing"
)

var (
	seedsFlag = flag.Int("sim.seeds", 6, "how many seeds are played, from 1 on")
	seedFlag  = flag.Uint64("sim.seed", 0, "play only this seed, and print what happens")
	stepsFlag = flag.Int("sim.steps", 60, "disturbances in one play")
	playFlag  = flag.String("sim.play", "", "play only this; \"\" means all")
)

// TestSeeds plays every story for many seeds. `make sim` plays 200 of them.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		for _, p := range plays {
			t.Run(fmt.Sprintf("%s/seed=%d", p.name, *seedFlag), func(t *testing.T) { check(t, p, *seedFlag, func(line string) { t.Log(line) }) })
		}
		return
	}
	for i := range *seedsFlag {
		seed := uint64(i + 1)
		for _, p := range plays {
			if large[p.name] && i%largeEvery != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/seed=%d", p.name, seed), func(t *testing.T) {
				t.Parallel()
				check(t, p, seed, nil)
			})
		}
	}
}

func check(t *testing.T, p play, seed uint64, verbose func(string)) {
	t.Helper()
	if *playFlag != "" && *playFlag != p.name {
		return
	}
	if _, err := perform(p, seed, *stepsFlag, faults{}, verbose); err != nil {
		t.Error(err)
	}
}
