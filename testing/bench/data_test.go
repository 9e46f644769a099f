package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/oip"
)

// figuresOf runs a benchmark and returns its figures by case and metric.
func figuresOf(t *testing.T, args ...string) map[string]figure {
	t.Helper()
	var out strings.Builder
	if err := run(append(args, "--json"), &out); err != nil {
		t.Fatal(err)
	}
	list := map[string]figure{}
	for line := range strings.Lines(out.String()) {
		var f figure
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if f.Bench != args[0] {
			t.Errorf("bench of %s", line)
		}
		list[f.Case+" "+f.Metric] = f
	}
	return list
}

func TestDataFigures(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"request", "--time", "10ms"}, []string{"direct/128 p50", "direct/301436 p99", "direct/c64 rate", "service/128 max"}},
		{[]string{"durable", "--time", "10ms"}, []string{"inference/128 p50", "inference/128 rate"}},
		{[]string{"jobs", "--time", "10ms", "--case", "loop"}, []string{"loop rate"}},
		{[]string{"failover", "--kills", "1", "--case", "sigkill/direct,sigstop/durable"}, []string{"sigkill/direct p99", "sigstop/durable max"}},
		{[]string{"openpi", "--time", "2s", "--kill", "700ms", "--clients", "3"}, []string{"droid p50", "droid added p99", "droid kills", "droid answers"}},
		{[]string{"oip", "--time", "10ms"}, []string{"conformance checks passed", "tensor/32 p50", "bytes/301436 p99"}},
		{[]string{"exec", "--time", "10ms"}, []string{"backend/128 p50", "fleet/301436 rate"}},
	} {
		t.Run(tc.args[0], func(t *testing.T) {
			list := figuresOf(t, tc.args...)
			for _, w := range tc.want {
				f, ok := list[w]
				if !ok || f.Value <= 0 {
					t.Errorf("%s is %+v", w, f)
				}
				alone := tc.args[0] == "failover" || strings.Contains(w, "droid added") || strings.Contains(w, "kills") || strings.Contains(w, "answers") || strings.Contains(w, "checks")
				if ok && !alone && (f.Baseline <= 0 || f.Ratio <= 0) {
					t.Errorf("%s has nothing beside it: %+v", w, f)
				}
			}
		})
	}
}

// A fault planted in the executor is noticed by each benchmark's own check.
func TestDataFaults(t *testing.T) {
	for _, bench := range [][]string{
		{"request", "--case", "direct/128", "--time", "10ms"},
		{"durable", "--time", "10ms"},
		{"jobs", "--time", "10ms", "--case", "loop"},
		{"failover", "--kills", "1", "--case", "sigkill/direct"},
		{"openpi", "--time", "10s", "--kill", "0"},
		{"exec", "--case", "fleet/128", "--time", "10ms"},
	} {
		for fault, want := range map[string]string{faultWrong: "is to another request", faultDrop: "deadline_exceeded"} {
			t.Run(bench[0]+" "+fault, func(t *testing.T) {
				t.Parallel()
				var out strings.Builder
				err := run(append(bench, "--fault", fault), &out)
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v; it printed\n%s", err, out.String())
				}
			})
		}
	}
}

func TestDataFlags(t *testing.T) {
	for _, args := range [][]string{
		{"openpi", "--clients", "0"}, {"openpi", "--fault", "x"}, {"openpi", "--rate", "x"}, {"oip", "--case", "x"}, {"exec", "x"}, {"request", "--case", "x"}, {"request", "--time", "0s"}, {"durable", "--fault", "x"}, {"request", "x"},
		{"failover", "--kills", "0"}, {"failover", "--leader-kills", "1001"}, {"failover", "--nothing"},
	} {
		var out strings.Builder
		if err := run(args, &out); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

func TestPercentile(t *testing.T) {
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(100-i))
	}
	for p, want := range map[float64]time.Duration{0.5: 51, 0.99: 100, 1: 100, 0: 1} {
		if got := percentile(times, p); got != want {
			t.Errorf("%v: %v, want %v", p, got, want)
		}
	}
	if percentile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}

func TestGap(t *testing.T) {
	now := time.Now()
	at := func(ms ...int) *clockwork {
		c := new(clockwork)
		for _, v := range ms {
			c.times = append(c.times, now.Add(time.Duration(v)*time.Millisecond))
		}
		return c
	}
	c := at(-5000, -1000, -990, -700, -690, 1)
	if g := c.gap(now.Add(-980 * time.Millisecond)).Round(time.Millisecond); g != 691*time.Millisecond {
		t.Errorf("longest gap is %v", g)
	}
	if !c.after(now) || c.after(now.Add(time.Second)) {
		t.Error("after")
	}
}

// What is planted in the model server is noticed by the conformance run through the gateway.
func TestOIPFaults(t *testing.T) {
	for _, fault := range []string{oip.FaultHeader, oip.FaultBytes, oip.FaultStatus} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := run([]string{"oip", "--case", "conformance", "--fault", fault}, &out)
			if err == nil || !strings.Contains(err.Error(), "checks failed") {
				t.Errorf("%v; it printed\n%s", err, out.String())
			}
		})
	}
}

// What was promised before a power cut and does not hold is counted.
func TestPowercutPromises(t *testing.T) {
	p := &promises{stored: []string{"a", "b", "c", "d"}, ended: map[string]bool{"b": true, "c": true}}
	states := map[string]messages.GoalState{"a": messages.GoalAccepted, "b": messages.GoalSucceeded, "c": messages.GoalExecuting, "x": messages.GoalSucceeded}
	if lost, undone := p.broken(states); lost != 1 || undone != 1 {
		t.Errorf("%d lost and %d undone, want 1 and 1", lost, undone)
	}
	delete(states, "b") // its result is lost with it
	if lost, undone := p.broken(states); lost != 2 || undone != 2 {
		t.Errorf("%d lost and %d undone, want 2 and 2", lost, undone)
	}
	states["b"] = messages.GoalSucceeded
	states["c"], states["d"] = messages.GoalSucceeded, messages.GoalAccepted
	if lost, undone := p.broken(states); lost != 0 || undone != 0 {
		t.Errorf("%d lost and %d undone of what is all there", lost, undone)
	}
}
