package route

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func TestSites(t *testing.T) {
	const ready = messages.ReplicaReady
	r := &messages.TaskRoute{Task: messages.Task{Concurrency: 3}, Replicas: []messages.Route{
		replica("a", "hub", 0, ready), replica("b", "main", 1, messages.ReplicaLoading), replica("c", "far", 1, ready),
		replica("d", "main", 2, ready), replica("e", "hub", 3, ready),
	}}
	for own, want := range map[string]string{"main": "main hub far", "hub": "hub far main", "none": "hub far main"} {
		if got := strings.Join(Sites(r, own), " "); got != want {
			t.Errorf("from %s: %s, want %s", own, got, want)
		}
	}
	if Slots(r, "hub") != 6 || Slots(r, "main") != 3 || Slots(r, "none") != 0 {
		t.Error("slots")
	}
}

func TestBacklog(t *testing.T) {
	const slots = 2
	at := func(v int) time.Time { return t0.Add(time.Duration(v) * ms) }
	full := func() *Backlog {
		b := new(Backlog)
		b.Served(at(0), 50*ms)
		b.Waited()
		if !b.Ask(at(0)) {
			t.Fatal("a request waited and the state is not asked for")
		}
		b.Read(at(1), 10, 1, 0, 7)
		return b
	}
	for name, c := range map[string]struct {
		b    *Backlog
		now  int
		left time.Duration
		wait time.Duration // RetryAfter; 0: let through
	}{
		"in time":                {full(), 1, 301 * ms, 0},
		"too late":               {full(), 1, 200 * ms, 100 * ms}, // 10 / 2 × 50 ms, and its own
		"the queue moves":        {full(), 101, 201 * ms, 0},
		"the reading is old":     {full(), 502, 10 * ms, 0},
		"own requests count":     {func() *Backlog { b := full(); b.Sent(); b.Sent(); return b }(), 1, 301 * ms, 49 * ms},
		"nobody waited":          {new(Backlog), 1, ms, 0},
		"slots are free":         {func() *Backlog { b := full(); b.Ask(at(100)); b.Read(at(101), 0, 1, 2, 7); return b }(), 101, ms, 0},
		"no service time":        {func() *Backlog { b := new(Backlog); b.Waited(); b.Ask(at(0)); b.Read(at(1), 99, 1, 0, 7); return b }(), 1, ms, 0},
		"an old service time":    {func() *Backlog { b := full(); b.Read(at(10_001), 99, 1, 0, 7); return b }(), 10_001, ms, 0},
		"only its own service":   {func() *Backlog { b := full(); b.Read(at(2), 0, 1, 0, 7); return b }(), 2, ms, 0},
		"sent before it was ask": {func() *Backlog { b := full(); b.Sent(); b.Ask(at(100)); b.Read(at(101), 10, 1, 0, 7); return b }(), 101, 301 * ms, 0},
	} {
		err := c.b.Refuse(at(c.now), c.left, slots)
		switch {
		case c.wait == 0 && err != nil:
			t.Errorf("%s: refused: %v", name, err)
		case c.wait > 0 && (err == nil || err.Code != messages.CodeBusy || err.RetryAfter != c.wait):
			t.Errorf("%s: %v, want busy for %v", name, err, c.wait)
		}
	}
	b := full()
	if b.Refuse(at(1), ms, 0) != nil {
		t.Error("without slots nobody knows")
	}
	asked := 0
	for v := range 1000 {
		if b.Ask(at(v)) {
			asked++
		}
	}
	if asked > 10 {
		t.Errorf("asked %d times in a second", asked)
	}
	b.Read(at(1000), 0, 1, 1, 7)
	if b.Ask(at(2000)) {
		t.Error("it asks though nobody waits")
	}
}

func TestBacklogStuck(t *testing.T) {
	at := func(v int) time.Time { return t0.Add(time.Duration(v) * ms) }
	b := new(Backlog)
	if !b.Ask(at(0)) || b.Ask(at(500)) {
		t.Error("it is asked once without a reason")
	}
	b.Waited()
	b.Ask(at(600))
	if b.Stuck(at(5000)) {
		t.Error("stuck, where nothing was ever answered")
	}
	b.Read(at(601), 3, 2, 0, 7)
	if b.Stuck(at(602)) {
		t.Error("stuck, where two are being served")
	}
	b.Ask(at(700))
	b.Read(at(701), 3, 0, 0, 7)
	if !b.Stuck(at(702)) || b.Stuck(at(1300)) {
		t.Error("requests wait, nobody has one and nobody asks: that is stuck, while the reading is fresh")
	}
	b.Read(at(710), 3, 2, 0, 8)
	b.Read(at(900), 3, 2, 0, 8)
	if b.Stuck(at(909)) || !b.Stuck(at(910)) {
		t.Error("nothing was delivered for 200 ms")
	}
	b.Served(at(900), 100*ms)
	if b.Stuck(at(1009)) || !b.Stuck(at(1010)) {
		t.Error("nor for three times as long as one takes")
	}
	b.Ask(at(1400))
	b.Ask(at(1500))
	if b.Stuck(at(1499)) || !b.Stuck(at(1500)) { // the reading is too old by now
		t.Error("silence is stuck after 100 ms")
	}
	b.Read(at(1501), 1, 0, 1, 7)
	if b.Stuck(at(1501)) {
		t.Error("stuck, where a slot is free")
	}
}

