package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// holding is what a process holds at a moment: its heap after a collection.
type holding struct {
	At         time.Time `json:"at"`
	Goroutines int       `json:"goroutines"`
	Heap       uint64    `json:"heap"`
}

// sampling tells what this process holds, line by line on its standard output, until it
// is stopped.
func (p part) sampling() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for pause(ctx, p.Sample) == nil {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			if line, err := json.Marshal(holding{time.Now(), runtime.NumGoroutine(), m.HeapAlloc}); err == nil {
				fmt.Println(string(line))
			}
		}
	})
	return func() { cancel(); all.Wait() }
}

// holdings collects what processes hold, by name.
type holdings struct {
	mu    sync.Mutex
	list  map[string][]holding
	quiet map[string]bool // who has said that it sends no more
}

// isQuiet reports whether an agent has said that it sends no more.
func (h *holdings) isQuiet(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quiet[name]
}

func (h *holdings) take(p part, line []byte) {
	if string(bytes.TrimSpace(line)) == orderQuiet {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.quiet == nil {
			h.quiet = make(map[string]bool)
		}
		h.quiet[p.Name] = true
		return
	}
	var now holding
	if json.Unmarshal(line, &now) != nil {
		return // something else that it printed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.list == nil {
		h.list = make(map[string][]holding)
	}
	h.list[p.Name] = append(h.list[p.Name], now)
}

// What a series may grow by over the time that is judged without counting as a leak: the
// larger of a share of what was there and a floor. Goroutines come and go with the
// requests under way, a heap with caches that fill and pools that are emptied. A leak of
// one goroutine, or 4 kB, in ten requests is over the floor within a minute.
const (
	goroutineShare = 0.05
	goroutineFloor = 5
	heapShare      = 0.10
	heapFloor      = 1 << 20
	// A server holds what it was given to keep: of every message in a stream, a little in
	// memory.
	heapPerMessage = 256
	// warmUp is the share of the time that is not judged: maps, pools and stream stores
	// grow to their size in it.
	warmUp = 0.25
)

// trend is how a series grows.
type trend struct {
	Bench   string  `json:"bench"` // soak
	Case    string  `json:"case"`  // the process
	Metric  string  `json:"metric"`
	Value   float64 `json:"value"` // growth over the time that is judged
	Unit    string  `json:"unit"`
	Median  float64 `json:"median"`
	Allowed float64 `json:"allowed"`
	Samples int     `json:"samples"`
	Minutes float64 `json:"minutes"`
	OK      bool    `json:"ok"`
}

// point is one sample of a series.
type point struct{ seconds, value float64 }

// grows returns how much a series grows from its first to its last point: the median of
// the slopes between all pairs of points (Theil and Sen), which single spikes do not
// move, times its length.
func grows(list []point) (growth, median float64) {
	var slopes, values []float64
	for i, a := range list {
		values = append(values, a.value)
		for _, b := range list[i+1:] {
			if b.seconds > a.seconds {
				slopes = append(slopes, (b.value-a.value)/(b.seconds-a.seconds))
			}
		}
	}
	if len(slopes) == 0 {
		return 0, middle(values)
	}
	return middle(slopes) * (list[len(list)-1].seconds - list[0].seconds), middle(values)
}

func middle(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// leastSamples is how many samples a trend needs.
const leastSamples = 10

// judgeTrend judges a series: its growth may be the larger of share of its median and
// floor, and extra on top.
func judgeTrend(name, metric, unit string, list []point, share, floor, extra float64) trend {
	growth, median := grows(list)
	t := trend{Bench: "soak", Case: name, Metric: metric, Value: round1(growth), Unit: unit, Median: round1(median), Samples: len(list),
		Allowed: round1(max(share*median, floor) + extra)}
	if len(list) > 0 {
		t.Minutes = round1((list[len(list)-1].seconds - list[0].seconds) / 60)
	}
	t.OK = len(list) >= leastSamples && growth <= max(share*median, floor)+extra
	return t
}

// trends judges all series from the moment from on. stored is how many messages came to
// be kept by every server since then.
func (h *holdings) trends(from time.Time, stored float64, server func(name string) bool) (list []trend) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, all := range h.list {
		var goroutines, heap []point
		for _, one := range all {
			if at := one.At.Sub(from).Seconds(); at >= 0 {
				goroutines = append(goroutines, point{at, float64(one.Goroutines)})
				heap = append(heap, point{at, float64(one.Heap)})
			}
		}
		extra := 0.0
		if server(name) {
			extra = stored * heapPerMessage
		}
		list = append(list,
			judgeTrend(name, "goroutines", "count", goroutines, goroutineShare, goroutineFloor, 0),
			judgeTrend(name, "heap", "B", heap, heapShare, heapFloor, extra))
	}
	slices.SortFunc(list, func(a, b trend) int { return cmp.Or(cmp.Compare(a.Case, b.Case), cmp.Compare(a.Metric, b.Metric)) })
	return list
}

// soaked lets the load run for the time, prints how what each process holds grew, and
// returns how many series grow.
func (s *stage) soaked(ctx context.Context) (grown int, err error) {
	watched, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { s.watch(watched) })
	warm := time.Duration(warmUp * float64(s.duration))
	if err := pause(ctx, warm); err != nil {
		return 0, err
	}
	from := time.Now()
	before, err := s.stored(ctx)
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, s.duration-warm); err != nil {
		return 0, err
	}
	after, err := s.stored(ctx)
	if err != nil {
		return 0, err
	}
	list := s.held.trends(from, after-before, func(name string) bool { return slices.Contains(serverNames, name) })
	list = append(list, trend{Bench: "soak", Case: "streams", Metric: "messages", Value: after - before, Unit: "count", Median: before, Minutes: round1(time.Since(from).Minutes()), OK: true})
	for _, t := range list {
		line, err := json.Marshal(t)
		if err != nil {
			return 0, err
		}
		if _, err := fmt.Fprintln(s.out, string(line)); err != nil {
			return 0, err
		}
		if !t.OK {
			grown++
		}
	}
	if want := 2*len(s.list(func(string) bool { return true })) + 1; len(list) < want {
		return grown, fmt.Errorf("%d series of %d: not every process has told what it holds", len(list), want)
	}
	return grown, nil
}

// stored is how many messages all streams keep.
func (s *stage) stored(ctx context.Context) (n float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	err = s.until(ctx, "the number of messages", func(ctx context.Context) error {
		n = 0
		streams := s.bus.JS.ListStreams(ctx)
		for info := range streams.Info() {
			n += float64(info.State.Msgs)
		}
		return streams.Err()
	})
	return n, err
}
