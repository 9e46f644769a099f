package bus

import (
	"context"
	"errors"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go/jetstream"
)

// Group is the only priority group of our work consumers; a pull names it and its
// rank.
const Group = "tier"

// Timeouts of work. They depend on one another:
//
//   - InferenceProgress × 3 = InferenceAckWait: two late reports in a row are forgiven
//     before the server gives the request to somebody else.
//   - InferenceAckWait is short because the idle pulls of a frozen agent swallow
//     requests until it is over; it is under the shortest deadline that a failover can
//     still meet (1 s).
//   - TrainingAckWait is long because a job is long and a second copy of it is waste;
//     a third of it is the interval of progress, as above.
const (
	InferenceAckWait  = 300 * time.Millisecond
	InferenceProgress = InferenceAckWait / 3
	TrainingAckWait   = 9 * time.Second
	TrainingProgress  = TrainingAckWait / 3
)

// TrainingDedupe is how long the server drops a second submission of the same job by
// itself. After it, the job's record does: a submitter writes that first.
const TrainingDedupe = 10 * time.Minute

// maxConsumers lifts the server's default of 1,000 consumers a stream: one per task
// (and for a bucket one per watcher). It must be positive: −1 counts as unset.
const maxConsumers = 20_000

// inferenceMaxAge sweeps up what no executor came for. It is longer than any deadline
// that makes sense for an inference; deadlines themselves are kept by whoever takes a
// message, by its age.
const inferenceMaxAge = 5 * time.Minute

// inferenceMaxBytes bounds the memory that waiting observations of a site may take:
// 890 of DROID's 301,436 bytes. The oldest goes first, which is the one that is worth
// the least. The server reserves it when the stream is made.
const inferenceMaxBytes = 256 << 20

const (
	journalMaxAge  = 24 * time.Hour
	journalMaxMsgs = 1_000_000
	eventsMaxMsgs  = 10_000
)

// StreamName returns the name of the work stream of a class, or of the journal
// (class action), in a site.
func StreamName(fleet, site string, class messages.Class) string {
	return "FB__" + fleet + "__" + site + "__" + string(class)
}

// EventStreamName returns the name of a fleet's event stream.
func EventStreamName(fleet string) string { return "FB__" + fleet + "__events" }

func streamConfig(fleet, site string, class messages.Class) jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:         StreamName(fleet, site, class),
		Subjects:     []string{messages.WorkPattern(fleet, site, class, "")},
		Retention:    jetstream.WorkQueuePolicy,
		MaxConsumers: maxConsumers,
		Discard:      jetstream.DiscardOld,
	}
	switch class {
	case messages.Inference:
		cfg.Description = "fleetbus: inference requests that wait for an executor; newest per key"
		cfg.Storage = jetstream.MemoryStorage
		cfg.MaxMsgsPerSubject = 1
		cfg.MaxAge = inferenceMaxAge
		cfg.MaxBytes = inferenceMaxBytes
		cfg.AllowMsgTTL = true
		cfg.AllowDirect = true
	case messages.Training:
		cfg.Description = "fleetbus: training jobs that wait or run"
		cfg.Storage = jetstream.FileStorage
		cfg.Duplicates = TrainingDedupe
	case messages.Action:
		cfg.Description = "fleetbus: journal of actions, intents and outcomes"
		cfg.Subjects = []string{messages.JournalPattern(fleet, site)}
		cfg.Storage = jetstream.FileStorage
		cfg.Retention = jetstream.LimitsPolicy
		cfg.MaxAge = journalMaxAge
		cfg.MaxMsgs = journalMaxMsgs
		cfg.AllowDirect = true
	}
	return cfg
}

// Stream makes the stream of a class in a site where it is missing: the work queue of
// inference or training, or the journal of actions.
func (b *Bus) Stream(ctx context.Context, site string, class messages.Class) error {
	if err := messages.CheckName("site", site); err != nil {
		return err
	}
	return b.ensure(ctx, streamConfig(b.Fleet, site, class))
}

// Events makes the fleet's event stream where it is missing.
func (b *Bus) Events(ctx context.Context) error {
	return b.ensure(ctx, jetstream.StreamConfig{
		Name:         EventStreamName(b.Fleet),
		Description:  "fleetbus: what happened to the fleet",
		Subjects:     []string{b.Subject(messages.KindEvent, messages.FleetSite).String()},
		Storage:      jetstream.FileStorage,
		MaxMsgs:      eventsMaxMsgs,
		MaxConsumers: maxConsumers,
		Discard:      jetstream.DiscardOld,
	})
}

// consumerConfig is the one consumer that all replicas of a task in a site pull from,
// the nearest first. Its MaxDeliver is unlimited: attempts are counted where the
// reason is known (the job's record, the client's attempt machine), and a message past
// MaxDeliver would stay in the queue without a word.
func consumerConfig(fleet, site string, class messages.Class, task string) jetstream.ConsumerConfig {
	wait := InferenceAckWait
	if class == messages.Training {
		wait = TrainingAckWait
	}
	return jetstream.ConsumerConfig{
		Durable:        task,
		FilterSubject:  messages.WorkPattern(fleet, site, class, task),
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        wait,
		MaxDeliver:     -1,
		MaxAckPending:  10_000, // far above all slots of a site: it must never be what holds work back
		MaxWaiting:     4_096,  // the default of 512 answers the rest with 409, quietly
		PriorityPolicy: jetstream.PriorityPolicyPrioritized,
		PriorityGroups: []string{Group},
	}
}

// Consumer makes the consumer of a task in a site, and its stream, where they are
// missing, and returns it for pulling.
func (b *Bus) Consumer(ctx context.Context, site string, class messages.Class, task string) (jetstream.Consumer, error) {
	if err := b.Stream(ctx, site, class); err != nil {
		return nil, err
	}
	cfg := consumerConfig(b.Fleet, site, class, task)
	stream := StreamName(b.Fleet, site, class)
	c, err := b.JS.Consumer(ctx, stream, task)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = b.JS.CreateConsumer(ctx, stream, cfg)
		if errors.Is(err, jetstream.ErrConsumerExists) {
			c, err = b.JS.Consumer(ctx, stream, task)
		}
	}
	if err != nil {
		b.Forget()
		return nil, Explain(err, "make consumer "+task+" of stream "+stream)
	}
	return c, nil
}

// DeleteConsumer removes the consumer of a task that is no more. A missing one is no
// error.
func (b *Bus) DeleteConsumer(ctx context.Context, site string, class messages.Class, task string) error {
	err := b.JS.DeleteConsumer(ctx, StreamName(b.Fleet, site, class), task)
	if err == nil || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return Explain(err, "delete consumer "+task)
}
