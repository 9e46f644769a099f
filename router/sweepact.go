package router

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func fmtUint(n uint64) string { return strconv.FormatUint(n, 10) }

// sweepMost bounds how many jobs one look reads the records of; the others are next.
const sweepMost = 4096

// looked is a job at one look.
type looked struct {
	job   *sweepJob
	site  *sweepSite
	queue *jetstream.ConsumerInfo
	view  route.JobView
	rev   uint64
}

// sweep looks once at all jobs that have been delivered, and does what is to be done.
func (s *Sweeper) sweep(ctx context.Context, now time.Time) {
	limit, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	// The queues first: what they say that is acknowledged has its record written.
	list := s.delivered(limit, now)
	list, err := s.records(limit, list)
	if err != nil {
		s.log.Debug("the records of jobs are not known; trying on", "error", err)
		return
	}
	s.ask(limit, list)
	s.mu.Lock()
	for _, l := range list {
		if l.rev != l.job.rev {
			l.job.rev, l.job.since, l.job.looks = l.rev, now, 0
		}
		l.view.Stands, l.view.Age = now.Sub(l.job.since), now.Sub(l.job.work.Stored)
		l.view.Exhausted = s.exhausted[exhaustedKey(bus.StreamName(s.bus.Fleet, l.site.name, messages.Training), l.job.work.Seq)]
		if r := l.view.Record; r != nil && r.Dead() {
			l.job.next = now.Add(deadAgain)
		}
		if !l.view.Overdue() {
			l.job.mark = 0
		} else if l.job.mark == 0 {
			l.job.mark = l.queue.Delivered.Stream
		}
		l.view.Passed = l.job.mark > 0 && l.queue.Delivered.Stream > l.job.mark
		if l.view.Wanting() {
			l.job.looks++
		} else {
			l.job.looks = 0
		}
		l.view.Looks = l.job.looks
	}
	s.mu.Unlock()
	for _, l := range list {
		if ctx.Err() != nil {
			return
		}
		if act := l.view.Sweep(); act != route.SweepNothing {
			s.act(ctx, act, l)
		}
	}
}

// deadAgain is how often the record of a dead letter is read: only its age changes anything,
// because what is redriven is another message.
const deadAgain = time.Minute

// delivered returns the jobs that their queues have delivered at least once: the others
// wait, and nothing can be wrong with them.
func (s *Sweeper) delivered(ctx context.Context, now time.Time) (list []*looked) {
	type queue struct{ site, name string }
	of := func(site *sweepSite, w bus.Work) queue {
		return queue{site.name, bus.ConsumerName(w.Task, w.Priority)}
	}
	queues := make(map[queue]*jetstream.ConsumerInfo)
	s.mu.Lock()
	for _, site := range s.sites {
		for _, job := range site.jobs {
			queues[of(site, job.work)] = nil
		}
	}
	s.mu.Unlock()
	for q := range queues {
		c, err := s.bus.JS.Consumer(ctx, bus.StreamName(s.bus.Fleet, q.site, messages.Training), q.name)
		if err == nil {
			queues[q] = c.CachedInfo()
		} else if !errors.Is(err, jetstream.ErrConsumerNotFound) { // else nobody has ever pulled from it
			s.log.Debug("the state of a queue is not known; trying on", "queue", q.name, "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, site := range s.sites {
		for _, job := range site.jobs {
			info, seq := queues[of(site, job.work)], job.work.Seq
			if info == nil || seq > info.Delivered.Stream || now.Before(job.next) {
				continue
			}
			l := &looked{job: job, site: site, queue: info}
			l.view.Delivered, l.view.Acked = true, seq <= info.AckFloor.Stream
			l.view.Idle = info.NumWaiting > 0 && info.NumPending == 0
			list = append(list, l)
		}
	}
	// The oldest first, so that each has its turn: what has ended goes.
	slices.SortFunc(list, func(a, b *looked) int { return a.job.work.Stored.Compare(b.job.work.Stored) })
	return list[:min(len(list), sweepMost)]
}

// records reads the records of jobs.
func (s *Sweeper) records(ctx context.Context, list []*looked) ([]*looked, error) {
	for part := range slices.Chunk(list, bus.MostRecords) {
		var keys []string
		for _, l := range part {
			keys = append(keys, l.job.work.ID)
		}
		found, err := s.bus.Records(ctx, keys)
		if err != nil {
			return nil, err
		}
		for _, l := range part {
			e, ok := found[l.job.work.ID]
			if !ok {
				continue
			}
			l.rev = e.Rev
			var job messages.Job
			if err := messages.Decode(e.Value, &job); err != nil {
				l.view.Unreadable = true
				continue
			}
			job.Result = nil // as large as a message; nobody looks at it
			l.view.Record = &job
		}
	}
	return list, nil
}

// ask asks the agents that are said to run jobs whether they do.
func (s *Sweeper) ask(ctx context.Context, list []*looked) {
	type holder struct{ site, agent string }
	held := make(map[holder][]*looked)
	for _, l := range list {
		if r := l.view.Record; r != nil && (r.State == messages.GoalExecuting || r.State == messages.GoalCanceling) {
			h := holder{r.Site, r.Agent}
			held[h] = append(held[h], l)
		}
	}
	for h, jobs := range held {
		for part := range slices.Chunk(jobs, probeBatch) {
			var ids []string
			for _, l := range part {
				ids = append(ids, l.job.work.ID)
			}
			has, known := s.holds(ctx, h.site, h.agent, ids)
			if !known {
				continue // silent: the ack wait decides
			}
			for _, l := range part {
				l.view.Holder = route.HolderGone
				if slices.Contains(has, l.job.work.ID) {
					l.view.Holder = route.HolderHas
				}
			}
		}
	}
}

// holds asks an agent which of the jobs it has; known is false where it is silent.
func (s *Sweeper) holds(ctx context.Context, site, agent string, ids []string) (has []string, known bool) {
	at := s.bus.Subject(messages.KindProbe, site)
	at.Agent, at.Origin = agent, s.origin
	data, err := messages.Encode(&messages.Probe{IDs: ids})
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, sweepProbe)
	defer cancel()
	m, err := s.bus.Conn.RequestWithContext(ctx, at.String(), data)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, true
	}
	if err != nil {
		return nil, false
	}
	var p messages.Probe
	if err := messages.Decode(m.Data, &p); err != nil {
		return nil, false
	}
	return p.IDs, true
}

