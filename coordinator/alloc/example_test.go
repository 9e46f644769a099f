package alloc_test

import (
	"fmt"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

func Example() {
	envs := []messages.Environment{
		{ID: "cloud", Tier: messages.Cloud, Capacity: messages.Resources{Compute: 1000, Network: 1000}, Latency: 50, Price: 10, Offline: true},
		{ID: "edge", Tier: messages.Edge, Capacity: messages.Resources{Compute: 100, Network: 100}, Latency: 10, Price: 5, Offline: true},
	}
	tasks := []messages.Task{
		{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: 10, Network: 50}, Limit: 100, Replicas: 2},
		{Name: "grasp", Class: messages.Inference, Demand: messages.Resources{Compute: 20, Network: 20}, Limit: 5},
	}
	p := alloc.Problem{Replicas: alloc.Expand(tasks, envs), Settings: messages.DefaultSettings()}
	for _, e := range envs {
		p.Environments = append(p.Environments, alloc.Environment{Environment: e})
	}
	plan, err := alloc.Solve(p)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range plan.Assignments {
		fmt.Printf("%s on %s: %g ms\n", a.Replica, a.Environment, a.Delay)
	}
	for _, w := range plan.Waiting {
		fmt.Printf("%s waits; %s\n", w.Replica, w.Fix)
	}
	// Output:
	// detect/0 on edge: 10.1 ms
	// detect/1 on cloud: 50.01 ms
	// grasp/0 waits; raise limit from 5 ms to 10.2 ms (edge)
}
