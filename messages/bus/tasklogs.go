package bus

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go/jetstream"
)

// What is kept of what the processes of tasks say: a message has the lines of a tenth of a
// second at most, so the last 1,000 of a replica on an agent are those of the last 100 s at
// least. Robots are many and their disks are theirs: the bytes are those of a fleet.
const (
	taskLogMaxPerReplica = 1_000
	taskLogMaxBytes      = 256 << 20
	taskLogMaxAge        = 7 * 24 * time.Hour
)

// TaskLogStreamName returns the name of the stream with what the processes say that tasks
// have brought.
func TaskLogStreamName(fleet string) string { return "FB__" + fleet + "__tasklogs" }

// TaskLogs makes that stream where it is missing.
func (b *Bus) TaskLogs(ctx context.Context) error {
	return b.ensure(ctx, jetstream.StreamConfig{
		Name:              TaskLogStreamName(b.Fleet),
		Description:       "fleetbus: what the processes of tasks said",
		Subjects:          []string{b.Subject(messages.KindTaskLog, "").String()},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: taskLogMaxPerReplica,
		MaxBytes:          taskLogMaxBytes,
		MaxAge:            taskLogMaxAge,
		MaxConsumers:      maxConsumers,
		Discard:           jetstream.DiscardOld,
	})
}
