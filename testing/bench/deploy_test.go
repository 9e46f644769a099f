package main

import (
	"io"
	"strings"
	"testing"
)

// A few agents and a small artifact: what is large about the benchmark is not what is tested.
func TestDeployFigures(t *testing.T) {
	list := figuresOf(t, "deploy", "--agents", "2", "--mb", "24")
	const name = "24MB/2agents "
	for _, m := range []string{"push", "all_ready", "rate", "interrupted_at", "memory_peak_server", "children_gone_max"} {
		if f := list[name+m]; f.Value <= 0 {
			t.Errorf("%s is %+v", m, f)
		}
	}
	if f := list[name+"verified"]; f.Ratio != 1 {
		t.Errorf("verified: %+v", f)
	}
	if f := list[name+"killed_processes"]; f.Value != 4 {
		t.Errorf("killed: %+v", f)
	}
}

func TestDeployFaults(t *testing.T) {
	for fault, want := range map[string]string{"rot": "agent-0 is said to have the artifact, and has", "orphan": "waiting for the processes of agent-0 to be gone after it was killed: process"} {
		err := run([]string{"deploy", "--agents", "1", "--mb", "1", "--fault", fault}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", fault, err)
		}
	}
	for _, bad := range [][]string{{"--agents", "0"}, {"--mb", "0"}, {"--fault", "x"}, {"file"}} {
		if err := run(append([]string{"deploy"}, bad...), io.Discard); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
