package messages_test

import (
	"os"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// Streams and buckets stand in docs/protocol.md as package bus calls them.
func TestProtocolNamesStreamsAndBuckets(t *testing.T) {
	data, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	var want []string
	for _, c := range []messages.Class{messages.Inference, messages.Training, messages.Action} {
		want = append(want, "`"+bus.StreamName("<fleet>", "<site>", c)+"`")
	}
	for _, b := range bus.Buckets() {
		want = append(want, "`"+bus.BucketName("<fleet>", b)+"`")
	}
	for _, key := range []string{bus.KeyTask + "<task>", bus.KeyDrain + "<agent>", bus.KeySettings, bus.KeyLeader, bus.KeyRoutes, bus.KeyRobot + "<robot>", bus.KeyLatch + "<robot>", bus.KeyAll} {
		want = append(want, "`"+key+"`:")
	}
	want = append(want,
		"`"+bus.EventStreamName("<fleet>")+"`",
		"`"+bus.MailStreamName("<fleet>", "<site>")+"`",
		"`"+bus.MailedStreamName("<fleet>", "<site>")+"`",
		"`OBJ_"+bus.BodiesName("<fleet>")+"`",
		"`"+bus.LogStreamName("<fleet>")+"`",
		"`"+bus.TaskLogStreamName("<fleet>")+"`",
		"`"+bus.ObjectStream("<fleet>", bus.Artifacts)+"`",
		"`"+bus.CheckpointsName("<fleet>")+"`",
		"end the handler: the job may be somebody else's",
		"confirmation for "+strings.TrimSuffix((bus.TrainingAckWait-bus.LeaseMargin).String(), "s")+" s",
		"`"+bus.BucketSubject("<fleet>", bus.Agents, "<agent>")+"`",
		"group `"+bus.Group+"`",
		"ack wait is "+strings.TrimSuffix(bus.InferenceAckWait.String(), "ms")+" ms",
		"training; "+strings.TrimSuffix(bus.TrainingAckWait.String(), "s")+" s",
	)
	doc = strings.Join(strings.Fields(doc), " ")
	for _, w := range want {
		if !strings.Contains(doc, w) {
			t.Errorf("docs/protocol.md does not name %s", w)
		}
	}
}
