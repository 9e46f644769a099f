package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// The load while servers are killed.
const (
	leaderService = 5 * time.Millisecond
	leaderAskers  = 4
)

// leaderCalm is how long all must be well before the next server is killed, by default.
const leaderCalm = 2 * time.Second

// leaderBack bounds the wait for the queue of the hand-written loop after a kill: 4 to 9 s
// are usual, two elections in a row were seen.
const leaderBack = 30 * time.Second

// clockwork notes when answers come.
type clockwork struct {
	mu    sync.Mutex
	times []time.Time
}

func (c *clockwork) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times = append(c.times, time.Now())
}

// gap returns the longest time without an answer that ended, or has not ended, after
// since.
func (c *clockwork) gap(since time.Time) (longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	times := append(slices.Clone(c.times), time.Now())
	for i := 1; i < len(times); i++ {
		if times[i].After(since) {
			longest = max(longest, times[i].Sub(times[i-1]))
		}
	}
	return longest
}

// after reports whether an answer came after t.
func (c *clockwork) after(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times) > 0 && c.times[len(c.times)-1].After(t)
}

// leaders kills the server that leads the queue, several times under load. The queue of
// the hand-written loop is moved to the same leader before.
func (s *stage) leaders(ctx context.Context, f dataFlags, kills int) (list []figure, err error) {
	t := failTask(true)
	if _, err := s.agent(ctx, t, 0, part{Name: "edge-1", Service: leaderService, Bare: true, Fault: f.fault}); err != nil {
		return nil, err
	}
	if _, err := s.agent(ctx, t, 1, part{Name: "edge-2", Service: leaderService, Fault: f.fault}); err != nil {
		return nil, err
	}
	if err := s.routes(ctx, t, "edge-1", "edge-2"); err != nil {
		return nil, err
	}
	ours, stop, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	nc, err := bus.Connect(s.url, "by hand")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	var bare *bareClient
	if err := s.until(ctx, "the queue of the hand-written loop", func(ctx context.Context) (err error) {
		bare, err = newBareClient(ctx, nc)
		return err
	}); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var mine, byHand clockwork
	var answered, failed atomic.Int64
	broken := make(chan error, 1)
	var count counter
	for range leaderAskers {
		all.Go(func() {
			for body := make([]byte, 128); ctx.Err() == nil; {
				if _, err := count.ask(ctx, ours.infer, body); err == nil {
					mine.tick()
					answered.Add(1)
				} else if ctx.Err() == nil {
					failed.Add(1)
					select {
					case broken <- err:
					default:
					}
				}
			}
		})
	}
	all.Go(func() {
		for body := make([]byte, 128); ctx.Err() == nil; {
			try, done := context.WithTimeout(ctx, askWithin/4) // without a leader nothing comes; ask again soon
			if _, err := count.ask(try, bare.ask, body); err == nil {
				byHand.tick()
			}
			done()
		}
	})
	var gaps, bareGaps []time.Duration
	for i := range kills {
		mineGap, bareGap, err := s.killLeader(ctx, f.time, &mine, &byHand)
		if err != nil {
			return nil, fmt.Errorf("server-leader, kill %d: %w", i+1, err)
		}
		gaps, bareGaps = append(gaps, mineGap), append(bareGaps, bareGap)
	}
	if n := failed.Load(); n > 0 {
		return nil, fmt.Errorf("server-leader: %d of %d requests failed, the first: %w", n, n+answered.Load(), <-broken)
	}
	inMS := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return []figure{
		newFigure("failover", "server-leader", "max_gap", inMS(slices.Max(gaps)), "ms", inMS(slices.Max(bareGaps))),
		newFigure("failover", "server-leader", "p50_gap", inMS(percentile(gaps, 0.5)), "ms", inMS(percentile(bareGaps, 0.5))),
		newFigure("failover", "server-leader", "errors", 0, "count", 0),
		newFigure("failover", "server-leader", "answers", float64(answered.Load()), "count", 0),
		newFigure("failover", "server-leader", "kills", float64(kills), "count", 0),
	}, nil
}

// killLeader kills the leader of the queue, waits until everybody is served again,
// starts it again, and returns the longest gaps.
func (s *stage) killLeader(ctx context.Context, calm time.Duration, mine, byHand *clockwork) (ours, bare time.Duration, err error) {
	queue, other := bus.StreamName(benchFleet, benchSite, messages.Inference), bus.StreamName(bareFleet, benchSite, messages.Inference)
	var leader string
	if err := s.until(ctx, "one leader of both queues", func(ctx context.Context) error {
		var err error
		if leader, err = s.leader(ctx, queue); err != nil {
			return err
		}
		second, err := s.leader(ctx, other)
		if err == nil && second != leader {
			err = errors.New("they differ")
			_, _ = s.nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+other, []byte(`{"placement":{"preferred":"`+leader+`"}}`)) // it is asked again
		}
		return err
	}); err != nil {
		return 0, 0, err
	}
	if err := pause(ctx, calm); err != nil {
		return 0, 0, err
	}
	i := slices.IndexFunc(s.children, func(c *actor) bool { return c.Role == "server" && c.Name == leader })
	if i < 0 {
		return 0, 0, fmt.Errorf("the leader %s is none of ours", leader)
	}
	victim := s.children[i]
	killed := time.Now()
	victim.kill()
	s.children = slices.Delete(s.children, i, i+1)
	limit, cancel := context.WithTimeout(ctx, leaderBack)
	defer cancel()
	for !byHand.after(killed.Add(calm)) {
		if err := pause(limit, 10*time.Millisecond); err != nil {
			return 0, 0, fmt.Errorf("the hand-written loop is not served again: %w", err)
		}
	}
	ours, bare = mine.gap(killed), byHand.gap(killed)
	if _, _, err := s.start(ctx, victim.part); err != nil {
		return 0, 0, err
	}
	return ours, bare, nil
}

// leader returns the server that leads a stream, when all its replicas are up to date.
func (s *stage) leader(ctx context.Context, stream string) (string, error) {
	str, err := s.bus.JS.Stream(ctx, stream)
	if err != nil {
		return "", err
	}
	info := str.CachedInfo()
	if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != 2 {
		return "", fmt.Errorf("stream %s has no leader of three", stream)
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current || r.Offline {
			return "", fmt.Errorf("stream %s: %s is behind", stream, r.Name)
		}
	}
	return info.Cluster.Leader, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
