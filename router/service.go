package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// serviceName is how the service calls itself, in `nats micro ls` and as its queue
// group: many routers share the requests.
const serviceName = "fleetbus-router"

// serviceVersion is that of the door's protocol, not of the program.
const serviceVersion = "1.0.0"

// readyWait is how long a service waits for routes before it takes requests all the
// same, and answers them with the reason why it cannot serve: with several routers a
// request goes to any of them, so one that knows nothing yet should not be among them.
const readyWait = 3 * time.Second

// busyRetry is what a caller is told to wait that finds the router full: a few times
// what an inference takes.
const busyRetry = 50 * time.Millisecond

// Service is the door for every NATS client of any language: it serves
//
//	fb.<fleet>.<site>.req.inference.<origin>.<task>
//	fb.<fleet>.<site>.req.action.<origin>.<robot>.<task>
//	fb.<fleet>.<site>.req.training.<origin>.<task>
//
// as a NATS micro service, with the promises of [Client]. docs/protocol.md has the
// headers of requests and answers.
type Service struct {
	nc     *nats.Conn
	client *Client
	cfg    Config
	begun  atomic.Bool
	slots  chan struct{}
	stats  doorStats
	intake *intake
	staff  staff

	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup // requests; Add only under mu and while not closed
}

// NewService makes a service. It starts nothing and sends nothing; a wrong Config is
// reported by Run.
func NewService(nc *nats.Conn, cfg Config) *Service {
	c := newClient(nc, cfg, true)
	s := &Service{nc: nc, client: c, cfg: c.cfg, slots: make(chan struct{}, max(1, c.cfg.MaxInFlight)), intake: newIntake(nc)}
	s.staff.do = s.work
	return s
}

// Client returns the client that the service asks with. It runs as long as Run does,
// and speaks for every origin: only its Ready, Routes, RoutesChanged and Stats are of
// use to others.
func (s *Service) Client() *Client { return s.client }

// Run serves until ctx ends; then it takes no more requests, finishes those that it has
// within Config.DrainTimeout, and returns nil when everything of it is gone. An error
// is a wrong Config, a second call, or a connection that was closed under it.
func (s *Service) Run(ctx context.Context) error {
	if s.client.err != nil {
		return s.client.err
	}
	if s.begun.Swap(true) {
		return messages.Errorf(messages.CodeConflict, "router.Service: Run was called twice; make a service for each")
	}
	// The client outlives ctx: it serves what is in flight until that has ended.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.client.Run(inner) }()
	defer s.staff.close() // when the last request has ended
	sweeper, err := NewSweeper(s.nc, s.cfg)
	if err != nil {
		cancel()
		return errors.Join(err, <-ended)
	}
	var sweeping sync.WaitGroup
	sweeping.Go(func() { _ = sweeper.Run(inner) }) // it fails only for a second call
	defer sweeping.Wait()
	defer cancel()
	finish := func() error {
		cancel()
		return <-ended
	}

	ready, done := context.WithTimeout(ctx, readyWait)
	err = s.client.Ready(ready)
	done()
	if ctx.Err() != nil {
		return finish()
	}
	if err != nil {
		select {
		case err := <-ended:
			return err
		default:
			s.cfg.Logger.Warn("the router cannot serve yet", "reason", err)
		}
	}
	work, giveUp := context.WithCancel(inner)
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		s.intake.run(work)
	}()
	defer func() { giveUp(); <-measured }()
	door, err := s.open(work)
	if err != nil {
		s.close()
		_ = finish() // the reason to stop is the other one
		s.inside.Wait()
		return bus.Explain(err, "register the service "+serviceName)
	}
	select {
	case <-ctx.Done():
	case err := <-ended:
		_ = door.Stop() // the connection is closed, so nothing is left to be stopped
		s.close()
		s.inside.Wait() // their client has ended, so they have too
		return err
	}
	s.drain(door, giveUp)
	return finish()
}

// drain takes no more requests and lets those in flight end, for a while.
func (s *Service) drain(door micro.Service, giveUp func()) {
	timeout := time.NewTimer(s.cfg.DrainTimeout)
	defer timeout.Stop()
	if err := door.Stop(); err != nil {
		s.cfg.Logger.Warn("the service did not stop cleanly", "error", err)
	}
	// What the server had sent before it heard of that is still to be served: after a
	// round trip it is here, after a barrier it was handed over.
	flush, done := context.WithTimeout(context.Background(), flushTimeout)
	_ = s.nc.FlushWithContext(flush) // without a connection nothing comes anyway
	done()
	idle, handed, forced := make(chan struct{}), make(chan struct{}), make(chan struct{})
	if s.nc.Barrier(func() { close(handed) }) != nil {
		close(handed) // the connection is closed
	}
	go func() {
		select {
		case <-handed:
		case <-forced: // another subscription of this connection is stuck
		}
		s.close()
		s.inside.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-timeout.C:
		s.cfg.Logger.Warn("requests were still under way when the time to drain was over; they end as unavailable", "in_flight", s.client.Stats().InFlight)
		close(forced)
		s.client.halt()
		giveUp()
		<-idle
	}
}

// close refuses what comes from now on.
func (s *Service) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// enter counts a request in, unless the service has closed or is full.
func (s *Service) enter() *messages.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return messages.Errorf(messages.CodeDraining, "the router stops; ask again, another one answers")
	}
	select {
	case s.slots <- struct{}{}:
		s.inside.Add(1)
		return nil
	default:
	}
	return &messages.Error{Code: messages.CodeBusy, RetryAfter: busyRetry,
		Message: fmt.Sprintf("the router works on %d requests already; try again soon, or start another router", cap(s.slots))}
}

func (s *Service) leave() {
	<-s.slots
	s.inside.Done()
}

// open registers the endpoints.
func (s *Service) open(ctx context.Context) (micro.Service, error) {
	door, err := micro.AddService(s.nc, micro.Config{
		Name: serviceName, Version: serviceVersion, QueueGroup: serviceName,
		Description:  "Requests to fleet " + s.cfg.Fleet + ": inference, action, training",
		StatsHandler: func(e *micro.Endpoint) any { return s.stats.of(e.Name) },
		Metadata:     map[string]string{"fleet": s.cfg.Fleet, "site": s.cfg.Site, "id": s.cfg.Origin},
	})
	if err != nil {
		return nil, err
	}
	request := messages.Subject{Kind: messages.KindRequest, Fleet: s.cfg.Fleet}
	for _, e := range []struct {
		name    string
		subject messages.Subject
	}{
		{"inference", func() messages.Subject { s := request; s.Class = messages.Inference; return s }()},
		{"training", func() messages.Subject { s := request; s.Class = messages.Training; return s }()},
		{"action", messages.Subject{Kind: messages.KindAct, Fleet: s.cfg.Fleet}},
	} {
		stats, subjects := s.stats.endpoint(e.name), newSubjectCache()
		if err := door.AddEndpoint(e.name, micro.HandlerFunc(func(r micro.Request) { s.handle(ctx, stats, subjects, r) }),
			micro.WithEndpointSubject(e.subject.String())); err != nil {
			_ = door.Stop() // the first error is the one to report
			return nil, err
		}
	}
	return door, nil
}