func TestHealth(t *testing.T) {
	at := func(v int) time.Time { return t0.Add(time.Duration(v) * ms) }
	var h Health
	if h.Latency(at(0)) != 0 || h.Ejected(at(0)) {
		t.Error("it knows something from nothing")
	}
	for i := range 30 {
		h.Answered(at(i), 20*ms)
	}
	if l := h.Latency(at(30)); l != 20*ms {
		t.Errorf("latency %v", l)
	}
	if h.Latency(at(5100)) != 0 {
		t.Error("an old latency counts")
	}
	h.Answered(at(6000), 80*ms)
	if l := h.Latency(at(6000)); l != 80*ms {
		t.Errorf("after a long rest: %v", l)
	}
	for range ejectAfter - 1 {
		h.Failed(at(7000))
	}
	if h.Ejected(at(7000)) {
		t.Error("ejected too soon")
	}
	h.Failed(at(7000))
	if !h.Ejected(at(7999)) || h.Ejected(at(8000)) {
		t.Error("the first ejection is a second")
	}
	h.Failed(at(8000))
	if !h.Ejected(at(9999)) || h.Ejected(at(10_000)) {
		t.Error("the second is two")
	}
	for range 100 {
		h.Failed(at(10_000))
	}
	if !h.Ejected(at(39_999)) || h.Ejected(at(40_000)) {
		t.Error("the longest is 30 s")
	}
	h.Answered(at(11_000), ms)
	if h.Ejected(at(11_000)) {
		t.Error("a success ends it")
	}
}

func TestHedgeBudget(t *testing.T) {
	var h Hedge
	for i := range 19 {
		h.Answered(time.Duration(i) * ms)
	}
	if h.After() != 0 || h.Take() {
		t.Error("too early")
	}
	for i := range 1000 {
		h.Answered(time.Duration(1+i%100) * ms)
	}
	if a := h.After(); a < 90*ms || a > 100*ms {
		t.Errorf("p95 %v", a)
	}
	taken := 0
	for h.Take() {
		taken++
	}
	if taken != hedgeSaved {
		t.Errorf("%d saved", taken)
	}
	for range 1000 {
		h.Answered(10 * time.Microsecond)
		if h.Take() {
			taken++
		}
	}
	if taken > hedgeSaved+50 {
		t.Errorf("%d of 2,000", taken)
	}
	if h.After() != HedgeMin {
		t.Errorf("%v", h.After())
	}
}

// Of two that are equal otherwise the one that is likely done sooner is asked first, and
// one that cannot be in time, or fails, after all others.
func TestCandidatesByLatency(t *testing.T) {
	const ready = messages.ReplicaReady
	r := &messages.TaskRoute{Task: messages.Task{Name: "x", Concurrency: 8}, Replicas: []messages.Route{replica("a", "main", 0, ready), replica("b", "main", 0, ready), replica("c", "main", 1, ready)}}
	for name, c := range map[string]struct {
		load map[string]Load
		want string
		free int
	}{
		"quicker":               {map[string]Load{"a": {Latency: 25 * ms}, "b": {Latency: 10 * ms}}, "b a c", 3},
		"quicker and busier":    {map[string]Load{"a": {Latency: 25 * ms}, "b": {Latency: 10 * ms, InFlight: 2}}, "a b c", 3},
		"not known":             {map[string]Load{"a": {InFlight: 1}, "b": {Latency: 900 * ms}}, "b a c", 3},
		"too late":              {map[string]Load{"a": {Latency: 25 * ms, Late: true}, "b": {Latency: 30 * ms}}, "b c a", 2},
		"late rather than down": {map[string]Load{"a": {Down: true}, "b": {Late: true}}, "c b a", 1},
	} {
		for random := range uint64(8) {
			var got []string
			free := 0
			for _, e := range Candidates(r, "main", func(e *messages.Route) Load { return c.load[e.Agent] }, random) {
				got = append(got, e.Agent)
				if e.Free {
					free++
				}
			}
			if s := strings.Join(got, " "); s != c.want || free != c.free {
				t.Errorf("%s: %s with %d free, want %s with %d", name, s, free, c.want, c.free)
			}
		}
	}
}
