package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// The demo's verdict is worth something only if it can fail: with a fault planted in the
// executors it must say so and exit with 1.
func TestDemoFindsPlantedFaults(t *testing.T) {
	for _, c := range []struct {
		fault string
		count func(v verdict) int
	}{
		{"drop", func(v verdict) int { return v.Requests.Lost }},
		{"twice", func(v verdict) int { return v.Requests.Twice }},
	} {
		t.Run(c.fault, func(t *testing.T) {
			v, status := demo(t, "FB_FAULT="+c.fault)
			if status != 1 || v.OK || c.count(v) == 0 {
				t.Errorf("exit status %d, verdict %+v", status, v)
			}
		})
	}
}

// And without one, it must not.
func TestDemoWithoutFault(t *testing.T) {
	if v, status := demo(t, ""); status != 0 || !v.OK || v.Requests.Lost+v.Requests.Twice > 0 {
		t.Errorf("exit status %d, verdict %+v", status, v)
	}
}

type verdict struct {
	OK       bool
	Requests struct {
		Sent, Answered, Lost, Twice int
		Violations                  []any
	}
}

// demo runs a short demo, one kill and the coordinator's.
func demo(t *testing.T, env string) (verdict, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "demo", "--json", "--kills", "1", "--calm", "1s")
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var v verdict
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("the demo printed no result: %v\n%s", err, out)
	}
	return v, cmd.ProcessState.ExitCode()
}
