package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// The twin serves nobody twice at once, within the deadline or not at all, and leaves
// nobody who could be served by an idle replica.
func TestBalanceTwin(t *testing.T) {
	base := []time.Duration{10 * time.Millisecond, 30 * time.Millisecond}
	for share, most := range map[float64]float64{0.3: 1, 2: 70} {
		l := drawBalance(7, base, 20*time.Second, 100*time.Millisecond, share, 0.2)
		took := l.twin()
		if len(took) != len(l.arrivals) || len(took) < 100 {
			t.Fatalf("%d of %d requests", len(took), len(l.arrivals))
		}
		for i, d := range took {
			if d != missed && (d > l.deadline || d < time.Duration(0.8*float64(base[0]))) {
				t.Fatalf("request %d took %v", i, d)
			}
		}
		if m := misses(took); m > most || share > 1 && m < 30 {
			t.Errorf("share %v: %v %% missed", share, m)
		}
	}
	// By hand: two at once, one replica, time for one and a half.
	l := &balanceLoad{base: base[:1], arrivals: []time.Duration{0, 0, 12 * time.Millisecond}, weights: []float64{1, 1, 1}, slow: [][]span{{{11 * time.Millisecond, time.Second}}}, deadline: 15 * time.Millisecond, factor: 2.5}
	if got := l.twin(); got[0] != 10*time.Millisecond || got[1] != missed || got[2] != missed {
		t.Errorf("took %v", got)
	}
}

// One that learns does no better than one that knows, and what it learns it uses: a replica
// that was slow once is not given what it would not finish, until that is long ago.
func TestBalanceLearner(t *testing.T) {
	const ms = time.Millisecond
	base := []time.Duration{10 * ms, 30 * ms, 30 * ms}
	for seed := range uint64(4) {
		l := drawBalance(seed, base, 20*time.Second, 100*ms, 0.8, 0.2)
		knows, learns := misses(l.twin()), misses(l.learner())
		if took := l.learner(); len(took) != len(l.arrivals) || learns < knows {
			t.Errorf("seed %d: %v %% missed, who knows all misses %v %%", seed, learns, knows)
		}
	}
	// By hand: one replica of 10 ms, which is slow from 20 to 40 ms and then takes 25; allowed
	// are 24. It learns that from the second request, which it does not finish, so the next two
	// are not begun; a second later the last one is, because what is known is old.
	l := &balanceLoad{base: base[:1], arrivals: []time.Duration{0, 20 * ms, 30 * ms, 60 * ms, 1100 * ms}, weights: []float64{1, 1, 1, 1, 1},
		slow: [][]span{{{20 * ms, 40 * ms}}}, deadline: 24 * ms, factor: 2.5}
	if got, want := l.learner(), []time.Duration{10 * ms, missed, missed, missed, 10 * ms}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
}

// A planted fault is counted: an answer after its time, and one for an older picture.
func TestBalanceStale(t *testing.T) {
	ms := time.Millisecond
	w := &watcher{answered: []shot{{0, 100 * ms}, {66 * ms, 200 * ms}}}
	if n := w.stale(gpuDeadline); n != 0 {
		t.Errorf("%d of two good answers are stale", n)
	}
	w.answered = append(w.answered, shot{33 * ms, 250 * ms}, shot{100 * ms, 100*ms + gpuDeadline + lateGrace + ms})
	if n := w.stale(gpuDeadline); n != 2 {
		t.Errorf("%d of two are stale", n)
	}
}

// Eight robots on one GPU: it is busy with what can be answered, nobody starves, nothing
// stale is answered. (In virtual time, so these are no matters of luck.)
func TestBalanceOneGPU(t *testing.T) {
	figures, err := oneGPU(t.Context(), balanceOptions{seed: 1, rounds: 1, last: 8 * time.Second, test: t})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range figures {
		switch {
		case f.Metric == "stale" && f.Value != 0, f.Metric == "rate" && *f.Ratio < 0.9, f.Metric == "p99" && f.Value > inMillis(gpuDeadline):
			t.Errorf("%+v", f)
		}
	}
}

// What one replica can do for one client: nothing is missed without load, everything with
// a replica that is far too slow.
func TestBalanceMixedCountsMisses(t *testing.T) {
	for factor, want := range map[float64]float64{1: 0, 20: 100} {
		l := drawBalance(3, []time.Duration{20 * time.Millisecond}, 2*time.Second, mixedDeadline, 0.2, 0)
		l.slow, l.factor = [][]span{{{0, time.Hour}}}, factor
		var took []time.Duration
		err := inVirtualTime(t, func(ctx context.Context, connect connector) (err error) {
			took, err = runMixed(ctx, connect, l, []messages.Tier{messages.Edge}, []int{0})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if m := misses(took); m != want || len(took) == 0 {
			t.Errorf("factor %v: %v %% of %d missed, want %v", factor, m, len(took), want)
		}
	}
}

func TestBalanceRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		`there is no case "mixed"`: {"--case", "mixed"},
		"--rounds is 0":            {"--rounds", "0"},
		"--time is 1ms":            {"--time", "1ms"},
		"--uneven is 2":            {"--uneven", "2"},
		"--uneven is NaN":          {"--uneven", "NaN"},
		"it takes no files":        {"x"},
	} {
		if err := balance(args, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
