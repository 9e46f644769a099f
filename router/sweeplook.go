package router

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of one look at a site.
//
//   - sweepMost is how many jobs it reads the records of; the others are next.
//   - sweepFailed is after how many chunks whose records do not come it ends: the next look
//     begins behind them. It bounds a look at twice sweepTry and what it does.
//   - sweepWarn is how often at most it is said that jobs are not swept.
const (
	sweepMost   = 4096
	sweepFailed = 2
	sweepWarn   = time.Minute
)

// looked is a job at one look.
type looked struct {
	job   *sweepJob
	queue *jetstream.ConsumerInfo
	view  route.JobView
	rev   uint64
}

// sweepAll looks at a site's jobs every [route.SweepEvery] until ctx ends. Each site has its
// own loop, and in it each queue and each chunk of records its own limit, so that what does not
// answer is waited for by nobody else.
func (s *Sweeper) sweepAll(ctx context.Context, site *sweepSite) {
	tick := time.NewTicker(route.SweepEvery)
	defer tick.Stop()
	for {
		s.sweep(ctx, site, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep looks once at all jobs of a site that have been delivered, and does what is to be
// done, for each chunk of records as soon as it is read.
func (s *Sweeper) sweep(ctx context.Context, site *sweepSite, now time.Time) {
	// The queues first: what they say that is acknowledged has its record written.
	parts := slices.Collect(slices.Chunk(s.delivered(ctx, site, now), bus.MostRecords))
	if len(parts) == 0 {
		return
	}
	first, failed := site.turn%len(parts), 0
	for i := range parts {
		if ctx.Err() != nil || failed == sweepFailed {
			return
		}
		part := parts[(first+i)%len(parts)]
		if err := s.look(ctx, part, now); err != nil {
			failed++
			site.turn++
			s.complain(ctx, site, "the records of jobs are not known, so these are not swept; trying on", err)
			continue
		}
		var acts sync.WaitGroup
		bad := make(chan error, len(part))
		for _, l := range part {
			if act := l.view.Sweep(); act != route.SweepNothing {
				acts.Go(func() { bad <- s.act(ctx, site, act, l) })
			}
		}
		acts.Wait()
		close(bad)
		for err := range bad {
			if err != nil {
				s.complain(ctx, site, "a job is not swept; trying on", err)
			}
		}
	}
}

// look completes what is known of some jobs, at most [bus.MostRecords].
func (s *Sweeper) look(ctx context.Context, list []*looked, now time.Time) error {
	limit, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	if err := s.records(limit, list); err != nil {
		return err
	}
	s.ask(limit, list)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range list {
		if l.rev != l.job.rev {
			l.job.rev, l.job.since, l.job.looks = l.rev, now, 0
		}
		l.view.Stands, l.view.Age = now.Sub(l.job.since), now.Sub(l.job.work.Stored)
		l.view.Exhausted = s.exhausted[exhaustedKey(l.queue.Stream, l.job.work.Seq)]
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
	return nil
}

// complain says that something of a site is not swept: now and then, because it is tried on
// for as long as it takes. Only the site's own loop calls it.
func (s *Sweeper) complain(ctx context.Context, site *sweepSite, what string, err error) {
	if now := time.Now(); ctx.Err() == nil && now.Sub(site.warned) >= sweepWarn {
		site.warned = now
		s.log.Warn(what, "site", site.name, "error", err)
	}
}

// deadAgain is how often the record of a dead letter is read: only its age changes anything,
// because what is redriven is another message.
const deadAgain = time.Minute

// delivered returns the jobs of a site that their queues have delivered at least once: the
// others wait, and nothing can be wrong with them.
func (s *Sweeper) delivered(ctx context.Context, site *sweepSite, now time.Time) (list []*looked) {
	queues := make(map[string]*jetstream.ConsumerInfo)
	s.mu.Lock()
	for _, job := range site.jobs {
		queues[bus.ConsumerName(job.work.Task, job.work.Priority)] = nil
	}
	s.mu.Unlock()
	type answer struct {
		queue string
		info  *jetstream.ConsumerInfo
		err   error
	}
	answers := make(chan answer, len(queues))
	for name := range queues {
		go func() { // it ends within its limit, and is waited for below
			limit, cancel := context.WithTimeout(ctx, sweepTry)
			defer cancel()
			c, err := s.bus.JS.Consumer(limit, bus.StreamName(s.bus.Fleet, site.name, messages.Training), name)
			if err != nil {
				answers <- answer{name, nil, err}
				return
			}
			answers <- answer{name, c.CachedInfo(), nil}
		}()
	}
	for range len(queues) {
		a := <-answers
		queues[a.queue] = a.info
		if a.err != nil && !errors.Is(a.err, jetstream.ErrConsumerNotFound) { // else nobody has ever pulled from it
			s.complain(ctx, site, "the state of a queue is not known, so its jobs are not swept; trying on", a.err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, job := range site.jobs {
		info, seq := queues[bus.ConsumerName(job.work.Task, job.work.Priority)], job.work.Seq
		if info == nil || seq > info.Delivered.Stream || now.Before(job.next) {
			continue
		}
		l := &looked{job: job, queue: info}
		l.view.Delivered, l.view.Acked = true, seq <= info.AckFloor.Stream
		l.view.Idle = info.NumWaiting > 0 && info.NumPending == 0
		list = append(list, l)
	}
	// The oldest first, so that each has its turn: what has ended goes.
	slices.SortFunc(list, func(a, b *looked) int { return a.job.work.Stored.Compare(b.job.work.Stored) })
	return list[:min(len(list), sweepMost)]
}

// records reads the records of jobs, at most [bus.MostRecords].
func (s *Sweeper) records(ctx context.Context, list []*looked) error {
	var keys []string
	for _, l := range list {
		keys = append(keys, l.job.work.ID)
	}
	found, err := s.bus.Records(ctx, keys)
	if err != nil {
		return err
	}
	for _, l := range list {
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
	return nil
}

// ask asks the agents that are said to run jobs whether they do, all at once: one that is
// silent costs the others nothing.
func (s *Sweeper) ask(ctx context.Context, list []*looked) {
	type holder struct{ site, agent string }
	held := make(map[holder][]*looked)
	for _, l := range list {
		if r := l.view.Record; r != nil && (r.State == messages.GoalExecuting || r.State == messages.GoalCanceling) {
			h := holder{r.Site, r.Agent}
			held[h] = append(held[h], l)
		}
	}
	var asked sync.WaitGroup
	for h, jobs := range held {
		for part := range slices.Chunk(jobs, probeBatch) {
			asked.Go(func() {
				var ids []string
				for _, l := range part {
					ids = append(ids, l.job.work.ID)
				}
				has, known := s.holds(ctx, h.site, h.agent, ids)
				if !known {
					return // silent: the ack wait decides
				}
				for _, l := range part {
					l.view.Holder = route.HolderGone
					if slices.Contains(has, l.job.work.ID) {
						l.view.Holder = route.HolderHas
					}
				}
			})
		}
	}
	asked.Wait()
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
