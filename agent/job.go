package agent

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Pauses of a job. beginPause is before a job is delivered again whose record could not be
// read or written. storePause is before the record is tried again while JetStream does
// not answer; a job's result was hours of work, so it is tried for as long as the agent
// lives.
const (
	beginPause = time.Second
	storePause = 500 * time.Millisecond
)

// missingLooks is how often, storePause apart, the record of a job is read again that seems
// to be older than what this attempt has written, though the leader has refused to write
// it: in a cluster a read may come from a server that is behind. 10 s are longer than the
// election of a leader, and nothing beside a job's work.
const missingLooks = 20

// staleLooks is how often a job is delivered, beginPause apart, whose record says that it
// has ended, but is older than its message, before it counts as ended: a server that was
// away for long has caught up by then, or does not serve. To acknowledge it at once would
// hide a job that was just redriven.
const staleLooks = 20

// serveJob serves a job out of the queue; see serve for what it returns.
//
// What was never delivered before has no record, so nothing is read and nothing written
// before its handler runs: its end is written on the condition that still nobody has
// written one, and so is, where it takes longer, that it runs. Of whatever was delivered
// before the record is read, and compare-and-set, first. What is said to be delivered for
// the first time, but is no longer new, is looked up: see [jobSeen].
func (r *replica) serveJob(m *nats.Msg, subject messages.Subject, req messages.Request, s *slot, left time.Duration, late *messages.Error) []byte {
	a := r.a
	meta, err := m.Metadata()
	if err != nil {
		return bus.Term // no delivery of a stream's
	}
	e := r.begin(req, m.Data, m.Reply, left)
	defer e.cancel()
	e.renewed = time.Now()
	run := &jobRun{a: a, e: e, job: firstAttempt(req, subject, meta.Timestamp, a.id, a.incarnation())}
	run.confirmed.Store(e.renewed.UnixNano())
	e.job = run
	attempt := run.job.Attempt
	age, known := a.clocks[messages.Training].Age(meta.Timestamp, e.renewed)
	seen := jobSeen(meta.NumDelivered, req.Attempt, age, known)
	if late != nil {
		seen = seenBefore // whatever it is, its end is written and not run
	}
	if seen != seenNever {
		run.mu.Lock() // until it is written whose attempt this is, nobody else writes
	}
	if !a.flight.add(e) {
		return nil // it runs here already; its end acknowledges this delivery too
	}
	defer a.flight.remove(e)

	// The record's reads and writes go on when the replica is told to stop: each is
	// bounded, and one that is cut off halfway would cost the job an attempt.
	ctx := context.WithoutCancel(r.wanted)
	if seen != seenNever {
		answer, ok := run.again(ctx, seen, meta.NumDelivered, late)
		attempt = run.job.Attempt
		run.mu.Unlock()
		if !ok {
			return answer
		}
	}
	e.req.Attempt = attempt
	resp, fault, took := r.execute(e)
	a.sendProgress(e)
	run.flushLog(ctx)
	// The slot is free only when the end is stored, which may take as long as JetStream
	// does not answer: a pull that brings the next job needs a worker to read it.
	answer := run.finish(resp, fault)
	s.free(took, e.cutOff(fault))
	return answer
}

// again begins a job that may have been begun before. Compare and set: of two executors
// that have it, one goes on. ok is false where this one does not. mu is held.
func (j *jobRun) again(ctx context.Context, seen seenJob, delivered uint64, late *messages.Error) (answer []byte, ok bool) {
	a := j.a
	job, rev, err := a.jobs.get(ctx, j.job.ID)
	if messages.CodeOf(err) == messages.CodeBadRequest {
		a.garbage.Note(a.cfg.Logger, "job", err)
		return bus.Term, false // nobody can read the record, so nobody waits for the job
	}
	if err != nil {
		a.cfg.Logger.Warn("job not begun", "job", j.job.ID, "error", err)
		return bus.NakDelay(beginPause), false
	}
	if job == nil && seen == seenPerhaps {
		return nil, true // it has only waited
	}
	next, start := startJob(job, j.job, j.e.replica.task.Attempts(), late)
	if start == startStale && delivered <= staleLooks {
		return bus.NakDelay(beginPause), false
	}
	if start == startDrop || start == startStale {
		return bus.Ack, false
	}
	j.rev = rev
	if err := j.put(ctx, next); err != nil {
		a.cfg.Logger.Info("job not begun", "job", j.job.ID, "error", err)
		return bus.NakDelay(beginPause), false
	}
	if start == startEnd {
		a.tellSubmitter(j.e.req, next)
		return bus.Ack, false
	}
	return nil, true
}

