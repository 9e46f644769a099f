package agent

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Times of a job that runs.
//
//   - recordAfter is when it is written that it runs. Most of what is shorter has its end
//     written first, which costs half as much.
//   - recordAgain is the pause before that is tried again.
//   - leaseTry bounds one try to extend the lease: four of them fit into the ack wait.
const (
	recordAfter = 100 * time.Millisecond
	recordAgain = time.Second
	leaseTry    = 2 * time.Second
)

// jobRun is one attempt at a job: its record as this attempt knows it, and the lease.
//
// The lease is the queue's ack wait. It is extended by reports that the server confirms;
// where it does not, the handler's context ends before the queue gives the job to somebody
// else. A confirmation says only that the queue has a leader, not that the job is still
// this attempt's: that says the record, which is read with every extension. An attempt
// whose record another one has taken over ends as well.
type jobRun struct {
	a *Agent
	e *execution

	mu    sync.Mutex // one write of the record at a time
	job   messages.Job
	rev   uint64
	wrote bool // this attempt has written a record

	busy      atomic.Bool  // the keeper's work for it is under way
	recorded  atomic.Bool  // that it runs is written
	confirmed atomic.Int64 // when the last report was sent that the server has confirmed; Unix ns
	lost      atomic.Pointer[messages.Error]

	pointing sync.Mutex // one checkpoint at a time
	points   int
	loose    []string // checkpoints that the record may name although to write that has failed

	lines jobLog
}

// put writes the record; mu is held.
func (j *jobRun) put(ctx context.Context, next messages.Job) error {
	data, err := messages.Encode(&next)
	if err != nil {
		return err
	}
	rev, err := j.a.jobs.update(ctx, next.ID, data, j.rev)
	if err != nil {
		return err
	}
	j.job, j.rev, j.wrote = next, rev, true
	j.recorded.Store(true)
	return nil
}

// settle reads the record after a write that failed, or to see whether it is still this
// attempt's, and takes its revision over where it is. mu is held.
func (j *jobRun) settle(ctx context.Context) (jobFate, *messages.Job, error) {
	now, rev, err := j.a.jobs.get(ctx, j.job.ID)
	if err != nil {
		return fateBehind, nil, err
	}
	fate := judgeJob(now, j.job, j.wrote)
	switch {
	case fate == fateMine && now == nil:
		j.rev = 0
	case fate == fateMine && rev >= j.rev:
		if now.State == messages.GoalCanceling {
			j.job.State = messages.GoalCanceling
			j.cancel()
		}
		if now.Attempt < j.job.Attempt {
			j.job.Redriven, j.job.History = now.Redriven, now.History
		} else {
			j.wrote = true
			j.recorded.Store(true)
		}
		j.rev = rev
	}
	return fate, now, nil
}

// cancel ends the handler because the job was canceled.
func (j *jobRun) cancel() {
	j.e.gaveUp.Store(true)
	j.e.cancel()
}

// lose ends the handler because it must not go on; only the first reason counts.
func (j *jobRun) lose(why *messages.Error) {
	if j.lost.CompareAndSwap(nil, why) {
		j.a.cfg.Logger.Warn("a job is given up here", "job", j.e.req.ID, "reason", why.Message)
	}
	j.e.cancel()
}

// keepJob does at now what is due for a job that runs; it does not wait.
func (a *Agent) keepJob(e *execution, now time.Time) {
	j := e.job
	if j.lines.some() && !j.lines.busy.Swap(true) {
		a.lives.begin(func() {
			defer j.lines.busy.Store(false)
			j.flushLog(context.WithoutCancel(a.work))
		})
	}
	if j.lost.Load() == nil && now.Sub(time.Unix(0, j.confirmed.Load())) >= bus.TrainingAckWait-bus.LeaseMargin {
		j.lose(messages.Errorf(messages.CodeUnavailable, "the server has not confirmed for %v that the job still runs on agent %q, so it may be given to another; it begins again where its last checkpoint is",
			bus.TrainingAckWait-bus.LeaseMargin, a.id))
	}
	renew := now.Sub(e.renewed) >= bus.TrainingProgress
	record := !j.recorded.Load() && now.Sub(e.begun) >= recordAfter && now.Sub(e.tried) >= recordAgain
	if !renew && !record || j.lost.Load() != nil || j.busy.Swap(true) {
		return
	}
	if renew {
		e.renewed = now
	}
	e.tried = now
	a.lives.begin(func() {
		defer j.busy.Store(false)
		if renew {
			j.renew()
		}
		j.check(renew)
	})
}

