package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxResult bounds a job's result, which is kept in its record: half of the server's
// default max_payload, so that the record around it fits too.
const maxResult = 512 << 10

// Pauses of a job. retryPause is multiplied by the attempt: a body that fails at once
// must not spin. storePause is before the record is tried again while JetStream does
// not answer; a job's result was hours of work, so it is tried for as long as the agent
// lives.
const (
	retryPause = time.Second
	storePause = 500 * time.Millisecond
)

// missingLooks is how often a job whose record is missing is given back, for lookAgain
// each, before it is dropped as withdrawn. In a cluster a read may come from a server
// that is behind, and the work of a job that has just been submitted may be here before
// its record is there: to drop it then would lose the job.
const missingLooks = 3

// jobStore reads and writes the records of jobs. It opens the bucket once and again
// after forget.
type jobStore struct {
	a  *Agent
	mu sync.Mutex
	kv *bus.KV
}

func (s *jobStore) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kv = nil
}

func (s *jobStore) open(ctx context.Context) (bus.KV, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kv != nil {
		return *s.kv, nil
	}
	kv, err := s.a.bus.KV(ctx, bus.Jobs)
	if err == nil {
		s.kv = &kv
	}
	return kv, err
}

// get returns a job's record and its revision; nil where there is none.
func (s *jobStore) get(ctx context.Context, id string) (*messages.Job, uint64, error) {
	ctx, cancel := s.a.apiContext(ctx, apiTime)
	defer cancel()
	kv, err := s.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	e, err := kv.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, bus.Explain(err, "read the record of job "+id)
	}
	var job messages.Job
	if err := messages.Decode(e.Value(), &job); err != nil {
		return nil, 0, err
	}
	return &job, e.Revision(), nil
}

// update writes a record if it is still at the revision; otherwise the error's code is
// conflict.
func (s *jobStore) update(ctx context.Context, job *messages.Job, rev uint64) (uint64, error) {
	ctx, cancel := s.a.apiContext(ctx, apiTime)
	defer cancel()
	kv, err := s.open(ctx)
	if err != nil {
		return 0, err
	}
	data, err := messages.Encode(job)
	if err != nil {
		return 0, err
	}
	rev, err = kv.Update(ctx, job.ID, data, rev)
	return rev, bus.Explain(err, "write the record of job "+job.ID)
}

// jobStart is what to do with a job that was pulled. It is pure.
type jobStart int

const (
	startDrop jobStart = iota // it has ended, or was withdrawn: acknowledge
	startEnd                  // it ends before it begins: write the record, acknowledge
	startRun                  // write the record, run
)

// startJob decides what an agent does with a job out of the queue, and how its record
// reads then. job is nil where there is no record.
func startJob(job *messages.Job, agent string, attempts int, fault *messages.Error) (messages.Job, jobStart) {
	if job == nil || job.State.Ended() {
		return messages.Job{}, startDrop
	}
	next := *job
	switch {
	case job.State == messages.GoalCanceling:
		next.State, next.Code, next.Reason = messages.GoalCanceled, messages.CodeCanceled, "canceled while it waited"
	case fault != nil:
		next.State, next.Code, next.Reason = messages.GoalAborted, fault.Code, fault.Message
	case job.Attempt >= attempts:
		next.State, next.Code = messages.GoalAborted, messages.CodeBackendFailed
		last := job.Reason
		if last == "" {
			last = "its executor went away while it ran"
		}
		next.Reason = messages.Errorf(messages.CodeBackendFailed, "begun %d times, allowed are %d; the last one: %s", job.Attempt, attempts, last).Message
	default:
		next.State, next.Attempt, next.Agent, next.Code, next.Reason = messages.GoalExecuting, job.Attempt+1, agent, "", ""
		return next, startRun
	}
	return next, startEnd
}

// endJob decides how the record of a job reads after an attempt, and whether it is to
// be tried again after a pause. cut says that the agent ended the attempt because it
// leaves.
func endJob(job messages.Job, resp backend.Response, fault *messages.Error, attempts int, cut bool) (next messages.Job, again bool, pause time.Duration) {
	next = job
	if fault == nil && len(resp.Body) > maxResult {
		fault = messages.Errorf(messages.CodePayloadTooLarge, "the result has %d bytes, allowed are %d; store it elsewhere and answer with a reference", len(resp.Body), maxResult)
	}
	switch {
	case fault == nil:
		next.State, next.Result, next.Type, next.Code, next.Reason = messages.GoalSucceeded, resp.Body, resp.ContentType, "", ""
		return next, false, 0
	case fault.Code == messages.CodeCanceled && !cut, job.State == messages.GoalCanceling:
		next.State, next.Code, next.Reason = messages.GoalCanceled, messages.CodeCanceled, fault.Message
		return next, false, 0
	}
	next.Code, next.Reason = fault.Code, fault.Message
	if cut && fault.Code == messages.CodeDraining {
		// The job is not to blame, so the attempt does not count: a rolling restart must not
		// use up all that it has.
		next.State, next.Attempt = messages.GoalAccepted, job.Attempt-1
		return next, true, 0
	}
	// An error that sending again does not help is final; so is the last attempt.
	if fault.Code.Advice() == messages.Stop || job.Attempt >= attempts {
		next.State = messages.GoalAborted
		return next, false, 0
	}
	next.State = messages.GoalAccepted
	return next, true, retryPause * time.Duration(job.Attempt)
}