// finish stores how an attempt ended and returns what to tell the queue.
//
// Persist, then send, then ack: the result is in the record before whoever waits for it
// is told, and before the queue is. An attempt that lost its record to another one says
// nothing: the other acknowledges.
func (j *jobRun) finish(resp backend.Response, fault *messages.Error) []byte {
	a, task := j.a, j.e.replica.task
	j.mu.Lock()
	defer j.mu.Unlock()
	// The record is written also when the agent is leaving and its work has ended; only
	// an agent that has left gives up.
	ctx := context.WithoutCancel(a.work)
	behind := 0
	for {
		if why := j.lost.Load(); why != nil && why.Code == messages.CodeConflict {
			a.cfg.Logger.Info("the job belongs to another attempt; this one's result is dropped", "job", j.job.ID, "attempt", j.job.Attempt, "reason", why.Message)
			return nil
		}
		cut := (a.work.Err() != nil || j.lost.Load() != nil) && !j.e.gaveUp.Load()
		next, again, pause := endJob(j.job, resp, fault, task, cut)
		point := j.job.Checkpoint
		id := j.job.ID
		err := j.put(ctx, next)
		if err == nil {
			if again && pause == 0 {
				return bus.Nak
			} else if again {
				return bus.NakDelay(pause)
			}
			a.tellSubmitter(j.e.req, next)
			if point != nil && next.Checkpoint == nil {
				a.lives.begin(func() { j.dropPoints(point) })
			}
			return bus.Ack
		}
		if a.gone() || a.nc.IsClosed() {
			return nil
		}
		if messages.CodeOf(err) == messages.CodePayloadTooLarge && fault == nil {
			fault = messages.Errorf(messages.CodePayloadTooLarge, "the result has %d bytes and does not fit into a message beside the rest of its record: the server's max_payload is %d; raise it, or store the result elsewhere and answer with a reference", len(resp.Body), a.nc.MaxPayload())
			continue
		}
		fate, now, readErr := j.settle(ctx)
		if fate == fateBehind && readErr == nil && messages.CodeOf(err) == messages.CodeConflict {
			behind++
		}
		switch judgeEnd(err, fate, now, readErr, behind) {
		case endTerm:
			a.garbage.Note(a.cfg.Logger, "job", readErr)
			return bus.Term // nobody can read the record, so nobody waits for the job
		case endAck:
			return bus.Ack // an earlier write of this loop was stored, or it was canceled
		case endGiveBack:
			return bus.NakDelay(pause)
		case endLose:
			j.lose(messages.Errorf(messages.CodeConflict, "another attempt has taken the job over"))
		case endWait:
			a.cfg.Logger.Warn("the end of a job is not stored yet", "job", id, "error", err)
			sleepUntilGone(storePause, a.reconnected.next(), a.abandoned)
		case endAgain:
		}
	}
}

// tellSubmitter tells whoever submitted a job and waits that it has ended. Who is not told,
// because a connection was lost, reads the record.
func (a *Agent) tellSubmitter(req messages.Request, job messages.Job) {
	if req.Inbox == "" || !job.State.Ended() {
		return
	}
	reply := messages.Reply{Kind: messages.ReplyResult, ID: job.ID, Job: job.ID, Attempt: job.Attempt, ContentType: job.Type}
	if job.State != messages.GoalSucceeded {
		reply.Err = &messages.Error{Code: job.Code, Message: job.Reason}
	}
	env := envelopes.Get().(*envelope)
	defer env.free()
	env.msg.Subject, env.msg.Header, env.msg.Data = a.replySubject(req), nats.Header(env.headers.Reply(&reply)), job.Result
	if err := a.nc.PublishMsg(&env.msg); err != nil {
		a.cfg.Logger.Debug("the end of a job is stored, and its submitter not told", "job", job.ID, "error", err)
	}
}

// refuseJob ends a job that cannot be read: its record says so, for whoever submitted it,
// and nobody takes it for lost.
func (a *Agent) refuseJob(m *nats.Msg, why error) []byte {
	s, err := messages.ParseSubject(m.Subject)
	meta, err2 := m.Metadata()
	if err != nil || err2 != nil || s.Kind != messages.KindJob {
		return bus.Term
	}
	job := firstAttempt(messages.Request{}, s, meta.Timestamp, a.id, a.incarnation())
	fault := messages.AsError(why, messages.CodeBadRequest)
	job.State, job.Code, job.Reason = messages.GoalAborted, messages.CodeBadRequest, cutReason(fault.Message)
	data, err := messages.Encode(&job)
	if err == nil {
		_, err = a.jobs.update(context.WithoutCancel(a.work), job.ID, data, 0)
	}
	if err != nil && messages.CodeOf(err) != messages.CodeConflict { // else it has a record
		return bus.NakDelay(beginPause)
	}
	return bus.Term
}

// deliveries is how often the queue has delivered a message, this time included.
func deliveries(m *nats.Msg) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.NumDelivered
}