// act does what is to be done about a job. Whatever fails is done at the next look.
func (s *Sweeper) act(ctx context.Context, act route.JobAct, l *looked) {
	ctx, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	id := l.job.work.ID
	log := s.log.With("job", id, "task", l.job.work.Task)
	var err error
	switch act {
	case route.SweepRemove:
		if err = s.bus.Remove(ctx, l.job.work); err == nil {
			s.forget(l)
		}
	case route.SweepTake:
		next := route.Taken(*l.view.Record, 0)
		// Persist, then release: who has it next finds that nobody has.
		if err = s.write(ctx, next, l.rev); err == nil && !next.State.Ended() {
			log.Info("the agent of a job is gone: it is begun again", "agent", l.view.Record.Agent, "attempt", next.Attempt)
			err = s.bus.Release(l.queue, l.job.work.Seq)
		}
	case route.SweepRelease:
		log.Debug("a job that nobody runs is delivered again")
		err = s.bus.Release(l.queue, l.job.work.Seq)
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
			s.forget(l)
		}
	case route.SweepBury:
		job := l.job.work.Record()
		if l.view.Record != nil {
			job = *l.view.Record
		}
		next := route.Taken(job, l.view.Exhausted)
		log.Warn("the queue of a job gave it up: it is a dead letter", "deliveries", l.view.Exhausted)
		err = s.write(ctx, next, l.rev)
	}
	if err != nil && messages.CodeOf(err) != messages.CodeConflict { // else somebody was first
		log.Debug("a job is not swept yet", "error", err)
	}
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
func (s *Sweeper) forget(l *looked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.site.jobs[l.job.work.ID] == l.job {
		delete(l.site.jobs, l.job.work.ID)
	}
	delete(s.exhausted, exhaustedKey(bus.StreamName(s.bus.Fleet, l.site.name, messages.Training), l.job.work.Seq))
}

func (s *Sweeper) write(ctx context.Context, job messages.Job, rev uint64) error {
	kv, err := s.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return err
	}
	data, err := messages.Encode(&job)
	if err != nil {
		return err
	}
	_, err = kv.Update(ctx, job.ID, data, rev)
	return bus.Explain(err, "write the record of job "+job.ID)
}

// orphans ends the jobs that have a record and no message: it was deleted, and nobody
// could begin them again. False: it is not known whether there are some.
func (s *Sweeper) orphans(ctx context.Context) bool {
	s.mu.Lock()
	full := true
	for _, site := range s.sites {
		full = full && site.full
	}
	s.mu.Unlock()
	if !full {
		return false // what it has not read seems not to be there
	}
	kv, err := s.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return false
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return false
	}
	defer func() { _ = w.Stop() }() // it fails only where the watcher is gone already
	late := time.NewTimer(sweepOrphans)
	defer late.Stop()
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return false
			}
			if e == nil {
				return true
			}
			var job messages.Job
			if err := messages.Decode(e.Value(), &job); err == nil && !job.State.Ended() {
				s.orphan(ctx, job, e.Revision())
			}
		case <-late.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// orphan ends a job if its message is gone and nobody runs it.
func (s *Sweeper) orphan(ctx context.Context, job messages.Job, rev uint64) {
	limit, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	at := workOf(job)
	at.Kind, at.Fleet = messages.KindJob, s.bus.Fleet
	if _, err := s.bus.Find(limit, at); messages.CodeOf(err) != messages.CodeNotFound {
		return
	}
	if job.Agent != "" && job.State != messages.GoalAccepted {
		if has, sure := s.holds(limit, job.Site, job.Agent, []string{job.ID}); !sure || len(has) > 0 {
			return
		}
	}
	if err := s.write(limit, route.Orphaned(job), rev); err == nil {
		s.log.Warn("the message of a job is gone: it is ended", "job", job.ID, "task", job.Task)
	}
}