// serveJob serves a job out of the queue; see serveWork for what it returns.
func (r *replica) serveJob(m *nats.Msg, req messages.Request, s *slot, left time.Duration, late *messages.Error) []byte {
	a, attempts := r.a, r.task.Attempts()
	req.ID = jobID(m, req)
	e := r.begin(req, m.Data, m.Reply, left)
	defer e.cancel()
	e.renewed = time.Now()
	if !a.flight.add(e) {
		return nil // it runs here already; its end acknowledges this delivery too
	}
	defer a.flight.remove(e)

	// The record's reads and writes go on when the replica is told to stop: each is
	// bounded, and one that is cut off halfway would cost the job an attempt.
	ctx := context.WithoutCancel(r.wanted)
	job, rev, err := a.jobs.get(ctx, req.ID)
	if messages.CodeOf(err) == messages.CodeBadRequest {
		a.garbage.Note(a.cfg.Logger, "job", err)
		return bus.Term // nobody can read the record, so nobody waits for the job
	}
	if err != nil {
		a.cfg.Logger.Warn("job not begun", "job", req.ID, "error", err)
		return bus.NakDelay(retryPause)
	}
	if job == nil && deliveries(m) <= missingLooks {
		return bus.NakDelay(lookAgain)
	}
	next, start := startJob(job, a.id, attempts, late)
	if start == startDrop {
		return bus.Ack
	}
	// Compare and set: of two executors that pulled the same job, one goes on.
	if rev, err = a.jobs.update(ctx, &next, rev); err != nil {
		a.cfg.Logger.Info("job not begun", "job", req.ID, "error", err)
		return bus.NakDelay(retryPause)
	}
	if start == startEnd {
		return bus.Ack
	}
	e.req.Attempt = next.Attempt
	resp, fault, took := r.execute(e)
	a.sendProgress(e)
	// The slot is free only when the end is stored, which may take as long as JetStream
	// does not answer: a pull that brings the next job needs a worker to read it.
	answer := a.finishJob(e, next, rev, resp, fault)
	s.free(took, e.cutOff(fault))
	return answer
}

// deliveries is how often the queue has delivered a message, this time included.
func deliveries(m *nats.Msg) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.NumDelivered
}

// jobID is the id of the job that a work item is for: the last part of its subject,
// which parseWork has checked.
func jobID(m *nats.Msg, req messages.Request) string {
	if s, err := messages.ParseSubject(m.Subject); err == nil {
		return s.ID
	}
	return req.ID
}

// finishJob stores how an attempt ended and returns what to tell the queue.
//
// Persist, then ack: the result is in the record before the job leaves the queue. An
// attempt that lost its record to another one says nothing: the other acknowledges.
func (a *Agent) finishJob(e *execution, job messages.Job, rev uint64, resp backend.Response, fault *messages.Error) []byte {
	attempts := e.replica.task.Attempts()
	// The record is written also when the agent is leaving and its work has ended; only
	// an agent that has left gives up.
	ctx := context.WithoutCancel(a.work)
	behind := 0
	for {
		next, again, pause := endJob(job, resp, fault, attempts, a.work.Err() != nil && !e.gaveUp.Load())
		_, err := a.jobs.update(ctx, &next, rev)
		if err == nil {
			switch {
			case !again:
				return bus.Ack
			case pause == 0:
				return bus.Nak
			}
			return bus.NakDelay(pause)
		}
		if a.gone() || a.nc.IsClosed() {
			return nil
		}
		if messages.CodeOf(err) == messages.CodePayloadTooLarge && fault == nil {
			fault = messages.Errorf(messages.CodePayloadTooLarge, "the result has %d bytes and does not fit into a message beside the rest of its record: the server's max_payload is %d; raise it, or store the result elsewhere and answer with a reference", len(resp.Body), a.nc.MaxPayload())
			continue
		}
		now, newRev, readErr := a.jobs.get(ctx, job.ID)
		switch {
		case readErr != nil:
			a.cfg.Logger.Warn("the end of a job is not stored yet", "job", job.ID, "error", err)
			sleepUntilGone(storePause, a.reconnected.next(), a.abandoned)
		case (now == nil || now.Attempt < job.Attempt) && behind < missingLooks:
			behind++ // read from a server that is behind; see missingLooks
			sleepUntilGone(storePause, a.reconnected.next(), a.abandoned)
		case now == nil || now.Attempt != job.Attempt || now.Agent != a.id:
			a.cfg.Logger.Info("the job belongs to another attempt; this one's result is dropped", "job", job.ID, "attempt", job.Attempt)
			return nil
		case now.State != messages.GoalExecuting && now.State != messages.GoalCanceling:
			// An earlier write of this loop was stored and only its confirmation lost.
			if now.State.Ended() {
				return bus.Ack
			}
			return bus.NakDelay(pause)
		default:
			if messages.CodeOf(err) != messages.CodeConflict {
				a.cfg.Logger.Warn("the end of a job is not stored yet", "job", job.ID, "error", err)
				sleepUntilGone(storePause, a.reconnected.next(), a.abandoned)
			}
			job, rev = *now, newRev
		}
	}
}
