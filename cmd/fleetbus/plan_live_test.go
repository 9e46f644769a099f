package main

import (
	"testing"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/internal/planreport"
	"github.com/fleetbus/fleetbus/messages"
)

// A live fleet is planned with what was measured, on what is there and stays.
func TestPlanOfALiveFleet(t *testing.T) {
	env := func(id string, latency float64) messages.Environment {
		return messages.Environment{ID: id, Tier: messages.Edge, Capacity: messages.Resources{Compute: 100}, Latency: latency, Handlers: []string{messages.AnyHandler}}.Normal()
	}
	work := 1000.0
	s := &messages.State{
		Settings: messages.Settings{V: 1, WeightLatency: 1, WeightCost: 1, Mode: messages.Adaptive},
		Agents: []messages.AgentInfo{
			{Environment: env("near", 1), State: messages.AgentReady},
			{Environment: env("far", 5), State: messages.AgentReady},
			{Environment: env("full", 0), State: messages.AgentReady, Foreign: messages.Resources{Compute: 95}},
			{Environment: env("gone", 0), State: messages.AgentLost},
			{Environment: env("leaving", 0), State: messages.AgentReady, Drain: true},
		},
		Tasks:    []messages.Task{messages.Task{Name: "see", Class: messages.Inference, Work: &work, Demand: messages.Resources{Compute: 10}}.Normal()},
		Replicas: []messages.ReplicaInfo{{ID: "see/0", Task: "see", Agent: "near"}},
		Measured: []messages.MeasuredDelay{{Task: "see", Agent: "near", Delay: 40, Modelled: 11}, {Task: "see", Agent: "gone", Delay: 1}},
	}
	l := liveOf(s, "fleet")
	if len(l.file.Environments) != 3 || len(l.file.Measured) != 1 || l.file.Measured[alloc.Pair{Task: "see", Environment: "near"}] != 40 {
		t.Fatalf("environments %+v, measured %v", l.file.Environments, l.file.Measured)
	}
	r, err := planreport.Build(l.file)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.apart(r); len(got) != 1 || got[0] != (apart{"see/0", "near", "far"}) {
		t.Errorf("it stands otherwise: %+v", got)
	}
	s.Settings.Mode = messages.Dynamic
	l = liveOf(s, "fleet")
	if r, err = planreport.Build(l.file); err != nil || len(l.apart(r)) != 0 {
		t.Errorf("mode dynamic: %v, %+v", err, l.apart(r))
	}
}
