package simulate

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	"github.com/fleetbus/fleetbus/messages"
)

func environment(p, b, l float64) messages.Environment {
	return messages.Environment{ID: "e", Tier: messages.Edge, Capacity: messages.Resources{Compute: p, Storage: 1000, Network: b}, Latency: l}
}

func task(class messages.Class, compute, storage, network float64) messages.Task {
	return messages.Task{Name: "t", Class: class, Demand: messages.Resources{Compute: compute, Storage: storage, Network: network}}
}

// TestDelay has the numbers of the model's full matrix.
func TestDelay(t *testing.T) {
	cloud, edge, robot := environment(1000, 1000, 50), environment(100, 100, 10), environment(10, 10, 1)
	for _, c := range []struct {
		t    messages.Task
		e    messages.Environment
		link bool
		want float64
	}{
		{task(messages.Training, 500, 5000, 100), cloud, true, 55.5},
		{task(messages.Training, 500, 5000, 100), edge, true, 65},
		{task(messages.Training, 500, 5000, 100), robot, true, 551},
		{task(messages.Inference, 10, 10, 50), cloud, true, 50.02},
		{task(messages.Inference, 10, 10, 50), edge, true, 10.2},
		{task(messages.Inference, 10, 10, 50), robot, true, 3},
		{task(messages.Action, 1, 1, 10), robot, true, 1.2},
		{task(messages.Action, 1, 1, 10), robot, false, 0.1},
		{task(messages.Action, 0, 0, 0), environment(0, 0, 0), true, 0},
	} {
		if got := Delay(c.t, c.e, c.link); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v on %+v: %v, want %v", c.t.Demand, c.e.Capacity, got, c.want)
		}
	}
}

func open(t *testing.T, o Options, task messages.Task, e messages.Environment) backend.Server {
	t.Helper()
	s, err := New(o).Open(t.Context(), backend.Open{Replica: "t/0", Task: task, Environment: e})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTakesAsLongAsTheModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edge := environment(100, 100, 10)
		for _, c := range []struct {
			o    Options
			task messages.Task
			want time.Duration
			body string
		}{
			{Options{}, task(messages.Inference, 10, 10, 50), 100 * time.Microsecond, "ok"},
			{Options{Link: true}, task(messages.Inference, 10, 10, 50), 10200 * time.Microsecond, "ok"},
			{Options{Link: true, Scale: 10, Echo: true}, task(messages.Inference, 10, 10, 50), 102 * time.Millisecond, "in"},
			{Options{Reply: []byte("yes")}, task(messages.Action, 0, 0, 0), 0, "yes"},
			{Options{Scale: 1000}, task(messages.Training, 500, 5000, 100), 5 * time.Second, "ok"},
		} {
			var progress []float64
			req := &backend.Request{Request: messages.Request{Class: c.task.Class}, Body: []byte("in"), Progress: func(d float64, _ string) { progress = append(progress, d) }}
			start := time.Now()
			r, err := open(t, c.o, c.task, edge).Serve(t.Context(), req)
			if took := time.Since(start); err != nil || took != c.want || string(r.Body) != c.body {
				t.Errorf("%+v: %v, %q, %v", c.o, took, r.Body, err)
			}
			if c.task.Class == messages.Training && (len(progress) != 10 || progress[0] != 0.1 || progress[9] != 1) || c.task.Class != messages.Training && progress != nil {
				t.Errorf("progress %v", progress)
			}
		}
	})
}

func TestIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := open(t, Options{Scale: 1e6}, task(messages.Inference, 10, 10, 50), environment(100, 100, 10))
		start := time.Now()
		_, err := s.Serve(ctx, &backend.Request{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Error(err, time.Since(start))
		}
	})
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		o Options
		e messages.Environment
	}{
		{Options{}, environment(0, 100, 10)},
		{Options{Link: true}, environment(100, 0, 10)},
		{Options{Scale: -1}, environment(100, 100, 10)},
		{Options{Scale: math.NaN()}, environment(100, 100, 10)},
		{Options{Steps: -1}, environment(100, 100, 10)},
	} {
		_, err := New(c.o).Open(t.Context(), backend.Open{Task: task(messages.Inference, 10, 10, 50), Environment: c.e})
		if messages.CodeOf(err) != messages.CodeBadRequest {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
	if New(Options{}).Name() != messages.AnyHandler || New(Options{Name: "sim"}).Name() != "sim" {
		t.Error("name")
	}
}

// What it simulates has no model that could fail or hang; the rest of the suite holds.
func TestConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Kind{
		Start: func(*testing.T) backend.Handler { return New(Options{Name: "suite", Echo: true}) },
		Fixed: true,
		Unready: []backendtest.Unready{{Name: "scale", Code: messages.CodeBadRequest, Text: "scale: found -1",
			Start: func(*testing.T) backend.Handler { return New(Options{Scale: -1}) }}},
	})
}