// renew extends the lease. The server confirms the report; sent is what counts, because it
// counts from when it came.
func (j *jobRun) renew() {
	ctx, cancel := j.a.apiContext(context.WithoutCancel(j.a.work), leaseTry)
	defer cancel()
	sent := time.Now()
	if _, err := j.a.nc.RequestWithContext(ctx, j.e.ack, bus.Progress); err != nil {
		j.a.cfg.Logger.Debug("the lease of a job was not extended; trying on", "job", j.e.req.ID, "error", err)
		return
	}
	j.confirmed.Store(sent.UnixNano())
}

// check writes that the job runs, where that is not written yet; else, if asked to, it
// reads whether the record is still this attempt's.
func (j *jobRun) check(read bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.e.returned.Load() {
		return // finish writes its end
	}
	ctx := context.WithoutCancel(j.a.work)
	if !j.recorded.Load() {
		err := j.put(ctx, j.job)
		if err == nil {
			return
		}
		read = true
		if messages.CodeOf(err) != messages.CodeConflict {
			j.a.cfg.Logger.Debug("it is not written yet that a job runs; trying on", "job", j.job.ID, "error", err)
			return
		}
	}
	if !read {
		return
	}
	switch fate, _, err := j.settle(ctx); {
	case err != nil:
	case fate == fateLost || fate == fateOver:
		j.lose(messages.Errorf(messages.CodeConflict, "another attempt has taken the job over, or it has ended"))
	}
}

// maxLogBytes bounds the lines of a job that wait to be sent: a tenth of a second's.
const maxLogBytes = 64 << 10

// jobLog collects what a job says. The zero value is ready to use.
type jobLog struct {
	busy    atomic.Bool
	sending sync.Mutex // flushes follow one another

	mu      sync.Mutex
	text    []byte
	dropped int
}

func (l *jobLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text)+len(line) >= maxLogBytes {
		l.dropped++
		return
	}
	l.text = append(append(l.text, line...), '\n')
}

func (l *jobLog) some() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.text) > 0
}

// take returns what is to be sent, and how many lines did not fit.
func (l *jobLog) take() ([]byte, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, dropped := l.text, l.dropped
	l.text, l.dropped = nil, 0
	return text, dropped
}

// flushLog sends what the job has said. It is for people, and what is lost with a
// connection is lost.
func (j *jobRun) flushLog(ctx context.Context) {
	j.lines.sending.Lock()
	defer j.lines.sending.Unlock()
	text, dropped := j.lines.take()
	if len(text) == 0 {
		return
	}
	a := j.a
	limit, cancel := a.apiContext(ctx, apiTime)
	defer cancel()
	err := a.jobs.logged(limit)
	if err == nil {
		s := a.subject(messages.KindJobLog)
		s.ID = j.e.req.ID
		reply := a.reply(j.e.req, messages.ReplyProgress)
		err = a.nc.PublishMsg(&nats.Msg{Subject: s.String(), Header: nats.Header(reply.Header()), Data: text})
	}
	if err != nil {
		a.cfg.Logger.Debug("what a job said is lost", "job", j.e.req.ID, "error", err)
	}
	if dropped > 0 {
		a.cfg.Logger.Warn("a job says more than can be kept", "job", j.e.req.ID, "lines_dropped", dropped)
	}
}
