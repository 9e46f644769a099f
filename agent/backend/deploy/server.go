package deploy

import (
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
)

// server is what runs for a replica: a backend, and, unless that is the process itself, the
// program that it asks. One goroutine watches both.
type server struct {
	backend.Server
	l       *launch
	p       *program // nil with frames
	closing chan struct{}
	done    chan struct{} // closed when either has died
	watched chan struct{}
}

// batching is a server that takes several requests with one call, described one that has
// something to say of itself. No kind of backend is both.
type (
	batching struct {
		*server
		backend.Batcher
	}
	described struct {
		*server
		backend.Describer
	}
)

// serve makes a Server of what runs.
func serve(l *launch, inner backend.Server, p *program) backend.Server {
	s := &server{Server: inner, l: l, p: p, closing: make(chan struct{}), done: make(chan struct{}), watched: make(chan struct{})}
	go s.watch()
	if b, ok := inner.(backend.Batcher); ok {
		return batching{s, b}
	}
	if d, ok := inner.(backend.Describer); ok {
		return described{s, d}
	}
	return s
}

// watch waits for a death.
func (s *server) watch() {
	defer close(s.watched)
	var backendDied, ended <-chan struct{}
	if d, ok := s.Server.(backend.Dying); ok {
		backendDied = d.Done()
	}
	if s.p != nil {
		ended = s.p.done
	}
	select {
	case <-s.closing:
		return
	case <-backendDied:
		// Where the process has ended its connections tell it first; its own reason says more.
		t := time.NewTimer(reasonTime)
		defer t.Stop()
		select {
		case <-ended:
		case <-t.C:
		case <-s.closing:
			return
		}
	case <-ended:
	}
	close(s.done)
}

// reasonTime is how long a process whose server does not answer any more may take to have
// ended. The kernel closes its connections, then its parent is told: microseconds.
const reasonTime = 200 * time.Millisecond

// Done is closed when the process, or the server in it, has died.
func (s *server) Done() <-chan struct{} { return s.done }

// Err tells why; nil before.
func (s *server) Err() error {
	select {
	case <-s.done:
	default:
		return nil
	}
	if s.p != nil && s.p.ended() {
		return fmt.Errorf("%s: %w", s.p.name, s.p.err)
	}
	if d, ok := s.Server.(backend.Dying); ok {
		return d.Err()
	}
	return nil
}

// Close ends the process, and gives back what it had.
func (s *server) Close() error {
	why := "stopped"
	if err := s.Err(); err != nil {
		why = "ended: " + err.Error()
	}
	close(s.closing)
	<-s.watched
	err := s.Server.Close()
	if s.p != nil {
		if perr := s.p.stop(s.l.stop); err == nil {
			err = perr
		}
	}
	if err != nil {
		why += "; " + err.Error()
	}
	s.l.say(why)
	s.l.close()
	return err
}
