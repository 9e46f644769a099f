package main

import (
	"context"
	"hash/crc32"
	"os"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nuid"
)

// The tasks of a run. seeTask waits in a queue, lookTask is asked straight and twice where
// it is late; a robot stops moveTask where it loses its link and goes on with beepTask.
const (
	seeTask   = "see"
	lookTask  = "look"
	moveTask  = "move"
	beepTask  = "beep"
	learnTask = "learn"
)

// service is how long each takes.
var service = map[string]time.Duration{
	seeTask: 8 * time.Millisecond, lookTask: 5 * time.Millisecond,
	moveTask: 15 * time.Millisecond, beepTask: 5 * time.Millisecond,
	learnTask: 2 * time.Second,
}

// tasks is what the fleet is to run.
func tasks() []messages.Task {
	small := messages.Resources{Compute: 1}
	return []messages.Task{
		{Name: seeTask, Class: messages.Inference, Demand: small, Replicas: 3, Concurrency: 4, Deadline: 2000, Tiers: []messages.Tier{messages.Edge, messages.Cloud}},
		{Name: lookTask, Class: messages.Inference, Demand: small, Replicas: 2, Concurrency: 4, Deadline: 1500, Delivery: messages.Direct, Idempotent: true, Tiers: []messages.Tier{messages.Edge, messages.Cloud}},
		{Name: moveTask, Class: messages.Action, Demand: small, Per: messages.PerRobot, Concurrency: 4, Deadline: 1000},
		{Name: beepTask, Class: messages.Action, Demand: small, Per: messages.PerRobot, Concurrency: 4, Deadline: 1000, OnLinkLoss: messages.LinkContinue},
		// An executor may die at any attempt; only the number of attempts ends a job that is
		// none of its fault.
		{Name: learnTask, Class: messages.Training, Demand: small, Replicas: 2, Concurrency: 4, MaxAttempts: 100, Tiers: []messages.Tier{messages.Edge, messages.Cloud}},
	}
}

// model is what serves all tasks: it writes down what it executes and takes its time. Its
// answer is the name of the execution.
type model struct {
	part
	hist *history.Writer
	kept chan struct{} // of plantLeak: never closed
}

// historyID is under which id a request stands in the histories: a job under the name
// that its client gave it, which is known before it is submitted.
func historyID(class messages.Class, id, key string) string {
	if class == messages.Training && key != "" {
		return key
	}
	return id
}

func (m *model) serve(ctx context.Context, req *agent.Request) ([]byte, error) {
	id := historyID(req.Class, req.ID, req.Key)
	if m.hit(plantLate, req.Class, id) {
		<-time.After(time.Until(deadline(ctx)) + 2*time.Second)
	} else if err := ctx.Err(); err != nil {
		return nil, err // not begun
	}
	if m.hit(plantTwice, req.Class, id) {
		m.hist.Write(m.begin(id, req))
	}
	if m.hit(plantCrash, req.Class, id) {
		os.Exit(3)
	}
	if m.hit(plantLeak, req.Class, id) {
		go func(kept []byte) { <-m.kept; _ = kept[0] }(make([]byte, 4<<10))
	}
	rec := m.begin(id, req)
	if m.hit(plantChanged, req.Class, id) {
		rec.Sum++
	}
	if m.hit(plantOrder, req.Class, id) {
		rec.Seq += 1000
	}
	m.hist.Write(rec)
	err := m.work(ctx, req)
	rec.Kind, rec.At = history.End, time.Now()
	if err != nil {
		rec.Code, rec.Text = messages.CodeBackendFailed, err.Error()
	}
	m.hist.Write(rec)
	if m.hit(plantStale, req.Class, id) {
		next := m.begin(id, req)
		next.Attempt++
		m.hist.Write(next)
	}
	return []byte(rec.Exec), err
}

// begin is the record of an execution that begins now. It is written before the side
// effect: what is not in the history has not run.
func (m *model) begin(id string, req *agent.Request) history.Record {
	return history.Record{
		At: time.Now(), Kind: history.Begin, ID: id, Class: req.Class, Task: req.Task, Origin: req.Origin, Episode: req.Episode, Seq: req.Seq,
		Attempt: req.Attempt, Sum: crc32.ChecksumIEEE(req.Body), Life: m.Life, Exec: nuid.Next(), Inc: incText(req),
	}
}

func incText(req *agent.Request) string {
	if req.Inc.IsZero() {
		return ""
	}
	return req.Inc.String()
}

func deadline(ctx context.Context) time.Time {
	at, _ := ctx.Deadline()
	return at
}

// work takes the time that the task takes, and reports how far it has come.
func (m *model) work(ctx context.Context, req *agent.Request) error {
	steps := 1
	if req.Class == messages.Training {
		steps = 10
	}
	step := time.NewTicker(service[req.Task] / time.Duration(steps))
	defer step.Stop()
	for i := range steps {
		select {
		case <-step.C:
			if steps > 1 {
				req.Progress(float64(i+1)/float64(steps), "")
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
