package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
)

// reach waits until everything is where it is to be, and checks that exactly what had to
// move has moved, not before after, counted from when the load changed.
func (s *shared) reach(from, to map[string]string, n int, changed time.Time, after time.Duration) {
	s.t.Helper()
	s.untilWithin(after+wait, fmt.Sprintf("everything to be as planned: %v", to), func() error {
		at, err := s.homes()
		if err == nil && !maps.Equal(at, to) {
			err = fmt.Errorf("it is %v", at)
		}
		return err
	})
	moved := make(map[string]string)
	for _, e := range s.moves(n) {
		if took := e.Time.Sub(changed); took < after {
			s.t.Errorf("%s began to move %v after the load changed, want %v at least: %s", e.ID, took, after, e.Reason)
		}
		if moved[e.ID] != "" {
			s.t.Errorf("%s moved twice: %s", e.ID, e.Reason)
		}
		moved[e.ID] = e.Agent
	}
	want := make(map[string]string)
	for id, agent := range to {
		if from[id] != agent {
			want[id] = agent
		}
	}
	if !maps.Equal(moved, want) {
		s.t.Errorf("moved: %v, want %v", moved, want)
	}
}

// stays checks that nothing moves for a while.
func (s *shared) stays(n int, d time.Duration, why string) {
	s.t.Helper()
	<-time.After(d)
	for _, e := range s.moves(n) {
		s.t.Errorf("%s began to move to %s %s: %s", e.ID, e.Agent, why, e.Reason)
	}
}

// madeFirst checks, by what was said, executed and answered, that no move broke the old place
// before the new one was made: the old one served while the new one loaded, and drained only
// after the new one was ready.
func (s *shared) madeFirst(from map[string]string, told []messages.Event, records []history.Record) {
	s.t.Helper()
	for i, e := range told {
		if e.Kind != "replica_moving" {
			continue
		}
		old, task := from[e.ID], e.Task
		says := func(kind, agent string) int {
			return slices.IndexFunc(told, func(o messages.Event) bool { return o.ID == e.ID && o.Kind == kind && o.Agent == agent })
		}
		ready, drains := says("replica_ready", e.Agent), says("replica_draining", old)
		if ready < i || drains < ready {
			s.t.Errorf("%s moves to %s: event %d; it is ready: event %d; %s drains: event %d; they are %+v", e.ID, e.Agent, i, ready, old, drains, told)
			continue
		}
		loaded, served := e.Time.Add(modelLoads), 0
		for _, r := range records {
			if r.Task != task || r.At.Before(e.Time) || r.At.After(loaded) {
				continue
			}
			if r.Kind == history.Answered && r.Agent == old {
				served++
			}
			if r.Kind == history.Begin && r.Who != old {
				s.t.Errorf("%s serves %s %v after it began to load", r.Who, task, r.At.Sub(e.Time))
			}
		}
		if served == 0 {
			s.t.Errorf("%s answered nothing while %s loaded on %s", old, e.ID, e.Agent)
		}
		s.t.Logf("%s from %s to %s: ready after %v, %d requests answered meanwhile", e.ID, old, e.Agent, told[ready].Time.Sub(e.Time), served)
	}
}

// records are all histories.
func (s *shared) records() (all []history.Record) {
	s.t.Helper()
	for _, who := range []string{"tester", "edge-1", "edge-2", "cloud-1"} {
		list, err := history.Read(s.history(who))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// The load of an edge doubles: what the planner says moves away, each replica serving
// where it was until the new one is ready. Nothing comes back while the load is between
// the two thresholds, and all does when it has been under the lower one for 30 s. No
// request fails. The times are the shipped ones, so the way back is a test of full length
// only.
func TestEdgeLoadDoubles(t *testing.T) {
	_, full := rounds(t)
	calm := placement.DefaultCalm()
	s := newShared(t)
	home, err := s.homes()
	if err != nil {
		t.Fatal(err)
	}
	if want := s.best(othersBefore, nil); !maps.Equal(home, want) {
		t.Fatalf("before the load grew: %v, want %v", home, want)
	}
	stop := s.ask()

	moved := s.best(2*othersBefore, home)
	if maps.Equal(moved, home) {
		t.Fatal("the planner moves nothing: this test tests nothing")
	}
	changed, first := time.Now(), len(s.told(0))
	s.others(2 * othersBefore)
	s.reach(home, moved, first, changed, calm.HotFor)
	t.Logf("as planned %v after the load doubled", time.Since(changed))

	// Longer than a replica stays anyhow after it moved; at full length longer than a load
	// must be low, too.
	quiet := calm.Dwell + 2*time.Second
	if full {
		quiet = calm.CoolFor + calm.Dwell
	}
	second := len(s.told(0))
	s.others(othersBetween)
	s.stays(second, quiet, "while the load was between the thresholds")
	t.Logf("nothing moved for %v between the thresholds", quiet)

	third := len(s.told(0))
	if full {
		changed = time.Now()
		s.others(othersBefore)
		s.reach(moved, home, third, changed, calm.CoolFor)
		t.Logf("back %v after the load fell", time.Since(changed))
	}
	stop()

	records := s.records()
	v := history.Check(records)
	if !v.Good() || v.Answered != v.Sent || v.Sent == 0 {
		t.Errorf("%d requests, %d answered, refused %v: %+v", v.Sent, v.Answered, v.Codes, v.Violations)
	}
	told := s.told(0)
	s.madeFirst(home, told[first:second], records)
	s.madeFirst(moved, told[third:], records)
	t.Logf("%d requests, %d answered", v.Sent, v.Answered)
}
