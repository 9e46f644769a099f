package examples

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every Python file of the examples compiles, ROS 2's included.
func TestPythonCompiles(t *testing.T) {
	found := 0
	err := filepath.WalkDir(filepath.Join(dir, "examples"), func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".py") {
			found++
			f := &fleet{t: t}
			f.ok("python3 -c 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], \"exec\")' " + path)
		}
		return err
	})
	if err != nil || found < 6 {
		t.Fatalf("%d files, %v", found, err)
	}
}

// What decides in the examples, alone: unit tests in Python.
func TestPythonDecisions(t *testing.T) {
	f := &fleet{t: t}
	tests, err := filepath.Abs("testdata/decisions_test.py")
	if err != nil {
		t.Fatal(err)
	}
	f.ok("PYTHONPATH=examples/python:examples/exec-python:$PYTHONPATH python3 " + tests)
}

// The commands of the READMEs, as they stand there, and then what users do wrong.
func TestPython(t *testing.T) {
	t.Parallel()
	f := up(t)
	f.play("README.md")
	out := f.play("python/README.md")
	if out[0] != "an observation\n" {
		t.Errorf("infer: %q", out[0])
	}
	if !strings.Contains(out[1], "sent ") || !strings.Contains(out[1], "used ") || !strings.Contains(out[1], "median ") {
		t.Errorf("camera: %q", out[1])
	}
	var end struct{ Positions []float64 }
	if err := json.Unmarshal([]byte(out[2]), &end); err != nil || len(end.Positions) != 1 || end.Positions[0] != 0.5 {
		t.Errorf("act: %q %v", out[2], err)
	}
	if len(out[3]) < 10 || out[3] != out[4] {
		t.Errorf("train: %q, then %q, want one job", out[3], out[4])
	}

	const request = "python3 examples/python/request.py "
	const long = `'{"joint_names": ["elbow"], "points": [{"t": 0.1, "positions": [0.2]}, {"t": 20, "positions": [0.5]}]}'`
	for _, tc := range []struct {
		line   string
		status int
		says   []string
	}{
		{request + "act robot-1 move --data " + long + " --deadline-ms 30000 --cancel-after 0.5", 3,
			[]string{`part 1: {"positions": [0.2]}`, "50 % done", "told to stop", "unknown_outcome: ", "its caller gave it up"}},
		{request + "act robot-1 move --data nonsense", 1, []string{"bad_request: ", "no trajectory"}},
		{request + "act robot-9 move --data x --deadline-ms 1000", 1, []string{"not_connected: "}},
		{request + "infer nothing --data x", 1, []string{"not_found: "}},
		{request + "infer caption --data x --deadline-ms 1000", 1, []string{"no_capacity: task caption", "fix: an agent with handler caption"}},
		{request + "infer 'a b' --data x", 2, []string{`task: found 'a b', allowed are`}},
		{request + "infer detect --data x --deadline-ms 0", 2, []string{"deadline: found 0 ms"}},
		{request + "--fleet nobody infer detect --data x --deadline-ms 200", 1, []string{"unavailable: ", "no router runs for this fleet"}},
		{request + "--server nats://127.0.0.1:1 infer detect --data x", 1, []string{"unavailable: no NATS server answers on nats://127.0.0.1:1"}},
		{request + "--origin a.b infer detect --data x", 2, []string{"origin: found 'a.b'"}},
		{request + "train learn --data x", 2, []string{"--key"}},
		{"python3 examples/python/camera.py nothing --hz 20 --seconds 0.2", 1, []string{"sent 4, skipped 0, not_found 4"}},
		{"python3 examples/python/camera.py detect --hz 0", 2, []string{"--hz 0.0"}},
		{"python3 examples/python/camera.py detect --bytes 9000000 --seconds 0.1", 1, []string{"sent 1, skipped 0, payload_too_large 1"}},
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
	// A camera that is quicker than the model: the frames in between are superseded.
	f.follow(`fleetbus agent --id edge-9 --tier edge --compute 100TFLOPS --exec caption='python3 -c "
import sys; sys.path.insert(0, \"examples/exec-python\")
import echo, time
echo.serve = lambda header, body: time.sleep(0.2) or body
echo.main()"'`)
	f.ok("fleetbus wait --placed caption")
	slow, _ := f.ok("python3 examples/python/camera.py caption --hz 15 --seconds 2 --deadline-ms 2000")
	t.Log("a model that takes 200 ms: ", slow)
	if !strings.Contains(slow, "superseded ") || !strings.Contains(slow, "used ") {
		t.Error("no frame was superseded, or none used")
	}

	// A robot that is lost while it moves: nobody knows how far it came, and nothing is sent again.
	began := f.follow(request + "act robot-1 move --data " + long + " --deadline-ms 30000")
	began.until("part 1")
	if err := f.proc("--id robot-1").Kill(); err != nil {
		t.Fatal(err)
	}
	if stderr, status := began.end(); status != 3 || !strings.Contains(stderr, "unknown_outcome: ") {
		t.Errorf("a robot that is lost: exit status %d\n%s", status, stderr)
	}
}
