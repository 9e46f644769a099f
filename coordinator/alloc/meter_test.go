package alloc

import (
	"math"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

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
		{"too few requests", 0, []Sample{{19, 40}}, false, 0},
		{"no number", 0, []Sample{{50, math.NaN()}, {50, math.Inf(1)}, {50, -1}, {50, 0}, {50, 1e300}}, false, 0},
		{"enough", 0, []Sample{{20, 40}}, true, 50.5},
		{"noise", time.Second, []Sample{{30, 45}}, false, 50.5},
		{"more than noise", time.Second, []Sample{{40, 45.6}}, true, 56.1},
		{"two replicas", time.Second, []Sample{{40, 20}, {99, 30}, {3, 900}}, true, 35.5},
		{"nobody there any more", 20 * time.Minute, nil, false, 35.5},
		{"still remembered", 10 * time.Minute, nil, false, 35.5},
		{"forgotten", time.Second, nil, false, 0},
		{"measured anew", 0, []Sample{{20, 40}}, true, 50.5},
	} {
		now = now.Add(tt.after)
		if got := m.Observe(now, x, e, tt.samples...); got != tt.changed {
			t.Errorf("%s: changed is %v", tt.name, got)
		}
		got, ok := m.Delays(now)[Pair{"t", "edge"}]
		if ok != (tt.want > 0) || math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		want := tt.want
		if want == 0 {
			want = 10.6
		}
		near(t, tt.name, m.Delay(now, x, e), want)
	}
	// Of another machine, or of a task that does other work, it says nothing.
	e.Capacity.Compute = 200
	if !m.Observe(now, x, e) || len(m.Delays(now)) != 0 {
		t.Error("the environment is another one now")
	}
	m.Observe(now, x, e, Sample{20, 40})
	x.Handler = "other"
	if !m.Observe(now, x, e, Sample{20, 80}) || m.Delay(now, x, e) != 90.5 {
		t.Error("the task is another one now")
	}
	e.Capacity.Network = 0 // nothing can be transferred: the way has no end
	if !m.Observe(now, x, e, Sample{20, 80}) || len(m.Delays(now)) != 0 {
		t.Error("an endless delay is believed")
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
		p.Measured = m.Delays(now)
		plan := mustSolve(t, p)
		e := plan.Assignments[1].Environment
		if e != where {
			where = e
			moved++
		}
		p.Current = currentOf(plan)
		now = now.Add(10 * time.Second)
		m.Observe(now, p.Replicas[1].Task, p.Environments[map[string]int{"cloud": 0, "edge": 1}[e]].Environment, Sample{100, service[e]})
	}
	if where != "cloud" || moved != 2 {
		t.Errorf("it is on %s after %d places", where, moved)
	}
}
