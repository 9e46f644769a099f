package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// The demo's traffic. 301,436 bytes is an openpi observation of a DROID robot, 15 Hz
// its control rate.
const (
	droidBytes      = 301_436
	actionBytes     = 256
	jobBytes        = 4_096
	inferenceEvery  = time.Second / 15
	actionEvery     = 200 * time.Millisecond
	jobEvery        = 4 * time.Second
	demoActDeadline = time.Second // an action's own limit is 10 ms; here a late one is to be seen, not cut off
)

// requester is one robot's control program: a client on a connection of its own, the
// history that it writes, and the board that the demo reads.
type requester struct {
	robot  string
	nc     *nats.Conn
	client *router.Client
	hist   *history.Writer
	board  *board
	body   []byte // of observations; the first bytes change with every one
}

func newRequester(url, fleet, robot string, hist *history.Writer, b *board, log *slog.Logger) (*requester, error) {
	nc, err := bus.Connect(url, "demo "+robot)
	if err != nil {
		return nil, err
	}
	body := make([]byte, droidBytes)
	r := rand.New(rand.NewPCG(1, 2)) // any bytes will do: the demo only needs them to be hard to compress
	for i := 0; i+8 <= len(body); i += 8 {
		binary.LittleEndian.PutUint64(body[i:], r.Uint64())
	}
	c := router.NewClient(nc, router.Config{Fleet: fleet, Origin: robot, Logger: log, Trace: b.trace})
	return &requester{robot: robot, nc: nc, client: c, hist: hist, board: b, body: body}, nil
}

// ask runs one request and writes what became of it.
func (r *requester) ask(class messages.Class, task, episode string, seq uint64, body []byte, do func(id string) (*router.Answer, error)) error {
	rec := history.Record{
		Kind: history.Sent, At: time.Now(), ID: nuid.Next(), Class: class, Task: task, Origin: r.robot,
		Episode: episode, Seq: seq, Sum: crc32.ChecksumIEEE(body),
	}
	r.hist.Write(rec)
	r.board.sent(rec.ID, task, class, rec.At)
	ans, err := do(rec.ID)
	rec.At = time.Now()
	if err != nil {
		e := messages.AsError(err, messages.CodeInternal)
		rec.Kind, rec.Code, rec.Text = history.Refused, e.Code, e.Message
		r.board.refused(rec.ID, e.Code, rec.At)
	} else {
		rec.Kind, rec.Agent, rec.Attempt = history.Answered, ans.Agent, ans.Attempt
		rec.Millis = float64(r.board.answered(rec.ID, ans.Agent, ans.Attempt, rec.At)) / 1e6
	}
	r.hist.Write(rec)
	return err
}

// infer sends one observation. With a key, a newer observation of that key takes its
// place while it waits.
func (r *requester) infer(ctx context.Context, task, key string, body []byte) error {
	return r.ask(messages.Inference, task, "", 0, body, func(id string) (*router.Answer, error) {
		return r.client.Infer(ctx, router.Inference{ID: id, Task: task, Key: key, Body: body, ContentType: "application/octet-stream"})
	})
}

func (r *requester) act(ctx context.Context, task, episode string, seq uint64) error {
	body := r.body[:actionBytes]
	return r.ask(messages.Action, task, episode, seq, body, func(id string) (*router.Answer, error) {
		return r.client.Act(ctx, router.Action{ID: id, Robot: r.robot, Task: task, Episode: episode, Seq: seq, Body: body, Deadline: demoActDeadline})
	})
}

// job submits a training job and waits for its result. The record's id is the job's, so
// it is written when the submission is acknowledged: from then on it may not be lost.
func (r *requester) job(ctx context.Context, task string, onProgress func(messages.Progress)) error {
	body := r.body[:jobBytes]
	rec := history.Record{Kind: history.Sent, At: time.Now(), Class: messages.Training, Task: task, Origin: r.robot, Sum: crc32.ChecksumIEEE(body)}
	id, err := r.client.Submit(ctx, router.Job{Task: task, Body: body})
	if err != nil { // never acknowledged: no job, but a request that ended in an error
		e := messages.AsError(err, messages.CodeInternal)
		rec.ID = nuid.Next()
		r.hist.Write(rec)
		rec.Kind, rec.Code, rec.Text = history.Refused, e.Code, e.Message
		r.hist.Write(rec)
		return err
	}
	rec.ID = id
	r.hist.Write(rec)
	r.board.sent(id, task, messages.Training, rec.At)
	j, err := r.client.Wait(ctx, id, onProgress)
	rec.At = time.Now()
	switch {
	case err != nil:
		e := messages.AsError(err, messages.CodeInternal)
		rec.Kind, rec.Code, rec.Text = history.Refused, e.Code, e.Message
	case j.State != messages.GoalSucceeded:
		rec.Kind, rec.Code, rec.Text = history.Refused, j.Code, string(j.State)+": "+j.Reason
		err = fmt.Errorf("job %s: %s", id, rec.Text)
	default:
		rec.Kind, rec.Agent, rec.Attempt = history.Answered, j.Agent, j.Attempt
	}
	if err != nil {
		r.board.refused(id, rec.Code, rec.At)
	} else {
		rec.Millis = float64(r.board.answered(id, j.Agent, j.Attempt, rec.At)) / 1e6
	}
	r.hist.Write(rec)
	return err
}

// stream sends an observation at every tick until stop is closed, whether or not the one
// before was answered, and returns when all have ended.
func (r *requester) stream(ctx context.Context, stop <-chan struct{}, task string) {
	var flights sync.WaitGroup
	defer flights.Wait()
	tick := time.NewTicker(inferenceEvery)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		body := append([]byte(nil), r.body...)
		binary.LittleEndian.PutUint64(body, n)
		flights.Go(func() { _ = r.infer(ctx, task, "camera", body) }) // its end is in the history
	}
}

// command sends one action after the other.
func (r *requester) command(ctx context.Context, stop <-chan struct{}, task string) {
	episode := "demo-" + nuid.Next()
	tick := time.NewTicker(actionEvery)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_ = r.act(ctx, task, episode, seq) // its end is in the history
	}
}

// train submits a job now and then; those that run when stop is closed are waited for.
func (r *requester) train(ctx context.Context, stop <-chan struct{}, task string, onProgress func(messages.Progress)) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	tick := time.NewTicker(jobEvery)
	defer tick.Stop()
	for {
		jobs.Go(func() { _ = r.job(ctx, task, onProgress) }) // its end is in the history
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
