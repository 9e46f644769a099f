package router

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Times of a sweeper, beside those of package route.
//
//   - sweepTry bounds each thing that is asked of the server: the state of a queue, a chunk of
//     records with the agents that these name, an act. Where it does not answer, nothing is
//     known of that and nothing is done about it.
//   - sweepProbe bounds the wait for an agent's answer; it answers in milliseconds. It fits
//     into sweepTry, because all agents are asked at once.
//   - sweepSites is how often it looks for streams of new sites, and whether a stream is
//     still the one that it reads.
//   - sweepOrphans is how often it looks for records whose message is gone: it lists all
//     records for that, for sweepList at most, and where that fails tries again after sweepAgain.
const (
	sweepTry     = 2 * time.Second
	sweepProbe   = 500 * time.Millisecond
	sweepSites   = 5 * time.Second
	sweepOrphans = 10 * time.Minute
	sweepList    = 5 * time.Minute
	sweepAgain   = time.Minute
)

// Sweeper owns the jobs of a fleet while nobody runs them: it has those delivered again
// whose agents are gone, queues again what a queue has lost, and removes what has ended. It
// keeps nothing that it could not read again, and several do no harm: all that they write
// is written on the condition that nobody else was first. A [Service] runs one; where no
// router runs, another program should.
type Sweeper struct {
	bus    *bus.Bus
	log    *slog.Logger
	origin string
	begun  atomic.Bool
	made   bool // there is a place for logs and checkpoints; Run's

	mu        sync.Mutex
	sites     map[string]*sweepSite
	exhausted map[string]int // <stream>.<sequence> → deliveries
}

// sweepSite is the stream of a site.
type sweepSite struct {
	name string
	jobs map[string]*sweepJob // by id; guarded by Sweeper.mu
	full bool                 // all that was there when it was read has been read

	// Of its loop, see sweepAll.
	turn   int       // which chunk of records is the first; it grows when one does not come
	warned time.Time // when it was last said that jobs are not swept
}

// sweepJob is a job whose message stands in a stream.
type sweepJob struct {
	work  bus.Work // without its body
	rev   uint64   // of its record when it was last read
	since time.Time
	looks int
	next  time.Time // not before then
	// Since when the bucket's leader has said that it has no record; of its site's loop, see
	// release.
	absent time.Time
	mark   uint64 // the newest message that its queue had delivered when it was first seen overdue; 0: it is not
}

// NewSweeper makes a sweeper over a connection, which stays the caller's. Of cfg it takes
// Fleet, Origin, which is how it signs its questions to agents, Replicas and Logger. It
// starts nothing; what is wrong with cfg is returned by Run.
func NewSweeper(nc *nats.Conn, cfg Config) (*Sweeper, error) {
	cfg, err := cfg.normal(true)
	if err != nil {
		return nil, err
	}
	b, err := bus.New(nc, cfg.Fleet, cfg.Replicas)
	if err != nil {
		return nil, err
	}
	return &Sweeper{bus: b, log: cfg.Logger, origin: cfg.Origin, sites: make(map[string]*sweepSite), exhausted: make(map[string]int)}, nil
}

