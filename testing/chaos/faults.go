package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/nats-io/nats.go/jetstream"
)

// currentWithin bounds the wait for all replicas of all streams to be current after a
// server came back: an election takes 4 to 9 s, and what it missed is little.
const currentWithin = time.Minute

// play makes the faults until the time is over, and returns how many of each kind there
// were.
func (s *stage) play(ctx context.Context, length time.Duration) map[kind]int {
	begun := time.Now()
	over, cancel := context.WithDeadline(ctx, begun.Add(length))
	defer cancel()
	var lanes sync.WaitGroup
	var mu sync.Mutex
	made := make(map[kind]int)
	for _, faults := range schedule(s.seed, length, cast()) {
		lanes.Go(func() {
			for _, f := range faults {
				if f.Lane == serverLane && s.allCurrent(over) != nil || pause(over, time.Until(begun.Add(f.At))) != nil {
					return
				}
				s.befall(over, f)
				mu.Lock()
				made[f.Kind]++
				mu.Unlock()
			}
		})
	}
	lanes.Go(func() { s.watch(over) })
	lanes.Wait()
	return made
}

// befall makes one fault and undoes it after its time, or when the run is over.
func (s *stage) befall(over context.Context, f fault) {
	s.say("%s %s for %.1f s", f.Kind, f.Target, f.For.Seconds())
	p, l := s.get(f.Target), s.links[f.Target]
	lasts := func() { _ = pause(over, f.For) }
	switch f.Kind {
	case killIt:
		// Written before: what it had asked for ends with it at the earliest now. It is
		// written after as well, for what it asked in between.
		s.hist.Write(history.Record{Kind: history.Killed, Agent: f.Target, Life: p.Life})
		p.kill()
		s.hist.Write(history.Record{Kind: history.Killed, Agent: f.Target, Life: p.Life})
		lasts()
		s.found(s.start(p.part))
	case restartIt:
		s.found(p.end(30 * time.Second))
		lasts()
		s.found(s.start(p.part))
	case freezeIt:
		p.signal(syscall.SIGSTOP)
		lasts()
		p.signal(syscall.SIGCONT)
	case stallIt:
		l.stall()
		lasts()
		l.mend()
	case severIt:
		l.sever()
		lasts()
		l.mend()
	}
}

// watch looks for processes that ended by themselves, and starts them again.
func (s *stage) watch(ctx context.Context) {
	for pause(ctx, 100*time.Millisecond) == nil {
		for _, p := range s.list(func(string) bool { return true }) {
			if err := p.crashed(); err != nil {
				s.found(err)
				p.meant() // told once
				s.hist.Write(history.Record{Kind: history.Killed, Agent: p.Name, Life: p.Life})
				s.found(s.start(p.part))
			}
		}
	}
}

// allCurrent waits until every server is well and every replica of every stream is
// current: before that, one more dead server could take what was acknowledged with it.
func (s *stage) allCurrent(ctx context.Context) error {
	begun := time.Now()
	limit, cancel := context.WithTimeout(ctx, currentWithin)
	defer cancel()
	err := s.until(limit, "all replicas to be current", s.healthy)
	switch {
	case err == nil:
		if took := time.Since(begun); took > time.Second {
			s.say("all replicas of all streams are current, %.1f s later", took.Seconds())
		}
	case ctx.Err() == nil:
		s.found(fmt.Errorf("%v after a fault of a server: %w", currentWithin, err))
		s.stacks(ctx)
	}
	return err
}

// stacks keeps what every server is doing, for whoever looks into a cluster that does not
// get well.
func (s *stage) stacks(ctx context.Context) {
	for _, n := range serverNames {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		s.mu.Lock()
		url := s.monitors[n]
		s.mu.Unlock()
		text, err := get(ctx, url+"/stacksz")
		if err == nil {
			err = os.WriteFile(filepath.Join(s.dir, "stacks-"+n+".txt"), text, 0o644)
		}
		if err != nil {
			s.say("no stacks of %s: %v", n, err)
		}
		cancel()
	}
}

// healthy returns nil where all servers say that they are well and the streams, as their
// leaders see them, have all replicas.
func (s *stage) healthy(ctx context.Context) error {
	for _, n := range serverNames {
		s.mu.Lock()
		url := s.monitors[n]
		s.mu.Unlock()
		if err := healthOf(ctx, url); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	if s.bus == nil {
		return nil // it is only starting
	}
	streams := s.bus.JS.ListStreams(ctx)
	for info := range streams.Info() {
		if err := whole(info); err != nil {
			return err
		}
	}
	return streams.Err()
}

// healthOf asks a server's monitoring page: it is well when it is in contact with the
// leader of JetStream and all that it keeps is current.
func healthOf(ctx context.Context, url string) error {
	text, err := get(ctx, url+"/healthz")
	if err != nil {
		return fmt.Errorf("%w %s", err, text)
	}
	return nil
}

// get reads a page of a server; any status but 200 is an error.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("it says %s", resp.Status))
	}
	return text, err
}

// whole returns what is missing of a stream.
func whole(info *jetstream.StreamInfo) error {
	switch c := info.Cluster; {
	case c == nil || c.Leader == "":
		return fmt.Errorf("stream %s has no leader", info.Config.Name)
	case len(c.Replicas) != len(serverNames)-1:
		return fmt.Errorf("stream %s has %d replicas beside its leader", info.Config.Name, len(c.Replicas))
	default:
		for _, r := range c.Replicas {
			if !r.Current || r.Offline {
				return fmt.Errorf("stream %s: %s is behind", info.Config.Name, r.Name)
			}
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
