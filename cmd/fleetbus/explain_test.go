package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

// What a leader says is told, also where the stored events cannot be read; and machines that
// are left out are not said to be unfit.
func TestExplainWithoutEvents(t *testing.T) {
	t.Parallel()
	w := messages.WhyReplica{Info: messages.ReplicaInfo{ID: "detect/0", Task: "detect", Agent: "edge-1", State: messages.ReplicaReady}}
	for i := range nearMisses + 3 {
		w.Verdicts = append(w.Verdicts, messages.Verdict{Agent: fmt.Sprintf("edge-%d", i+2), Fits: true, Text: "it fits"})
	}
	out := answer{Live: true, Explanation: messages.Explanation{Task: "detect", Replicas: []messages.WhyReplica{w}}}
	var stdout, stderr bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	unread := errors.New("the stream has no leader")
	if err := new(app).answer(cmd, out, "detect", nil, unread, 10, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"detect/0: ready on edge-1", "3 other machines are not shown"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not told: %s", want, stdout.String())
		}
	}
	if !strings.Contains(stderr.String(), unread.Error()) {
		t.Errorf("why there are no events is not told: %s", stderr.String())
	}
	if err := new(app).answer(cmd, answer{}, "detect", nil, unread, 10, false); !errors.Is(err, unread) {
		t.Errorf("nothing is known, and the error is %v", err)
	}
}
