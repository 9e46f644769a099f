package sim

import (
	"flag"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
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
			if !p.plays(seed) {
				continue
			}
			t.Run(fmt.Sprintf("%s/seed=%d", p.name, seed), func(t *testing.T) {
				t.Parallel()
				check(t, p, seed, nil)
			})
		}
	}
}

// Seeds that found something, and what. The random draws behind a seed change with the
// plays; what they found has tests of its own in coordinator/placement, too.
func TestFound(t *testing.T) {
	for _, f := range []struct {
		play string
		seed uint64
		what string
	}{
		{"chaos", 2, "a new version that takes less was counted as such while the old one still stopped"},
		{"chaos", 12, "a new leader did not know that a lost agent still ran an older version"},
		{"chaos", 17, "what a returned agent had yet to stop was counted by the newest version of its task"},
		{"chaos", 26, "what had stopped to make room was looked for where it had been"},
		{"chaos", 182, "a lost agent's document grew beside what it had yet to stop"},
		{"blind", 1, "a Tick that came a moment early was the last one"},
	} {
		t.Run(fmt.Sprintf("%s/%d", f.play, f.seed), func(t *testing.T) {
			t.Parallel()
			p, err := find(f.play)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := perform(p, f.seed, 60, faults{}, nil); err != nil {
				t.Errorf("%s? %v", f.what, err)
			}
		})
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

// restless is a Machine without calm.
var restless = placement.Calm{HotFor: time.Millisecond, CoolFor: time.Millisecond, CoolUnder: 0.999, Slack: 1e-9, Dwell: time.Millisecond,
	Cycle: time.Second, Moves: 10_000, Margin: 1e-9, MoveDelay: 1e-9, MoveCost: 1e-9}

// budgeted has no calm but the budget of moves.
var budgeted = func() placement.Calm {
	c := restless
	c.Moves, c.Cycle = 0, 0
	return c
}()

// A checker that cannot fail proves nothing: one fault is planted for each invariant, and
// has to be caught as what it is, within some seeds.
func TestPlantedFaults(t *testing.T) {
	for _, f := range []struct {
		invariant, play, says string
		faults                faults
		seeds                 int
	}{
		{"no over-commit", "chaos", "over-commit: ", faults{boast: 2}, 5},
		{"one leader a term", "elections", "terms: ", faults{sharedTerm: true}, 10},
		{"terms never go back", "chaos", "went back from term", faults{anyTerm: true, overstays: true}, 60},
		{"fenced by a newer incarnation", "twins", "after it heard of a newer one", faults{undead: true}, 20},
		{"fenced by a newer document", "drain", "which reached it, says otherwise", faults{servesOn: true}, 10},
		{"traffic shifts before it drains", "drain", "and the routes of term", faults{lateRoutes: 2 * time.Second}, 10},
		{"5 % moves nothing", "five", "calm: ", faults{calm: placement.Calm{Slack: 1e-9}}, 10},
		{"moves are bounded", "calm", "moves in one minute", faults{calm: restless, noise: 0.9}, 3},
		{"nothing moves when the load stands still", "calm", "the load has not changed", faults{calm: budgeted, noise: 0.5}, 3},
		{"a flapping agent takes nothing down", "flap", "flap: ", faults{calm: placement.Calm{FlapLimit: math.MaxInt}}, 5},
		{"what runs is what is desired", "chaos", "and nobody says why", faults{oldTasks: true}, 5},
		{"a version that crashes is given up", "update", "were lost while a task was updated", faults{calm: placement.Calm{Soak: time.Millisecond}}, 20},
		{"a blind coordinator evicts nobody", "blind", "eviction: ", faults{deafToLinks: true}, 5},
	} {
		t.Run(f.invariant, func(t *testing.T) {
			t.Parallel()
			p, err := find(f.play)
			if err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(f.seeds) {
				_, err := perform(p, seed+1, 60, f.faults, nil)
				if err == nil {
					continue
				}
				text, _, _ := strings.Cut(err.Error(), "\n")
				if !strings.Contains(text, f.says) {
					t.Fatalf("caught as something else: %s", text)
				}
				if !strings.Contains(err.Error(), fmt.Sprintf("again: make sim SEED=%d STEPS=60", seed+1)) {
					t.Errorf("it does not say how to see it again: %s", err)
				}
				t.Log(text)
				return
			}
			t.Fatalf("not caught in %d seeds", f.seeds)
		})
	}
}

// Equal seeds are equal stories, to the last step.
func TestReplay(t *testing.T) {
	for _, p := range plays {
		if seldom[p.name] > 0 {
			continue
		}
		var stories [2]string
		for i := range stories {
			var b strings.Builder
			w, err := perform(p, 3, 30, faults{}, func(line string) { b.WriteString(line + "\n") })
			if err != nil {
				t.Fatal(err)
			}
			stories[i] = fmt.Sprint(b.String(), w.steps)
		}
		if stories[0] != stories[1] {
			t.Errorf("%s: two plays of one seed differ", p.name)
		}
	}
}
