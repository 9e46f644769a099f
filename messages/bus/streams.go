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
//   - TrainingAckWait is long because a job is long and a second copy of it is waste. It
//     outlasts the election of a stream's leader (4 to 9 s), during which nobody's report is
//     confirmed. An executor that is known to be dead is not waited for: see router/sweep.
//   - TrainingProgress: four reports fit into the ack wait, so three may be lost.
//   - LeaseMargin is how long before the end of the ack wait an executor whose reports are
//     not confirmed ends its handler: when another one begins, this one is to be over.
const (
	InferenceAckWait  = 300 * time.Millisecond
	InferenceProgress = InferenceAckWait / 3
	TrainingAckWait   = 15 * time.Second
	TrainingProgress  = 3 * time.Second
	LeaseMargin       = 2 * time.Second
)

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

// What is kept of what running jobs say: a message has the lines of a tenth of a second at
// most, so the last 1,000 of an agent for a job are those of the last 100 s at least, of a
// job that says something every second those of 17 minutes.
const (
	logMaxPerJob = 1_000
	logMaxBytes  = 256 << 20
	logMaxAge    = 7 * 24 * time.Hour
)

// StreamName returns the name of the work stream of a class, or of the journal
// (class action), in a site.
func StreamName(fleet, site string, class messages.Class) string {
	if class == messages.Training {
		return "FB__" + fleet + "__" + site + "__jobs"
	}
	return "FB__" + fleet + "__" + site + "__" + string(class)
}

// LogStreamName returns the name of the stream with what a fleet's jobs say.
func LogStreamName(fleet string) string { return "FB__" + fleet + "__joblogs" }

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
		// No work queue: an acknowledgement, which every agent of a task may send for every
		// other, must not be able to delete a job. There is one message per job; it stays until
		// the job's end is stored and a sweeper removes it.
		cfg.Description = "fleetbus: training jobs that wait or run, and dead letters"
		cfg.Subjects = []string{messages.JobPattern(fleet, site, "", "")}
		cfg.Storage = jetstream.FileStorage
		cfg.Retention = jetstream.LimitsPolicy
		cfg.MaxMsgsPerSubject = 1
		// No direct gets: that a job is not there is to be true.
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

// JobLogs makes the stream with what a fleet's jobs say where it is missing.
func (b *Bus) JobLogs(ctx context.Context) error {
	return b.ensure(ctx, jetstream.StreamConfig{
		Name:              LogStreamName(b.Fleet),
		Description:       "fleetbus: what jobs said while they ran",
		Subjects:          []string{b.Subject(messages.KindJobLog, "").String()},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: logMaxPerJob,
		MaxBytes:          logMaxBytes,
		MaxAge:            logMaxAge,
		MaxConsumers:      maxConsumers,
		Discard:           jetstream.DiscardOld,
	})
}

// ConsumerName is the name of the consumer of a task: one for inference, one per priority
// for training. Names of tasks have no "__".
func ConsumerName(task string, p messages.Priority) string {
	if p == "" || p == messages.Normal {
		return task
	}
	return task + "__" + string(p)
}

// consumerConfig is the one consumer that all replicas of a task in a site pull from,
// the nearest first. Its MaxDeliver is unlimited: attempts are counted where the
// reason is known (the job's record, the client's attempt machine), and a message past
// MaxDeliver would stay in the queue without a word.
func consumerConfig(fleet, site string, class messages.Class, task string, p messages.Priority) jetstream.ConsumerConfig {
	wait, filter := InferenceAckWait, messages.WorkPattern(fleet, site, class, task)
	if class == messages.Training {
		wait, filter = TrainingAckWait, messages.JobPattern(fleet, site, p, task)
	}
	return jetstream.ConsumerConfig{
		Durable:        ConsumerName(task, p),
		FilterSubject:  filter,
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
//
// It is the one of normal priority; [Bus.ConsumerOf] has the others.
func (b *Bus) Consumer(ctx context.Context, site string, class messages.Class, task string) (jetstream.Consumer, error) {
	return b.ConsumerOf(ctx, site, class, task, messages.Normal)
}

// ConsumerOf is [Bus.Consumer] for a priority of training; inference has but the normal one.
func (b *Bus) ConsumerOf(ctx context.Context, site string, class messages.Class, task string, p messages.Priority) (jetstream.Consumer, error) {
	if err := b.Stream(ctx, site, class); err != nil {
		return nil, err
	}
	cfg := consumerConfig(b.Fleet, site, class, task, p)
	stream, name := StreamName(b.Fleet, site, class), ConsumerName(task, p)
	c, err := b.JS.Consumer(ctx, stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = b.JS.CreateConsumer(ctx, stream, cfg)
		if errors.Is(err, jetstream.ErrConsumerExists) {
			c, err = b.JS.Consumer(ctx, stream, name)
		}
	}
	if err != nil {
		b.Forget()
		return nil, Explain(err, "make consumer "+name+" of stream "+stream)
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
