package agent

import (
	"context"
	"errors"
	"sync"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// jobStore reads and writes the records of jobs. It opens the buckets once and again
// after forget.
type jobStore struct {
	a      *Agent
	mu     sync.Mutex
	kv     *bus.KV
	points jetstream.ObjectStore
	logs   bool // their stream is there

	puts   bus.Puts
	prefix string // of the subjects of records
}

func (s *jobStore) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kv, s.points, s.logs = nil, nil, false
}

func (s *jobStore) open(ctx context.Context) (bus.KV, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kv != nil {
		return *s.kv, nil
	}
	kv, err := s.a.bus.KV(ctx, bus.Jobs)
	if err == nil {
		s.kv = &kv
	}
	return kv, err
}

// checkpoints opens the store of checkpoints.
func (s *jobStore) checkpoints(ctx context.Context) (jetstream.ObjectStore, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.points != nil {
		return s.points, nil
	}
	points, err := s.a.bus.Checkpoints(ctx)
	if err == nil {
		s.points = points
	}
	return points, err
}

// forgetCheckpoints makes the next one who needs their store open it again.
func (s *jobStore) forgetCheckpoints() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.points = nil
}

// logged makes sure that there is a stream for what jobs say.
func (s *jobStore) logged(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs {
		return nil
	}
	err := s.a.bus.JobLogs(ctx)
	s.logs = err == nil
	return err
}

// get returns a job's record and its revision; nil where there is none.
func (s *jobStore) get(ctx context.Context, id string) (*messages.Job, uint64, error) {
	ctx, cancel := s.a.apiContext(ctx, apiTime)
	defer cancel()
	kv, err := s.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	e, err := kv.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, bus.Explain(err, "read the record of job "+id)
	}
	var job messages.Job
	if err := messages.Decode(e.Value(), &job); err != nil {
		return nil, 0, err
	}
	return &job, e.Revision(), nil
}

// update writes a record if it is still at the revision, 0 for one that is not there yet;
// otherwise the error's code is conflict.
func (s *jobStore) update(ctx context.Context, id string, data []byte, rev uint64) (uint64, error) {
	again := s.a.reconnected.next()
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	rev, err := s.puts.Put(ctx, apiTime, again, s.prefix+id, data, rev)
	return rev, bus.Explain(err, "write the record of job "+id)
}

// ready makes sure that there is a bucket for records.
func (s *jobStore) ready(ctx context.Context) error {
	s.mu.Lock()
	there := s.kv != nil
	s.mu.Unlock()
	if there {
		return nil
	}
	ctx, cancel := s.a.apiContext(ctx, apiTime)
	defer cancel()
	_, err := s.open(ctx)
	return err
}