// Run sweeps until ctx ends, and returns nil when everything of it is gone. It outlives
// whatever happens to the connection. An error is a second call.
func (s *Sweeper) Run(ctx context.Context) error {
	if s.begun.Swap(true) {
		return messages.Errorf(messages.CodeConflict, "router.Sweeper: Run was called twice; make a sweeper for each")
	}
	var subs subscriptions
	defer subs.close()
	// Wildcards stand for whole tokens, so those of all streams come.
	subs.add(s.bus.Conn, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.*.*", s.gaveUp)
	if subs.err != nil {
		s.log.Warn("it is not heard of when a queue gives a job up", "error", subs.err)
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(route.SweepEvery)
	defer tick.Stop()
	readers.Go(func() { s.seekOrphans(ctx) })
	var listed time.Time
	for {
		now := time.Now()
		if now.Sub(listed) >= sweepSites {
			if s.list(ctx, &readers) {
				listed = now
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// gaveUp notes that a queue will not deliver a job any more.
func (s *Sweeper) gaveUp(m *nats.Msg) {
	var said struct {
		Stream     string `json:"stream"`
		Seq        uint64 `json:"stream_seq"`
		Deliveries int    `json:"deliveries"`
	}
	if json.Unmarshal(m.Data, &said) != nil || !s.jobsStream(said.Stream) {
		return // of other work, another fleet's, or nobody's
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exhausted[exhaustedKey(said.Stream, said.Seq)] = max(1, said.Deliveries)
}

// jobsStream reports whether a stream is one of this fleet's with jobs.
func (s *Sweeper) jobsStream(name string) bool {
	first, last, _ := strings.Cut(bus.StreamName(s.bus.Fleet, "*", messages.Training), "*")
	return strings.HasPrefix(name, first) && strings.HasSuffix(name, last)
}

// list reads the streams of sites that it does not read yet.
func (s *Sweeper) list(ctx context.Context, readers *sync.WaitGroup) bool {
	limit, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	// Agents may not be permitted to make what they write to.
	if !s.made {
		err := s.bus.JobLogs(limit)
		if err == nil {
			_, err = s.bus.Checkpoints(limit)
		}
		if s.made = err == nil; err != nil {
			s.log.Debug("what jobs say, or their checkpoints, cannot be kept yet; trying on", "error", err)
		}
	}
	sites, err := s.bus.JobSites(limit)
	if err != nil {
		s.log.Debug("the streams with jobs are not known; trying on", "error", err)
		return false
	}
	for _, name := range sites {
		s.mu.Lock()
		site, known := s.sites[name]
		if !known {
			site = &sweepSite{name: name, jobs: make(map[string]*sweepJob)}
			s.sites[name] = site
		}
		s.mu.Unlock()
		if !known {
			readers.Go(func() { s.read(ctx, site) })
			readers.Go(func() { s.sweepAll(ctx, site) })
		}
	}
	return true
}

// read keeps the jobs of a site until ctx ends.
func (s *Sweeper) read(ctx context.Context, site *sweepSite) {
	for ctx.Err() == nil {
		if err := s.follow(ctx, site); err != nil && ctx.Err() == nil {
			s.log.Debug("the jobs of a site are read again", "site", site.name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(route.SweepEvery):
		}
	}
}

// follow reads the messages of a site's stream, those to come too, without their bodies.
func (s *Sweeper) follow(ctx context.Context, site *sweepSite) error {
	limit, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	stream, err := s.bus.JS.Stream(limit, bus.StreamName(s.bus.Fleet, site.name, messages.Training))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s.mu.Lock()
		clear(site.jobs) // they went with it
		s.mu.Unlock()
	}
	if err != nil {
		return err
	}
	// Whatever ends the consumer ends this: it is read again from the beginning.
	c, err := stream.OrderedConsumer(limit, jetstream.OrderedConsumerConfig{HeadersOnly: true, MaxResetAttempts: 1})
	if err != nil {
		return err
	}
	list, err := c.Messages()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, list.Stop)()
	defer list.Stop()
	checking, done := context.WithCancel(ctx)
	var checker sync.WaitGroup
	checker.Go(func() { s.same(checking, stream.CachedInfo(), list.Stop) })
	defer checker.Wait()
	defer done()
	s.mu.Lock()
	clear(site.jobs)
	site.full = c.CachedInfo() != nil && c.CachedInfo().NumPending == 0
	s.mu.Unlock()
	for {
		m, err := list.Next()
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			continue
		}
		w, err := bus.ParseWork(m.Subject(), meta.Sequence.Stream, meta.Timestamp, m.Headers(), nil)
		if err != nil {
			s.discard(ctx, site.name, m.Subject(), meta.Sequence.Stream)
			continue
		}
		s.mu.Lock()
		site.jobs[w.ID] = &sweepJob{work: w, since: time.Now()}
		site.full = site.full || meta.NumPending == 0
		s.mu.Unlock()
	}
}

// same calls stop when a stream is not the one any more that is read: one that was deleted
// and made again counts from 1, and a reader that waits for what comes after its last message
// would see nothing of it. It returns then, or when ctx ends.
func (s *Sweeper) same(ctx context.Context, was *jetstream.StreamInfo, stop func()) {
	tick := time.NewTicker(sweepSites)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limit, cancel := context.WithTimeout(ctx, sweepTry)
		now, err := s.bus.JS.Stream(limit, was.Config.Name)
		cancel()
		if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && !now.CachedInfo().Created.Equal(was.Created) {
			stop()
			return
		}
	}
}

// discard deletes a message that is no job: nothing could ever be done with it.
func (s *Sweeper) discard(ctx context.Context, site, subject string, seq uint64) {
	limit, cancel := context.WithTimeout(ctx, sweepTry)
	defer cancel()
	err := s.bus.Remove(limit, bus.Work{Site: site, ID: subject, Seq: seq})
	s.log.Warn("a message among the jobs is none, and was deleted", "subject", subject, "error", err)
}

func exhaustedKey(stream string, seq uint64) string {
	return stream + "." + fmtUint(seq)
}
