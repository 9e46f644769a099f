package main

import (
	"io"
	"strings"
	"testing"
)

// A small fleet and a small body: what is large about the benchmark is not what is tested.
func TestSyncFigures(t *testing.T) {
	list := figuresOf(t, "sync", "--environments", "4", "--away", "2", "--mb", "24")
	const name = "24MB/4/2away "
	for _, m := range []string{"upload", "converged_present", "converged_after_return", "round_trip_p99_meanwhile", "memory_peak_server"} {
		if f := list[name+m]; f.Value <= 0 {
			t.Errorf("%s is %+v", m, f)
		}
	}
	if f := list[name+"bytes_received"]; f.Baseline != 4*24e6 || f.Ratio < 1 || f.Ratio > 1.3 {
		t.Errorf("bytes: %+v", f)
	}
}

func TestSyncFaults(t *testing.T) {
	for fault, want := range map[string]string{"lazy": "env-0 is said to hold the body", "rot": "env-0 is said to hold the body, and has"} {
		err := run([]string{"sync", "--environments", "2", "--away", "0", "--mb", "1", "--fault", fault}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", fault, err)
		}
	}
	for _, bad := range [][]string{{"--away", "20"}, {"--mb", "0"}, {"--environments", "0"}, {"--fault", "x"}, {"file"}} {
		if err := run(append([]string{"sync"}, bad...), io.Discard); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
