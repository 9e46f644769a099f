package bus

import "testing"

func TestAgentOf(t *testing.T) {
	for name, want := range map[string][2]string{
		AgentConn("demo", "edge-1"):   {"demo", "edge-1"},
		BeatConn("demo", "edge-1"):    {"demo", "edge-1"},
		"fleetbus agent edge-1":       {},
		"fleetbus agent demo/*":       {},
		"fleetbus agent /edge-1":      {},
		"fleetbus agent a/b/c":        {},
		"fleetbus coordinator demo/a": {},
		"":                            {},
	} {
		fleet, agent, ok := AgentOf(name)
		if ok != (want[1] != "") || fleet != want[0] || agent != want[1] {
			t.Errorf("%q is of agent %q of fleet %q (%v), want %v", name, agent, fleet, ok, want)
		}
	}
}
