package router

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go/jetstream"
)

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
