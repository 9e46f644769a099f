package placement

import (
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
