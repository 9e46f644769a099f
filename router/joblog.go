package router

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// JobText is something that a job has said while it ran: some lines.
type JobText struct {
	Agent   string
	Attempt int
	Time    time.Time // when it was stored, on the server's clock
	Text    string    // every line ends in "\n"
}

// logWait is how long what is there of a log is waited for; a server that has it sends it in
// milliseconds.
const logWait = time.Second

// JobLog calls use with what is kept of what a job has said, the oldest first; with follow
// it goes on until ctx ends, which is no error then. What a job says is kept for a week, the
// newest 1,000 texts of every agent that ran it.
func (c *Client) JobLog(ctx context.Context, id string, follow bool, use func(JobText)) error {
	if c.err != nil {
		return c.err
	}
	if err := messages.CheckName("job", id); err != nil {
		return err
	}
	s := c.bus.Subject(messages.KindJobLog, "")
	s.ID = id
	if err := c.bus.JobLogs(ctx); err != nil {
		return err
	}
	var last uint64
	for {
		err := c.readLog(ctx, s, &last, follow, use)
		switch {
		case ctx.Err() != nil && follow, err == nil:
			return nil
		case ctx.Err() != nil:
			return bus.Explain(ctx.Err(), "read the log of job "+id)
		case !follow:
			return bus.Explain(err, "read the log of job "+id)
		}
		select { // the server went away, or the consumer with it: go on behind what was read
		case <-ctx.Done():
			return nil
		case <-c.stopped:
			return c.ended()
		case <-time.After(routesRetry):
		}
	}
}

// readLog reads a log behind what has the sequence last, which it moves on: over one consumer
// for as long as that lives, because a consumer for each text would cost more than the texts.
func (c *Client) readLog(ctx context.Context, s messages.Subject, last *uint64, follow bool, use func(JobText)) error {
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{s.String()}, MaxResetAttempts: 1}
	if *last > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, *last+1
	}
	var consumer jetstream.Consumer
	if bad := c.try(ctx, "read the log of job "+s.ID, func(ctx context.Context) (err error) {
		consumer, err = c.bus.JS.OrderedConsumer(ctx, bus.LogStreamName(c.bus.Fleet), cfg)
		return err
	}); bad != nil {
		return bad
	}
	left := consumer.CachedInfo().NumPending
	if left == 0 && !follow {
		return nil
	}
	list, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer list.Stop()
	defer context.AfterFunc(ctx, list.Stop)()
	var opts []jetstream.NextOpt
	if !follow {
		opts = append(opts, jetstream.NextMaxWait(logWait))
	}
	for follow || left > 0 {
		m, err := list.Next(opts...)
		if err != nil {
			return err
		}
		text := JobText{Text: string(m.Data())}
		if at, err := messages.ParseSubject(m.Subject()); err == nil {
			text.Agent = at.Agent
		}
		if r, err := messages.ParseReply(messages.Header(m.Headers())); err == nil {
			text.Attempt = r.Attempt
		}
		if meta, err := m.Metadata(); err == nil {
			text.Time, left, *last = meta.Timestamp, meta.NumPending, meta.Sequence.Stream
		}
		use(text)
	}
	return nil
}
