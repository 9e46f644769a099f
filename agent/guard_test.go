package agent

import (
	"fmt"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

func TestEpisodes(t *testing.T) {
	e := newEpisodes()
	for i, s := range []struct {
		task, origin, episode string
		seq                   uint64
		ok                    bool
	}{
		{"grasp", "r1", "a", 1, true},
		{"grasp", "r1", "a", 1, false}, // the same again
		{"grasp", "r1", "a", 5, true},  // a gap is the caller's business
		{"grasp", "r1", "a", 4, false}, // late
		{"grasp", "r2", "a", 1, true},  // another origin counts for itself
		{"lift", "r1", "a", 1, true},   // another task too
		{"grasp", "r1", "b", 1, true},  // a new episode starts where it likes
		{"grasp", "r1", "a", 6, false}, // and ends the one before
		{"grasp", "r1", "b", 2, true},
		{"grasp", "r1", "c", 9, true},
		{"grasp", "r1", "a", 7, false},
		{"grasp", "r1", "b", 3, false},
		{"grasp", "r1", "c", 10, true},
	} {
		err := e.admit(s.task, s.origin, s.episode, s.seq)
		if (err == nil) != s.ok {
			t.Errorf("step %d %+v: %v", i, s, err)
		}
		if err != nil && err.Code != messages.CodeStale {
			t.Errorf("step %d: code %s", i, err.Code)
		}
	}
}

func TestEpisodesRememberSixtyFour(t *testing.T) {
	e := newEpisodes()
	for i := range 1 + maxEpisodes + 1 {
		if err := e.admit("t", "o", fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.admit("t", "o", "1", 2); err == nil {
		t.Error("the 64th episode before the current one was forgotten")
	}
	if n := len(e.runs.get(command{"t", "o"}).older); n != maxEpisodes {
		t.Errorf("%d episodes remembered, want %d", n, maxEpisodes)
	}
}

func TestNewest(t *testing.T) {
	n := newNewest()
	for i, s := range []struct {
		task, origin, key string
		seq, newer        uint64
		ok                bool
	}{
		{"t", "o", "cam", 3, 3, true},
		{"t", "o", "cam", 3, 3, true}, // a redelivery or a retry of the newest
		{"t", "o", "cam", 2, 3, false},
		{"t", "o", "cam", 4, 4, true},
		{"t", "o", "imu", 1, 1, true},
		{"t", "p", "cam", 1, 1, true},
		{"u", "o", "cam", 1, 1, true},
		{"t", "o", "", 1, 0, true},
		{"t", "o", "cam", 0, 0, true},
	} {
		newer, ok := n.admit(s.task, s.origin, s.key, s.seq)
		if ok != s.ok || newer != s.newer {
			t.Errorf("step %d %+v: %d, %v", i, s, newer, ok)
		}
	}
}

func TestRecentKeepsWhatWasUsedLast(t *testing.T) {
	r := recent[int, string]{most: 3}
	for i := range 3 {
		*r.get(i) = fmt.Sprint(i)
	}
	r.get(0)
	r.get(3) // 1 goes
	if *r.get(0) != "0" || *r.get(2) != "2" {
		t.Error("a recent entry is gone")
	}
	if len(r.index) != 3 || r.order.Len() != 3 {
		t.Errorf("%d and %d entries", len(r.index), r.order.Len())
	}
	if *r.get(1) != "" {
		t.Error("the oldest entry is still there")
	}
}

// FuzzGuards compares the guards with ones that remember everything. Each byte of the
// input is a request: four episodes or keys, eight sequences, two origins.
func FuzzGuards(f *testing.F) {
	f.Add([]byte{0x01, 0x02, 0x01, 0x12, 0x03, 0x41, 0x02})
	f.Fuzz(func(t *testing.T, requests []byte) {
		e, n := newEpisodes(), newNewest()
		type stream struct{ origin, name string }
		current, last, newest := map[string]string{}, map[stream]uint64{}, map[stream]uint64{}
		over := map[stream]bool{}
		for i, b := range requests {
			origin, name, seq := fmt.Sprint(b>>6), fmt.Sprint(b>>4&3), uint64(b&15)+1
			s := stream{origin, name}

			want := !over[s] && seq > last[s]
			if got := e.admit("t", origin, name, seq) == nil; got != want {
				t.Fatalf("request %d: episode %s sequence %d: %v, want %v", i, name, seq, got, want)
			}
			if want {
				if c, ok := current[origin]; ok && c != name {
					over[stream{origin, c}] = true
				}
				current[origin], last[s] = name, seq
			}

			want = seq >= newest[s]
			if _, got := n.admit("t", origin, name, seq); got != want {
				t.Fatalf("request %d: key %s sequence %d: %v, want %v", i, name, seq, got, want)
			}
			newest[s] = max(newest[s], seq)
		}
	})
}
