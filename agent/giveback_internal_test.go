package agent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// work is a delivery of request n, of a body of size bytes.
func work(n, count int, more bool, size int) delivery {
	return delivery{msg: &nats.Msg{Reply: strconv.Itoa(n), Data: make([]byte, size)}, seq: uint64(n), count: uint64(count), more: more}
}

func wantBack(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: gives back %q, want %q", what, got, want)
	}
}

// A replica holds what it cannot serve for a while, gives it back when it begins something,
// and rests once it has seen all that waits.
func TestReturns(t *testing.T) {
	var b returns
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	due := func(d time.Duration) []string {
		replies, begin := b.due(at(d))
		if begin != nil {
			t.Errorf("begins %s, and has found nothing", begin.Reply)
		}
		return replies
	}
	hold := func(n int, d time.Duration) bool { return b.hold(strconv.Itoa(n), work(n, 1, true, 8), at(d)) }
	if hold(7, 0) || hold(8, holdTime/2) {
		t.Error("rests, and has seen each only once")
	}
	wantBack(t, "early", due(holdTime-1))
	wantBack(t, "the first is due", due(holdTime), "7")
	if b.resting(at(holdTime)) {
		t.Error("rests, and may find others")
	}
	if !hold(7, holdTime) {
		t.Error("does not rest, and has seen all that waits")
	}
	wantBack(t, "all, the oldest first", b.all(), "7", "8")
	wantBack(t, "none is left", due(time.Hour))
	if !b.resting(at(holdTime+restTime-1)) || b.resting(at(holdTime+restTime)) {
		t.Error("rests for another time than restTime")
	}
	hold(9, 0)
	wantBack(t, "something was begun", b.begun(), "9")
	if hold(9, 0) {
		t.Error("what was seen before it began something counts")
	}
}

// Who holds something looks on when it finds what it could begin; how long, and what it begins.
func TestLookOn(t *testing.T) {
	now := time.Now()
	const early, late = holdTime / 4, holdTime
	for name, c := range map[string]struct {
		skips bool
		found []delivery
		free  bool // another slot
		at    time.Duration
		begin string // "": it looks on
		back  []string
	}{
		"nothing was skipped":       {false, []delivery{work(7, 3, true, 8)}, false, early, "7", nil},
		"came back":                 {true, []delivery{work(7, 3, true, 8)}, false, early, "", []string{"1", "7"}},
		"two came back":             {true, []delivery{work(9, 2, true, 8), work(7, 3, true, 8)}, false, early, "", []string{"1", "7", "9"}},
		"never delivered":           {true, []delivery{work(7, 1, true, 8)}, false, early, "7", []string{"1"}},
		"the end of what came back": {true, []delivery{work(9, 2, true, 8), work(7, 3, true, 8), work(12, 1, true, 8)}, false, early, "7", []string{"1", "9", "12"}},
		"nothing comes after it":    {true, []delivery{work(7, 3, false, 8)}, false, early, "7", []string{"1"}},
		"another slot is free":      {true, []delivery{work(7, 3, true, 8)}, true, early, "7", []string{"1"}},
		"camera frames":             {true, []delivery{work(7, 3, true, lookBytes)}, false, early, "7", []string{"1"}},
		"long enough":               {true, []delivery{work(7, 3, true, 8)}, false, late, "7", []string{"1"}},
		"the server says nothing":   {true, []delivery{{msg: &nats.Msg{Reply: "0"}}}, false, early, "0", []string{"1"}},
	} {
		var b returns
		if c.skips {
			b.hold("1", work(1, 5, true, 8), now)
		}
		var begin string
		for _, d := range c.found {
			if !b.looking() && c.skips {
				t.Errorf("%s: does not look", name)
			}
			if m := b.find(d, c.free, now.Add(c.at)); m != nil {
				begin = m.Reply
			}
		}
		if begin != c.begin {
			t.Errorf("%s: begins %q, want %q", name, begin, c.begin)
		}
		wantBack(t, name, b.all(), c.back...)
		if b.looking() {
			t.Errorf("%s: looks on, and holds nothing", name)
		}
	}
	// Where nothing more comes the clock ends it.
	var b returns
	b.hold("1", work(1, 5, true, 8), now)
	b.find(work(7, 3, true, 8), false, now.Add(early))
	if replies, begin := b.due(now.Add(holdTime - 1)); begin != nil || replies != nil {
		t.Error("begins before its time")
	}
	replies, begin := b.due(now.Add(holdTime))
	wantBack(t, "time is over", replies, "1")
	if begin == nil || begin.Reply != "7" {
		t.Errorf("begins %v", begin)
	}
	// Two that came back twice are all that there is: it does not rest with one in its hands.
	b.hold("1", work(1, 5, true, 8), now)
	b.find(work(7, 3, true, 8), false, now)
	if b.hold("1", work(1, 6, true, 8), now) {
		t.Error("rests, and has found one")
	}
}

