package router

import (
	"context"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
)

func fmtUint(n uint64) string { return strconv.FormatUint(n, 10) }

// act does what is to be done about a job. Whatever fails is done at the next look; the error
// is what is to be said of it.
func (s *Sweeper) act(ctx context.Context, site *sweepSite, act route.JobAct, l *looked) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	id := l.job.work.ID
	log := s.log.With("job", id, "task", l.job.work.Task)
	var err error
	switch act {
	case route.SweepRemove:
		if err = s.bus.Remove(ctx, l.job.work); err == nil {
			s.forget(site, l)
		}
	case route.SweepTake:
		next := route.Taken(*l.view.Record, 0)
		// Persist, then release: who has it next finds that nobody has.
		if _, err = s.write(ctx, next, l.rev); err == nil && !next.State.Ended() {
			log.Info("the agent of a job is gone: it is begun again", "agent", l.view.Record.Agent, "attempt", next.Attempt, "pause", messages.Millis(next.Pause))
			err = s.bus.Release(l.queue, l.job.work.Seq, messages.Millis(next.Pause))
		}
	case route.SweepRelease:
		err = s.release(ctx, l)
	case route.SweepRenew:
		attempt := 2
		if l.view.Record != nil {
			attempt = max(attempt, l.view.Record.Attempt+1)
		}
		var w bus.Work
		if w, err = s.bus.Find(ctx, subjectOf(l.job.work)); err == nil && w.Seq == l.job.work.Seq {
			log.Warn("a job was acknowledged before its end: it is queued again")
			err = s.bus.Renew(ctx, w, attempt)
		}
		if messages.CodeOf(err) == messages.CodeNotFound {
			if err = nil; l.view.Record != nil {
				s.orphan(ctx, *l.view.Record, l.rev)
			}
			s.forget(site, l)
		}
	case route.SweepBury:
		job := l.job.work.Record()
		if l.view.Record != nil {
			job = *l.view.Record
		}
		next := route.Taken(job, l.view.Exhausted)
		log.Warn("the queue of a job gave it up: it is a dead letter", "deliveries", l.view.Exhausted)
		_, err = s.write(ctx, next, l.rev)
	}
	if messages.CodeOf(err) == messages.CodeConflict {
		return nil // somebody was first
	}
	return err
}

// release has a job delivered again that nobody runs. A negative acknowledgement asks
// nobody, and would take a job from whoever has begun it since the look. So its record is
// written before, as it was or as of one that nobody began, on the condition that nobody else
// has; and the word goes out at once behind it: an agent that reads the record in between is
// refused what it writes on the revision before.
func (s *Sweeper) release(ctx context.Context, l *looked) error {
	var next messages.Job
	if l.view.Record != nil {
		// A look keeps no results, but a job that waits has none.
		next = *l.view.Record
	} else {
		// The look was answered by any server. Here the bucket's leader is asked, and twice: while
		// there was none, whoever runs the job could not say so.
		_, there, err := s.bus.Entry(ctx, bus.Jobs, l.job.work.ID)
		if err != nil || there {
			l.job.absent = time.Time{}
			return err
		}
		if l.job.absent.IsZero() {
			l.job.absent = time.Now()
		}
		if time.Since(l.job.absent) < route.SweepSettle {
			return nil
		}
		next = route.Unbegun(l.job.work.Record(), attemptOf(l.job.work))
	}
	rev, err := s.write(ctx, next, l.rev)
	if err != nil {
		return err
	}
	s.mu.Lock()
	l.job.rev = rev // it stands as before
	s.mu.Unlock()
	s.log.Debug("a job that nobody runs is delivered again", "job", next.ID, "task", next.Task)
	return s.bus.Release(l.queue, l.job.work.Seq, 0)
}

// attemptOf is which attempt at a job its message asks for.
func attemptOf(w bus.Work) int {
	req, err := messages.ParseJob(subjectOf(w), messages.Header(w.Header))
	if err != nil {
		return 1
	}
	return req.Attempt
}

func subjectOf(w bus.Work) messages.Subject {
	return messages.Subject{Kind: messages.KindJob, Fleet: fleetOf(w.Subject), Site: w.Site, Priority: w.Priority, Task: w.Task, Origin: w.Origin, ID: w.ID}
}

// fleetOf is the fleet of a subject that was parsed before.
func fleetOf(subject string) string {
	s, _ := messages.ParseSubject(subject)
	return s.Fleet
}

// forget drops a job whose message is gone, unless it was queued again meanwhile.
func (s *Sweeper) forget(site *sweepSite, l *looked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if site.jobs[l.job.work.ID] == l.job {
		delete(site.jobs, l.job.work.ID)
	}
	delete(s.exhausted, exhaustedKey(l.queue.Stream, l.job.work.Seq))
}

// write writes the record of a job, on the condition that its revision is rev (0: it has
// none), and returns the new one.
func (s *Sweeper) write(ctx context.Context, job messages.Job, rev uint64) (uint64, error) {
	kv, err := s.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return 0, err
	}
	data, err := messages.Encode(&job)
	if err != nil {
		return 0, err
	}
	rev, err = kv.Update(ctx, job.ID, data, rev)
	return rev, bus.Explain(err, "write the record of job "+job.ID)
}
