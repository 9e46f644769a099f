package main

import (
	"bytes"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nuid"
)

// library asks through the Go library.
type library struct {
	*asker
	c *router.Client
}

// ask starts the load. before are the jobs of earlier lives.
func (l *library) ask(before map[string]history.Record) {
	l.every(cameraEvery, func(uint64) { l.infer(seeTask, "camera", 2*time.Second) })
	l.every(seeEvery, func(uint64) { l.infer(seeTask, "", 2*time.Second) })
	l.every(lookEvery, func(uint64) { l.infer(lookTask, "", 1500*time.Millisecond) })
	episode := nuid.Next()
	for _, robot := range l.Robots {
		move := router.Action{Robot: robot, Task: moveTask, Episode: episode, Deadline: moveDeadline}
		beep := router.Action{Robot: robot, Task: beepTask, Episode: episode, Deadline: beepDeadline, Queue: true}
		l.inTurn(moveEvery, func(n uint64) { l.act(move, n) })
		l.inTurn(beepEvery, func(n uint64) { l.act(beep, n) })
	}
	l.every(learnEvery, func(uint64) { l.learn(history.Record{}) })
	for _, r := range before {
		l.flights.Go(func() { l.learn(r) })
	}
	l.flights.Go(l.follow)
}

func (l *library) infer(task, key string, deadline time.Duration) {
	b := body()
	r := l.sent(history.Record{Class: messages.Inference, Task: task, Millis: float64(deadline.Milliseconds())}, b)
	ans, err := l.c.Infer(l.answer, router.Inference{ID: r.ID, Task: task, Key: key, Body: b, Deadline: deadline})
	l.done(r, ans, err)
}

func (l *library) act(a router.Action, n uint64) {
	a.Body, a.Seq = body(), n
	r := l.sent(history.Record{Class: messages.Action, Task: a.Task, Episode: a.Robot + "-" + a.Episode, Seq: n, Millis: float64(a.Deadline.Milliseconds())}, a.Body)
	a.ID, a.Episode = r.ID, r.Episode
	ans, err := l.c.Act(l.answer, a)
	l.done(r, ans, err)
}

func (l *library) done(r history.Record, ans *router.Answer, err error) {
	if err != nil {
		l.end(r, nil, "", 0, err)
		return
	}
	l.end(r, ans.Body, ans.Agent, ans.Attempt, nil)
}

// learn submits a job, as often as it takes until it is stored, and waits for its end. r
// is the job of an earlier life, or the zero value.
func (l *library) learn(r history.Record) {
	b := bytes.Repeat([]byte("data "), 100) // the same for all, so that a later life can submit it again
	if r.ID == "" {
		r = l.sent(history.Record{Class: messages.Training, Task: learnTask}, b)
	}
	if l.hit(plantLost, r.Class, r.ID) {
		r.Kind, r.At = history.Stored, time.Time{}
		l.hist.Write(r)
		return
	}
	var id string
	for {
		var err error
		if id, err = l.c.Submit(l.answer, router.Job{Task: learnTask, Key: r.ID, Body: b}); err == nil {
			break
		}
		// Whatever else it is, only unavailable leaves open whether it was stored; to ask again
		// under the same key is what the library says to do then.
		if code := messages.CodeOf(err); code != messages.CodeUnavailable && code != messages.CodeConflict || l.answer.Err() != nil {
			r.At = time.Time{}
			l.end(r, nil, "", 0, err)
			return
		}
		l.pause()
	}
	r.Kind, r.At, r.Life = history.Stored, time.Time{}, l.Life
	l.hist.Write(r)
	for {
		job, err := l.c.Wait(l.answer, id, nil)
		switch {
		case err == nil && job.State == messages.GoalSucceeded:
			l.end(r, job.Result, job.Agent, job.Attempt, nil)
			return
		case err == nil:
			l.end(r, nil, "", 0, messages.Errorf(job.Code, "the job is %s: %s", job.State, job.Reason))
			return
		case messages.CodeOf(err) != messages.CodeUnavailable || l.answer.Err() != nil:
			l.end(r, nil, "", 0, err)
			return
		}
		l.pause()
	}
}

// pause waits for a moment.
func (l *library) pause() {
	select {
	case <-time.After(200 * time.Millisecond):
	case <-l.answer.Done(): // the next call says that the time is over
	}
}

// follow writes down by which plans the client goes.
func (l *library) follow() {
	for {
		changed := l.c.RoutesChanged()
		plan := l.c.Routes()
		l.hist.Write(history.Record{Kind: history.Routes, Inc: plan.Term.String(), Seq: plan.Rev, Life: l.Life})
		select {
		case <-changed:
		case <-l.load.Done():
			return
		}
	}
}
