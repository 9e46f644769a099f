package alloc

import (
	"math"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// served makes samples of what agents said that know nothing of their own load.
func served(pairs ...float64) (list []Sample) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, Sample{Served: uint64(pairs[i]), Service: pairs[i+1]})
	}
	return list
}

func TestMeterBelievesWhatIsEnough(t *testing.T) {
	e := env("edge", messages.Edge, 100, 1000, 100, 10, 5).Environment
	x := task("t", messages.Inference, 10, 50, 50, 100, 0) // by the model 0.1 + 0.5 + 10 ms
	now := time.Unix(1_000, 0)
	var m Meter
	for _, tt := range []struct {
		name    string
		after   time.Duration
		samples []Sample
		changed bool
		want    float64 // 0: nothing is believed
	}{
		{"nothing", 0, nil, false, 0},
		{"too few requests", 0, served(19, 40), false, 0},
		{"no number", 0, served(50, math.NaN(), 50, math.Inf(1), 50, -1, 50, 0, 50, 1e300), false, 0},
		{"enough", 0, served(20, 40), true, 50.5},
		{"noise", time.Minute, served(30, 43), false, 50.5},
		{"once is not yet so", time.Second, served(40, 55), false, 50.5},
		{"back", time.Minute, served(40, 40), false, 50.5},
		{"more than noise", time.Hour, served(40, 45.6), true, 56.1},
		{"two replicas", time.Hour, served(40, 20, 99, 30, 3, 900), true, 35.5},
		{"nobody there any more", 19 * time.Minute, nil, false, 35.5},
		{"half of it", 2 * time.Minute, nil, false, 10.5 + (25+0.1)/2},
		{"still half of it", 18 * time.Minute, nil, false, 10.5 + (25+0.1)/2},
		{"forgotten", 2 * time.Minute, nil, false, 0},
		{"measured anew", 0, served(20, 40), true, 50.5},
	} {
		now = now.Add(tt.after)
		if got := m.Observe(now, x, e, tt.samples...); got != tt.changed {
			t.Errorf("%s: changed is %v", tt.name, got)
		}
		if got := len(m.Pairs(now)); got != min(1, int(tt.want)) {
			t.Errorf("%s: something is believed of %d", tt.name, got)
		}
		want := tt.want
		if want == 0 {
			want = 10.6
		}
		near(t, tt.name, m.Delay(now, x, e), want)
	}
	// The way to it is no property of it.
	e.Latency = 30
	near(t, "farther", m.Delay(now, x, e), 70.5)
	e.Latency = 10
	// Of another machine, or of a task that does other work, it says nothing.
	e.Capacity.Compute = 200
	if _, ok := m.Believed(now, x, e); ok || !m.Observe(now, x, e) || len(m.Pairs(now)) != 0 {
		t.Error("the environment is another one now")
	}
	m.Observe(now, x, e, served(20, 40)...)
	x.Handler = "other"
	if !m.Observe(now, x, e, served(20, 80)...) || m.Delay(now, x, e) != 90.5 {
		t.Error("the task is another one now")
	}
	e.Capacity.Network = 0 // nothing can be transferred: the way has no end
	if !m.Observe(now, x, e, served(20, 80)...) || len(m.Pairs(now)) != 0 {
		t.Error("an endless delay is believed")
	}
}

// What our own load adds is taken off, down to what the model says and no further; bodies
// count as they are.
func TestMeterTakesOwnLoadOut(t *testing.T) {
	e := env("edge", messages.Edge, 1, 1000, 100, 10, 5).Environment
	x := task("t", messages.Inference, 20, 50, 50, 100, 0) // by the model 20 + 0.5 + 10 ms
	for name, tt := range map[string]struct {
		sample Sample
		want   float64
	}{
		"as it is":               {Sample{Service: 50}, 60.5},
		"crowded":                {Sample{Service: 50, Alone: 30}, 40.5},
		"it cannot be so quick":  {Sample{Service: 50, Alone: 5}, 30.5},
		"quicker than the model": {Sample{Service: 15, Alone: 5}, 25.5},
		"nonsense":               {Sample{Service: 50, Alone: 70}, 60.5},
		"larger bodies":          {Sample{Service: 50, Alone: 30, Kbit: 2000}, 60},
	} {
		var m Meter
		tt.sample.Served = 20
		if !m.Observe(time.Unix(1, 0), x, e, tt.sample) {
			t.Errorf("%s: not believed", name)
		}
		near(t, name, m.Delay(time.Unix(1, 0), x, e), tt.want)
	}
}

// A place that is slower than the model says is left, and not taken again on the word of
// the model.
func TestMeterKeepsAPlanFromGoingBackAndForth(t *testing.T) {
	var m Meter
	p := threeTiers()
	p.Settings.Mode = messages.Adaptive
	now := time.Unix(1_000, 0)
	service := map[string]float64{"edge": 70, "cloud": 1} // ms; the model says 0.1 and 0.01
	where, moved := "", 0
	for range 100 {
		p.Measured = make(map[Pair]float64)
		for _, pair := range m.Pairs(now) {
			p.Measured[pair] = m.Delay(now, p.Replicas[1].Task, p.Environments[map[string]int{"cloud": 0, "edge": 1}[pair.Environment]].Environment)
		}
		plan := mustSolve(t, p)
		e := plan.Assignments[1].Environment
		if e != where {
			where = e
			moved++
		}
		p.Current = currentOf(plan)
		now = now.Add(10 * time.Second)
		m.Observe(now, p.Replicas[1].Task, p.Environments[map[string]int{"cloud": 0, "edge": 1}[e]].Environment, Sample{Served: 100, Service: service[e]})
	}
	if where != "cloud" || moved != 2 {
		t.Errorf("it is on %s after %d places", where, moved)
	}
}
