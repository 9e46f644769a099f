package router

import (
	"context"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go/jetstream"
)

// seekOrphans calls orphans every now and then, until ctx ends. It has its own goroutine: to
// list all records takes a while where there are many.
func (s *Sweeper) seekOrphans(ctx context.Context) {
	timer := time.NewTimer(sweepAgain)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := sweepOrphans
		if err := s.orphans(ctx); err != nil {
			next = sweepAgain
			if ctx.Err() == nil {
				s.log.Warn("jobs whose messages are gone were not looked for; trying on", "error", err)
			}
		}
		timer.Reset(next)
	}
}

// orphans ends the jobs that have a record and no message: it was deleted, and nobody
// could begin them again. An error says that it is not known whether there are some.
func (s *Sweeper) orphans(ctx context.Context) error {
	stand, err := s.standing(ctx)
	if err != nil {
		return err
	}
	// The keys alone: a record may be as large as a message. Of most jobs the message is
	// there, or they have ended; the others are read, a chunk at a time.
	ids, err := s.recorded(ctx, func(id string) bool { return !stand[id] })
	if err != nil {
		return err
	}
	for part := range slices.Chunk(ids, bus.MostRecords) {
		limit, cancel := context.WithTimeout(ctx, sweepTry)
		found, err := s.bus.Records(limit, part)
		cancel()
		if err != nil {
			return err
		}
		for _, e := range found {
			var job messages.Job
			if err := messages.Decode(e.Value, &job); err == nil && !job.State.Ended() {
				s.orphan(ctx, job, e.Rev)
			}
		}
	}
	return nil
}

// standing returns the jobs whose messages surely stand in their streams. Nobody tells a
// sweeper of a message that is deleted: of a site that has another number of messages than it
// knows of none is said to.
func (s *Sweeper) standing(ctx context.Context) (map[string]bool, error) {
	s.mu.Lock()
	full := true
	sites := make([]*sweepSite, 0, len(s.sites))
	for _, site := range s.sites {
		full = full && site.full
		sites = append(sites, site)
	}
	s.mu.Unlock()
	if !full { // what it has not read seems not to be there
		return nil, messages.Errorf(messages.CodeUnavailable, "the queues have not all been read yet")
	}
	stand := make(map[string]bool)
	for _, site := range sites {
		limit, cancel := context.WithTimeout(ctx, sweepTry)
		stream, err := s.bus.JS.Stream(limit, bus.StreamName(s.bus.Fleet, site.name, messages.Training))
		cancel()
		if err != nil {
			continue // not known, or gone: its jobs are looked for one by one
		}
		s.mu.Lock()
		if stream.CachedInfo().State.Msgs == uint64(len(site.jobs)) {
			for id := range site.jobs {
				stand[id] = true
			}
		}
		s.mu.Unlock()
	}
	return stand, nil
}

// recorded lists the jobs that have a record and that want takes.
func (s *Sweeper) recorded(ctx context.Context, want func(id string) bool) (ids []string, err error) {
	const what = "list the jobs that have a record"
	ctx, cancel := context.WithTimeout(ctx, sweepList)
	defer cancel()
	kv, err := s.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return nil, err
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return nil, bus.Explain(err, what)
	}
	defer func() { _ = w.Stop() }() // it fails only where the watcher is gone already
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return nil, messages.Errorf(messages.CodeUnavailable, "%s: the connection was lost", what)
			case e == nil: // all that there are
				return ids, nil
			case want(e.Key()):
				ids = append(ids, e.Key())
			}
		case <-ctx.Done():
			return nil, bus.Explain(ctx.Err(), what)
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
	if _, err := s.write(limit, route.Orphaned(job), rev); err == nil {
		s.log.Warn("the message of a job is gone: it is ended", "job", job.ID, "task", job.Task)
	}
}
