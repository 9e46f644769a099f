package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
)

// The fleet of mixed80: replicas of three kinds, ranked as a plan by delay ranks them. The
// slowest of them, while it is slow, is just quick enough for the deadline.
const (
	mixedDeadline = 150 * time.Millisecond
	mixedShare    = 0.8
	mixedClients  = 8
)

var mixedKinds = []struct {
	tier  messages.Tier
	count int
	base  time.Duration
}{
	{messages.Cloud, 2, 15 * time.Millisecond},
	{messages.Edge, 4, 25 * time.Millisecond},
	{messages.Robot, 8, 40 * time.Millisecond},
}

// runMixed plays one load on a real fleet, and returns how long each request took.
func runMixed(ctx context.Context, connect connector, l *balanceLoad, kinds []messages.Tier, ranks []int) (took []time.Duration, err error) {
	var begun time.Time // before the first request
	var replicas []balanceReplica
	for i := range l.base {
		replicas = append(replicas, balanceReplica{agent: fmt.Sprintf("%s-%d", kinds[i], i), tier: kinds[i], rank: ranks[i],
			serve: func(ctx context.Context, r *agent.Request) ([]byte, error) {
				if len(r.Body) != 8 {
					return nil, nil // the one that warms it up
				}
				return r.Body, rest(ctx, l.takes(i, int(binary.BigEndian.Uint64(r.Body)), time.Since(begun)))
			}})
	}
	f, err := newBalanceFleet(ctx, connect, true, replicas)
	if err != nil {
		return nil, err
	}
	defer func() {
		if stop := f.stop(); err == nil {
			err = stop
		}
	}()
	var clients []*router.Client
	for i := range mixedClients {
		c, err := f.client(ctx, connect, fmt.Sprintf("client-%d", i))
		if err != nil {
			return nil, err
		}
		for range 3 { // connections, subjects and memory are there from then on
			if _, err := c.Infer(ctx, router.Inference{Task: balanceTask, Deadline: balanceReady}); err != nil {
				return nil, err
			}
		}
		clients = append(clients, c)
	}
	took = make([]time.Duration, len(l.arrivals))
	begun = time.Now()
	var all sync.WaitGroup
	for i, at := range l.arrivals {
		if err := rest(ctx, at-time.Since(begun)); err != nil {
			all.Wait()
			return nil, err
		}
		all.Go(func() {
			// It counts from when it was due, also where this program was late to ask.
			left := mixedDeadline - (time.Since(begun) - at)
			took[i] = missed
			if left <= 0 {
				return
			}
			ans, err := clients[i%len(clients)].Infer(ctx, router.Inference{Task: balanceTask, Body: binary.BigEndian.AppendUint64(nil, uint64(i)), Deadline: left})
			if d := time.Since(begun) - at; err == nil && len(ans.Body) == 8 && d <= mixedDeadline {
				took[i] = d
			}
		})
	}
	all.Wait()
	return took, ctx.Err()
}

// rest waits for d, or the end of ctx.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mixed80 compares a real fleet with a twin that knows everything, on the same loads; and
// with one that learns, which says how much of the difference is knowledge that nobody has.
func mixed80(_ context.Context, o balanceOptions) ([]balanceFigure, error) {
	var base []time.Duration
	var kinds []messages.Tier
	var ranks []int
	for rank, k := range mixedKinds {
		for range k.count {
			base, kinds, ranks = append(base, k.base), append(kinds, k.tier), append(ranks, rank)
		}
	}
	var ours, twins, learners []time.Duration
	for i := range o.rounds {
		l := drawBalance(o.seed+uint64(i), base, o.last, mixedDeadline, mixedShare, o.uneven)
		var took []time.Duration
		err := inVirtualTime(o.test, func(ctx context.Context, connect connector) (err error) {
			took, err = runMixed(ctx, connect, l, kinds, ranks)
			return err
		})
		if err != nil {
			return nil, err
		}
		ours, twins, learners = append(ours, took...), append(twins, l.twin()...), append(learners, l.learner()...)
	}
	a, b := answered(ours), answered(twins)
	return []balanceFigure{
		compared("mixed80", "miss_pct", misses(ours), misses(twins), "%"),
		compared("mixed80", "miss_pct_learning", misses(ours), misses(learners), "%"),
		compared("mixed80", "p50", inMillis(quantile(a, 0.5)), inMillis(quantile(b, 0.5)), "ms"),
		compared("mixed80", "p99", inMillis(quantile(a, 0.99)), inMillis(quantile(b, 0.99)), "ms"),
		alone("mixed80", "requests", float64(len(ours)), "count"),
	}, nil
}
