package examples

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is installed is named by its hash, and comes from wherever the user's npm gets its
// packages.
func TestLockFileNamesNoRegistry(t *testing.T) {
	text, err := os.ReadFile("../../examples/typescript/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct{ Resolved, Integrity string }
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	for name, p := range lock.Packages {
		if name != "" && p.Integrity == "" || p.Resolved != "" && !strings.HasPrefix(p.Resolved, "https://registry.npmjs.org/") {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if len(lock.Packages) < 4 {
		t.Errorf("%d packages", len(lock.Packages))
	}
}

// The commands of the README, as they stand there, tsc's included; then what users do wrong.
func TestTypeScript(t *testing.T) {
	t.Parallel()
	f := up(t)
	f.play("README.md")
	out := f.play("typescript/README.md")
	if out[1] != "an observation\n" {
		t.Errorf("infer: %q", out[1])
	}
	if !strings.Contains(out[2], "sent ") || !strings.Contains(out[2], "used ") || !strings.Contains(out[2], "median ") {
		t.Errorf("camera: %q", out[2])
	}
	if out[3] != "{\"positions\": [0.5]}\n" {
		t.Errorf("act: %q", out[3])
	}
	if len(out[4]) < 10 || out[4] != out[5] {
		t.Errorf("train: %q, then %q, want one job", out[4], out[5])
	}
	if last := out[len(out)-1]; last != "a wrench on a table\n" {
		t.Errorf("infer --stream: %q", last)
	}

	decisions, err := filepath.Abs("testdata/decisions.mjs")
	if err != nil {
		t.Fatal(err)
	}
	f.ok("node " + decisions + " examples/typescript/dist")

	const request = "node examples/typescript/dist/request.js "
	const long = `'{"joint_names": ["elbow"], "points": [{"t": 0.1, "positions": [0.2]}, {"t": 20, "positions": [0.5]}]}'`
	for _, tc := range []struct {
		line   string
		status int
		says   []string
	}{
		{request + "infer caption --data 'an image' --stream", 0, []string{"part 1: a wrench", "part 3:  a table"}},
		{request + "infer caption --data ''", 1, []string{"bad_request: ", "expected an image"}},
		{request + "act robot-1 move --data " + long + " --deadline-ms 30000 --cancel-after 0.5", 3,
			[]string{`part 1: {"positions": [0.2]}`, "50 % done", "told to stop", "unknown_outcome: ", "its caller gave it up"}},
		{request + "act robot-1 move --data nonsense", 1, []string{"bad_request: "}},
		{request + "act robot-9 move --data x --deadline-ms 1000", 1, []string{"not_connected: "}},
		{request + "infer nothing --data x", 1, []string{"not_found: "}},
		{request + "infer 'a b' --data x", 2, []string{`task: found "a b", allowed are`}},
		{request + "infer detect --data x --deadline-ms 0", 2, []string{"--deadline-ms: found 0"}},
		{request + "infer detect --data x --deadline-ms 0.5", 2, []string{"deadline: found 0.5 ms"}},
		{request + "infer detect", 2, []string{"--data is missing", "usage: "}},
		{request + "--fleet nobody infer detect --data x --deadline-ms 200", 1, []string{"unavailable: ", "no router runs for this fleet"}},
		{request + "--fleet nobody infer detect --data x --deadline-ms 200 --stream", 1, []string{"unavailable: ", "no router runs for this fleet"}},
		{request + "--server nats://127.0.0.1:1 infer detect --data x", 1, []string{"unavailable: no NATS server takes us on nats://127.0.0.1:1"}},
		{request + "--origin a.b infer detect --data x", 2, []string{`origin: found "a.b"`}},
		{request + "--creds absent infer detect --data x", 2, []string{"credentials absent: "}},
		{request + "train learn --data x", 2, []string{"--key is missing"}},
		{request + "dance", 2, []string{"usage: "}},
		{request + "--dance", 2, []string{"--dance", "usage: "}},
		{request + "camera nothing --hz 20 --seconds 0.2", 1, []string{"sent 4, skipped 0, not_found 4"}},
		{request + "camera detect --bytes 9000000 --seconds 0.1", 1, []string{"sent 1, skipped 0, payload_too_large 1"}},
	} {
		stdout, stderr, status := f.run(tc.line)
		bad := status != tc.status
		for _, text := range tc.says {
			bad = bad || !strings.Contains(stdout+stderr, text)
		}
		if bad {
			t.Errorf("%s: exit status %d, want %d and %q\n%s", tc.line, status, tc.status, tc.says, stdout+stderr)
		}
	}

	// An action that is asked for while the server is silent is not kept for later.
	link, err := filepath.Abs("testdata/link.mjs")
	if err != nil {
		t.Fatal(err)
	}
	f.ok(fmt.Sprintf("node %s examples/typescript/dist %s %d", link, f.url, f.proc("fleetbus up").Pid))
}