// rdq is a queue as the server has it: what was given back, in that order, before what was never
// delivered.
type rdq struct {
	back, fresh []int
	count       map[int]int
}

func (q *rdq) next() (d delivery, ok bool) {
	var n int
	switch {
	case len(q.back) > 0:
		n, q.back = q.back[0], q.back[1:]
	case len(q.fresh) > 0:
		n, q.fresh = q.fresh[0], q.fresh[1:]
	default:
		return d, false
	}
	q.count[n]++
	return work(n, q.count[n], len(q.fresh) > 0, 8), true
}

func (q *rdq) nak(replies []string) {
	for _, r := range replies {
		n, _ := strconv.Atoi(r)
		q.back = append(q.back, n)
	}
}

// Replicas of many speeds take from one queue. Each begins the oldest that it can finish in time,
// as one who sees all that waits would; what is given back stays in order, and nothing is lost.
func TestQueueStaysInOrder(t *testing.T) {
	for seed := range uint64(300) {
		dice := rand.New(rand.NewPCG(seed, 7))
		q := rdq{count: map[int]int{}}
		arrived, now := 0, time.Now()
		begun, expired := map[int]bool{}, 0
		replicas := make([]returns, 4)
		need := []int{0, 3, 10, 25} // how much younger than the oldest a request must be
		arrive := func(n int) {
			for range n {
				q.fresh = append(q.fresh, arrived)
				arrived++
			}
		}
		arrive(80) // so that some always wait that were never delivered: where none do, order is not looked for
		for step := range 200 {
			i := dice.IntN(len(replicas))
			b := &replicas[i]
			least := step + need[i] // older ones it would not finish in time
			// Who sees all.
			want := -1
			for n := range arrived {
				if !begun[n] && n >= least {
					want = n
					break
				}
			}
			got := -1
			for got < 0 {
				d, ok := q.next()
				if !ok {
					break
				}
				switch {
				case int(d.seq) < step:
					expired++ // nobody could
					continue
				case int(d.seq) < least:
					if b.hold(fmt.Sprint(d.seq), d, now) {
						t.Fatalf("seed %d, step %d: rests", seed, step)
					}
				default:
					if m := b.find(d, false, now); m != nil {
						got, _ = strconv.Atoi(m.Reply)
					}
				}
			}
			begun[got] = true
			q.nak(b.begun())
			if got != want {
				t.Fatalf("seed %d, step %d: replica %d begins %d, want %d of %v %v", seed, step, i, got, want, q.back, q.fresh)
			}
			if !slices.IsSorted(q.back) {
				t.Fatalf("seed %d, step %d: out of order: %v", seed, step, q.back)
			}
			arrive(1 + dice.IntN(2))
			now = now.Add(time.Second)
		}
		all := slices.Concat(q.back, q.fresh)
		if n := len(all) + len(begun) + expired; n != arrived {
			t.Fatalf("seed %d: %d of %d are left, expired or were begun", seed, n, arrived)
		}
	}
}
