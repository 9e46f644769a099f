package examples

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The package for ROS 2 is whole in itself: it has copies of two files, which stay equal.
func TestBridgeHasThePythonFiles(t *testing.T) {
	for _, name := range []string{"wire.py", "ask.py"} {
		one, err := os.ReadFile(filepath.Join("../../examples/python", name))
		if err != nil {
			t.Fatal(err)
		}
		other, err := os.ReadFile(filepath.Join("../../examples/ros2/fleetbus_action_bridge/fleetbus_action_bridge", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, other) {
			t.Errorf("%s: copy examples/python/%s into examples/ros2/fleetbus_action_bridge", name, name)
		}
	}
}

// The bridge forwards goals, refusals and cancellations, and says what became of a goal whose
// robot was lost. rclpy is a stand-in; the fleet is a real one.
func TestBridge(t *testing.T) {
	t.Parallel()
	lines(t, "ros2/README.md") // its commands need ROS 2, and say so
	f := up(t)
	f.play("README.md")
	standin, err := filepath.Abs("testdata/standin/ros")
	if err != nil {
		t.Fatal(err)
	}
	client, err := filepath.Abs("testdata/bridge_test.py")
	if err != nil {
		t.Fatal(err)
	}
	f.ok(fmt.Sprintf("SERVER=%d ROBOT=%d PYTHONPATH=examples/ros2/fleetbus_action_bridge:%s:$PYTHONPATH python3 %s",
		f.proc("fleetbus up").Pid, f.proc("--id robot-1").Pid, standin, client))
}
