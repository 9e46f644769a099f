package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// series makes samples of 15 minutes, five seconds apart.
func series(f func(second float64) float64) (list []point) {
	for s := 0.0; s < 900; s += 5 {
		list = append(list, point{s, f(s)})
	}
	return list
}

func TestTrends(t *testing.T) {
	const mib = 1 << 20
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(wide float64) float64 { return wide * (2*r.Float64() - 1) }
	for _, c := range []struct {
		name       string
		goroutines func(float64) float64
		heap       func(float64) float64
		ok         [2]bool
	}{
		{"flat", func(float64) float64 { return 40 + noise(3) }, func(float64) float64 { return 10*mib + noise(mib) }, [2]bool{true, true}},
		{"waves", func(s float64) float64 { return 40 + 20*math.Sin(s/40) }, func(s float64) float64 { return 20*mib + 5*mib*math.Sin(s/40) }, [2]bool{true, true}},
		{"a spike at the end", func(s float64) float64 {
			if s > 850 {
				return 500
			}
			return 40
		}, func(s float64) float64 {
			if s > 850 {
				return 90 * mib
			}
			return 10 * mib
		}, [2]bool{true, true}},
		{"shrinks", func(s float64) float64 { return 100 - s/10 }, func(s float64) float64 { return 50*mib - s*1000 }, [2]bool{true, true}},
		{"leaks a goroutine a minute", func(s float64) float64 { return 40 + s/60 + noise(3) }, func(float64) float64 { return 10 * mib }, [2]bool{false, true}},
		{"leaks 4 kB a second", func(float64) float64 { return 40 }, func(s float64) float64 { return 10*mib + 4096*s + noise(mib) }, [2]bool{true, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := judgeTrend("p", "goroutines", "count", series(c.goroutines), goroutineShare, goroutineFloor, 0)
			h := judgeTrend("p", "heap", "B", series(c.heap), heapShare, heapFloor, 0)
			if g.OK != c.ok[0] || h.OK != c.ok[1] {
				t.Errorf("goroutines %+v\nheap %+v", g, h)
			}
		})
	}
	if few := judgeTrend("p", "heap", "B", series(func(float64) float64 { return 1 })[:leastSamples-1], 1, 1, 1); few.OK {
		t.Error("a process that hardly told anything is flat")
	}
	if none := judgeTrend("p", "heap", "B", nil, 1, 1, 1); none.OK {
		t.Error("a process that told nothing is flat")
	}
}

// A server may hold a little of every message that it keeps, and nobody else.
func TestHoldings(t *testing.T) {
	var h holdings
	from := time.Now()
	for i := range 100 {
		line, err := json.Marshal(holding{from.Add(time.Duration(i-10) * time.Second), 10, uint64(50<<20 + i*100_000)})
		if err != nil {
			t.Fatal(err)
		}
		h.take(part{Name: "server-1"}, line)
		h.take(part{Name: "agent-1"}, line)
		h.take(part{Name: "agent-1"}, []byte("runs\n"))
	}
	stored := 10e6 / heapPerMessage
	for _, tr := range h.trends(from, stored, func(name string) bool { return name == "server-1" }) {
		if want := tr.Case == "server-1" || tr.Metric == "goroutines"; tr.OK != want || tr.Samples != 90 {
			t.Errorf("%+v", tr)
		}
	}
}
