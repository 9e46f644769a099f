package placement

import (
	"maps"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// A single request of enormous work, given up on at once, made its replica look as if it
// took forty times what its machine has, and kept everything else away from it.
func TestLoadOfOneEnormousRequest(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	a := w.add(environment("cloud-1", messages.Cloud, 1000, 1000, 1))
	work := 1e8 // GFLOP: 100 s of the whole machine
	w.desire(messages.Task{Name: "learn", Class: messages.Training, Demand: messages.Resources{Compute: 1}, Work: &work})
	w.elect()
	w.run(3 * time.Second)
	a.rate["learn/0"] = 0.36
	w.run(time.Second)
	if used := w.m.State().Agents[0].Planned.Compute; used > 1000 {
		t.Errorf("%v of 1000 TFLOPS are said to be used", used)
	}
	delete(a.rate, "learn/0")
	w.run(time.Minute)
	if used := w.m.State().Agents[0].Planned.Compute; used != 1 {
		t.Errorf("a minute after the request %v TFLOPS are still held for it", used)
	}
}

// Tasks that are applied at once come one by one, so their dwells end one by one, too. An
// environment that must shed all of them but one kept the wrong one: when the first dwell was
// over, the others could not move yet.
func TestPlacedTogetherMoveTogether(t *testing.T) {
	w := newWorld(t, 1)
	w.step(LinkUp{})
	edge := w.add(environment("edge-1", messages.Edge, 100, 1000, 1))
	w.add(environment("edge-2", messages.Edge, 15, 1000, 3)) // room for one
	w.add(environment("cloud-1", messages.Cloud, 1000, 1000, 20))
	w.elect()
	w.run(3 * time.Second)
	var tasks []messages.Task
	for _, c := range []struct {
		name string
		work float64
	}{{"small", 100}, {"tiny", 50}, {"large", 400}, {"huge", 800}} {
		tasks = append(tasks, messages.Task{Name: c.name, Class: messages.Inference, Work: &c.work, Demand: messages.Resources{Compute: 10}})
		w.desire(tasks...)
		w.run(time.Millisecond)
	}
	w.run(3 * time.Second)
	edge.foreign = messages.Resources{Compute: 88}
	w.run(30 * time.Second)
	got := make(map[string]string)
	for _, r := range w.m.State().Replicas {
		got[r.ID] = r.Agent
	}
	if want := map[string]string{"tiny/0": "edge-2", "small/0": "edge-1", "large/0": "cloud-1", "huge/0": "cloud-1"}; !maps.Equal(got, want) {
		t.Errorf("they are on %v, best is %v", got, want)
	}
}
