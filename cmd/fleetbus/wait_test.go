package main

import (
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

func TestLacking(t *testing.T) {
	s := &messages.State{
		Agents: []messages.AgentInfo{{State: messages.AgentReady}, {State: messages.AgentLost}},
		Replicas: []messages.ReplicaInfo{
			{Task: "grasp", State: messages.ReplicaReady, Agent: "a"},
			{Task: "grasp", State: messages.ReplicaPending, Reason: "no room"},
		},
	}
	for _, c := range []struct {
		agents int
		placed []string
		want   string // "" where nothing is lacking
	}{
		{1, []string{"grasp"}, ""},
		{2, nil, "1 of 2 agents are ready"},
		{0, []string{"grasp=2"}, "1 of 2 replicas of grasp are ready (no room)"},
		{2, []string{"move"}, "1 of 2 agents are ready; 0 of 1 replicas of move are ready"},
	} {
		want, err := parsePlaced(c.placed)
		if err != nil {
			t.Fatal(err)
		}
		if got := lacking(s, c.agents, want); got != c.want {
			t.Errorf("%d agents, %v: got %q, want %q", c.agents, c.placed, got, c.want)
		}
	}
	for _, wrong := range []string{"", "a b", "grasp=0", "grasp=many"} {
		if _, err := parsePlaced([]string{wrong}); err == nil {
			t.Errorf("--placed %q was taken", wrong)
		}
	}
}

func TestRemaining(t *testing.T) {
	s := &messages.State{
		Agents:   []messages.AgentInfo{{Environment: messages.Environment{ID: "a"}}},
		Replicas: []messages.ReplicaInfo{{ID: "grasp/0", Agent: "a", State: messages.ReplicaReady, Reason: "no room elsewhere"}},
	}
	if got := remaining(s, "a"); !strings.Contains(got, "grasp/0 is still there, ready (no room elsewhere)") {
		t.Error(got)
	}
	s.Replicas[0].State = messages.ReplicaStopped
	if got := remaining(s, "a"); got != "the coordinator has not heard of the drain" {
		t.Error(got)
	}
	s.Agents[0].Drain = true
	if got := remaining(s, "a"); got != "" {
		t.Error(got)
	}
}

func TestMillis(t *testing.T) {
	for v, want := range map[float64]string{0: "", 0.0254: "0.025 ms", 1: "1 ms", 1.234: "1.23 ms", 24.871: "24.9 ms", 150.511: "151 ms", 10_000: "10s"} {
		if got := millis(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}
