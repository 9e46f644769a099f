package messages

import (
	"reflect"
	"strings"
	"testing"
)

func TestInterruptCheck(t *testing.T) {
	for _, i := range []Interrupt{InterruptPinned, InterruptAllow, InterruptNever} {
		if err := i.Check("interrupt"); err != nil {
			t.Errorf("%q: %v", i, err)
		}
	}
	task := aTask
	task.Interrupt, task.Replicas = "sometimes", 0
	if err := task.Check("task."); err == nil || !strings.Contains(err.Error(), `interrupt: found "sometimes", allowed are allow, never`) {
		t.Errorf("%v", err)
	}
}

// What only the planner or routers read restarts nothing; what a handler may see does.
func TestService(t *testing.T) {
	planner := aTask
	planner.Demand, planner.Replicas, planner.Priority, planner.Limit, planner.Revision = Resources{Compute: 1}, 9, 1, 1, 10
	planner.Interrupt, planner.Labels, planner.Tiers = InterruptNever, nil, nil
	planner.Idempotent = true
	if !reflect.DeepEqual(planner.Service(), aTask.Service()) {
		t.Error("a change for the planner is taken for another service")
	}
	for name, change := range map[string]func(*Task){
		"handler": func(t *Task) { t.Handler = "other" }, "concurrency": func(t *Task) { t.Concurrency++ },
		"delivery": func(t *Task) { t.Delivery = Durable }, "class": func(t *Task) { t.Class = Training },
		"work": func(t *Task) { t.Work = ptr(1.0) }, "attempts": func(t *Task) { t.MaxAttempts++ },
	} {
		other := aTask
		change(&other)
		if reflect.DeepEqual(other.Service(), aTask.Service()) {
			t.Errorf("another %s is taken for the same service", name)
		}
	}
}
