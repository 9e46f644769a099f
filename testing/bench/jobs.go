package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// jobBytes is the size of the body of a job.
const jobBytes = 128

// jobWindow is how long a side runs before it is the other's turn: long beside what it
// takes until all of its jobs are under way.
const jobWindow = 500 * time.Millisecond

// side is one of two that are compared. It does jobs for about d, many at a time, and
// returns how many of them ended, each with the right result, in what time.
type side func(ctx context.Context, d time.Duration) (n int, took time.Duration, err error)

// jobs measures training jobs from submission to result, against a loop written by hand
// that stores work and result too, and against asynq on Redis.
func jobs(args []string, out io.Writer) error {
	aof := true
	f, help, err := parseData("jobs", args, []string{"loop", "asynq"}, 12*time.Second, func(flags *flag.FlagSet) {
		flags.BoolVar(&aof, "aof", true, "asynq: Redis writes an append-only file, so that what it has taken survives its own death, as with us")
	})
	if help {
		return nil
	}
	if err != nil {
		return err
	}
	return f.run("jobs", 1, out, func(s *stage, ctx context.Context, f dataFlags) ([]figure, error) { return s.jobs(ctx, f, aof) })
}

func (s *stage) jobs(ctx context.Context, f dataFlags, aof bool) (list []figure, err error) {
	task := messages.Task{Name: benchTask, Class: messages.Training, Concurrency: 2 * many} // the other loop asks for as many ahead
	if _, err := s.agent(ctx, task, 0, part{Name: "edge", Jobs: true, Fault: f.fault}); err != nil {
		return nil, err
	}
	if err := s.routes(ctx, task, "edge"); err != nil {
		return nil, err
	}
	client, stop, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, name := range f.cases {
		var other side
		var end func()
		if name == "asynq" {
			other, end, err = asynq(ctx, s, aof)
		} else {
			other, end, err = s.jobLoop(ctx)
		}
		if err == nil {
			var rates []float64
			if rates, err = turns2(ctx, f.time, jobWindow, manyJobs(client.job), other); err == nil {
				list = append(list, newFigure("jobs", name, "rate", rates[0], "1/s", rates[1]))
			}
			end()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return list, nil
}

// turns2 gives each side a window in turn, until d is over, and returns the median rate of
// each, jobs per second. The first round warms up.
func turns2(ctx context.Context, d, window time.Duration, sides ...side) ([]float64, error) {
	rates := make([][]float64, len(sides))
	over := time.Now().Add(d)
	for round := 0; time.Now().Before(over) || round < 2; round++ {
		for i, run := range sides {
			n, took, err := run(ctx, window)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				rates[i] = append(rates[i], float64(n)/took.Seconds())
			}
		}
	}
	medians := make([]float64, len(sides))
	for i, r := range rates {
		slices.Sort(r)
		medians[i] = r[len(r)/2]
	}
	return medians, nil
}

// manyJobs is a side that keeps many jobs under way.
func manyJobs(ask asker) side {
	var count counter
	return func(ctx context.Context, d time.Duration) (int, time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, d+jobLate)
		defer cancel()
		begun := time.Now()
		var n atomic.Int64
		errs := make([]error, many)
		var all sync.WaitGroup
		for k := range many {
			all.Go(func() {
				body := make([]byte, jobBytes)
				for errs[k] == nil && time.Since(begun) < d {
					_, errs[k] = count.ask(ctx, ask, body)
					n.Add(1)
				}
			})
		}
		all.Wait()
		return int(n.Load()), time.Since(begun), errors.Join(errs...)
	}
}

// jobLate bounds the wait for a job's end; it takes milliseconds.
const jobLate = 3 * time.Second

// job submits a job and waits for its result.
func (o ours) job(ctx context.Context, body []byte) ([]byte, error) {
	job, err := o.c.Do(ctx, router.Job{Task: benchTask, Body: body}, nil)
	if err != nil {
		return nil, err
	}
	if job.State != messages.GoalSucceeded {
		return nil, fmt.Errorf("job %s is %s: %s", job.ID, job.State, job.Reason)
	}
	return job.Result, nil
}

// The loop that one would write by hand: a work queue and a stream of results, both on
// disk. The executor stores the result, tells who waits, acknowledges.
const (
	loopWork    = "loop_work"
	loopResults = "loop_results"
)

// loopStreams makes the two streams, and the consumer of the work.
func loopStreams(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	for _, cfg := range []jetstream.StreamConfig{
		{Name: loopWork, Subjects: []string{"loop.work.*"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage},
		{Name: loopResults, Subjects: []string{"loop.results.*"}, MaxMsgsPerSubject: 1, Storage: jetstream.FileStorage},
	} {
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return nil, err
		}
	}
	return js.CreateOrUpdateConsumer(ctx, loopWork, jetstream.ConsumerConfig{Durable: "loop", AckPolicy: jetstream.AckExplicitPolicy, AckWait: bus.TrainingAckWait, MaxAckPending: 10_000})
}

// loopWorker executes the work of the loop until ctx ends.
func loopWorker(ctx context.Context, nc *nats.Conn, w *worker) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	c, err := loopStreams(ctx, js)
	if err != nil {
		return err
	}
	list, err := c.Messages(jetstream.PullMaxMessages(2 * many))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, list.Stop)()
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			for {
				m, err := list.Next()
				if err != nil {
					return
				}
				answer, err := w.serve(ctx, m.Data())
				if err != nil {
					continue
				}
				id := strings.TrimPrefix(m.Subject(), "loop.work.")
				if _, err := js.Publish(ctx, "loop.results."+id, answer); err != nil {
					continue
				}
				_ = nc.Publish(m.Headers().Get(replyHeader), answer) // who is not told waits in vain, and the run fails
				_ = m.Ack()
			}
		})
	}
	all.Wait()
	return nil
}

// jobLoop is the other side of the loop.
func (s *stage) jobLoop(ctx context.Context) (side, func(), error) {
	nc, err := bus.Connect(s.url, "by hand")
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = loopStreams(ctx, js)
	}
	var waiting sync.Map // token → chan []byte
	inbox := nc.NewInbox()
	if err == nil {
		_, err = nc.Subscribe(inbox+".*", func(m *nats.Msg) {
			if c, ok := waiting.Load(m.Subject[len(inbox)+1:]); ok {
				c.(chan []byte) <- m.Data // it has room for one, and one comes
			}
		})
	}
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return manyJobs(func(ctx context.Context, body []byte) ([]byte, error) {
		id := nuid.Next()
		answer := make(chan []byte, 1)
		waiting.Store(id, answer)
		defer waiting.Delete(id)
		m := &nats.Msg{Subject: "loop.work." + id, Header: nats.Header{replyHeader: {inbox + "." + id}}, Data: body}
		if _, err := js.PublishMsg(ctx, m); err != nil {
			return nil, err
		}
		select {
		case a := <-answer:
			return a, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}), nc.Close, nil
}
