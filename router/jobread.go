package router

import (
	"context"
	"errors"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// Job returns the record of a job; code not_found where there is none, unavailable
// where it could not be read within two seconds.
func (c *Client) Job(ctx context.Context, id string) (messages.Job, error) {
	if c.err != nil {
		return messages.Job{}, c.err
	}
	if err := messages.CheckName("job", id); err != nil {
		return messages.Job{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, jobTry)
	defer cancel()
	job, _, err := c.job(ctx, id)
	return job, err
}

// job reads the record of a job and its revision; 0 for one that waits for its first
// attempt, and has none.
func (c *Client) job(ctx context.Context, id string) (messages.Job, uint64, error) {
	kv, err := c.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return messages.Job{}, 0, err
	}
	for range 2 {
		job, rev, err := readJob(ctx, kv, id)
		if messages.CodeOf(err) != messages.CodeNotFound {
			return job, rev, err
		}
		w, missing := c.work(ctx, messages.Subject{ID: id})
		if missing == nil {
			return w.Record(), 0, nil
		}
		if messages.CodeOf(missing) != messages.CodeNotFound {
			return job, 0, missing
		}
		// It may have been begun and ended between the two looks: once more.
	}
	// Neither is there. In a cluster the record was read from any server, which may be behind;
	// before a job is said not to be, the leader is asked.
	e, ok, err := c.bus.Entry(ctx, bus.Jobs, id)
	if err != nil {
		return messages.Job{}, 0, err
	}
	if ok {
		job, err := decodeJob(id, e.Data)
		return job, e.Seq, err
	}
	return messages.Job{}, 0, messages.Errorf(messages.CodeNotFound, "job %s is not known; records are kept for 30 days after their last change", id)
}

// work finds a job in the streams of all sites that have one. s needs an ID; what else it
// has is where to look.
func (c *Client) work(ctx context.Context, s messages.Subject) (bus.Work, error) {
	sites := []string{s.Site}
	if s.Site == "" {
		var err error
		if sites, err = c.bus.JobSites(ctx); err != nil {
			return bus.Work{}, err
		}
		slices.Sort(sites)
	}
	for _, site := range sites {
		at := s
		at.Kind, at.Fleet, at.Site = messages.KindJob, c.bus.Fleet, site
		w, err := c.bus.Find(ctx, at)
		if messages.CodeOf(err) != messages.CodeNotFound {
			return w, err
		}
	}
	return bus.Work{}, messages.Errorf(messages.CodeNotFound, "job %s is in no queue", s.ID)
}

func readJob(ctx context.Context, kv jetstream.KeyValue, id string) (messages.Job, uint64, error) {
	entry, err := kv.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return messages.Job{}, 0, messages.Errorf(messages.CodeNotFound, "job %s has no record", id)
	}
	if err != nil {
		return messages.Job{}, 0, bus.Explain(err, "read job "+id)
	}
	job, err := decodeJob(id, entry.Value())
	return job, entry.Revision(), err
}

func decodeJob(id string, data []byte) (job messages.Job, err error) {
	if err := messages.Decode(data, &job); err != nil {
		return job, messages.Errorf(messages.CodeInternal, "job %s: its record cannot be read: %v", id, err)
	}
	return job, nil
}

// Jobs calls use with the record of every job that is known, in no order, until use
// returns false: those that wait, run, and ended within 30 days.
func (c *Client) Jobs(ctx context.Context, use func(messages.Job) bool) error {
	kv, err := c.bus.KV(ctx, bus.Jobs)
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return bus.Explain(err, "list the jobs")
	}
	defer func() { _ = w.Stop() }() // it fails only where the watcher is gone already
	for more := true; more; {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return messages.Errorf(messages.CodeUnavailable, "list the jobs: the connection was lost; ask again")
			}
			if e == nil { // all that there are
				more = false
				continue
			}
			var job messages.Job
			if err := messages.Decode(e.Value(), &job); err != nil {
				c.note("job", err)
				continue
			}
			seen[job.ID] = true
			if !use(job) {
				return nil
			}
		case <-ctx.Done():
			return bus.Explain(ctx.Err(), "list the jobs")
		}
	}
	sites, err := c.bus.JobSites(ctx)
	if err != nil {
		return err
	}
	for _, site := range sites {
		goOn := true
		if err := c.bus.Waiting(ctx, site, func(w bus.Work) bool {
			goOn = seen[w.ID] || use(w.Record())
			return goOn
		}); err != nil || !goOn {
			return err
		}
	}
	return nil
}
