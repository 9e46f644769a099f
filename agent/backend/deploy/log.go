package deploy

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Times and sizes of what processes say. It is for people, and what is lost with a
// connection is lost; the agent's own log has it all.
//
//   - logEvery is how long lines are collected for one message.
//   - logMost bounds a message, and so what a process that says too much puts on the link:
//     640 kB/s. The rest is counted.
//   - logStream bounds the wait for the stream, which coordinators make; without it the
//     lines are heard by whoever listens now.
const (
	logEvery  = 100 * time.Millisecond
	logMost   = 64 << 10
	logStream = 2 * time.Second
)

// speaker sends what the processes of one replica say.
type speaker struct {
	b       *bus.Bus
	subject string
	log     *slog.Logger
	wake    chan struct{} // capacity 1
	end     chan struct{}
	done    chan struct{}

	mu      sync.Mutex
	text    []byte
	dropped int
}

// speak starts to send lines; close ends it, and returns when the last one is sent.
func speak(b *bus.Bus, subject string, log *slog.Logger) *speaker {
	s := &speaker{b: b, subject: subject, log: log, wake: make(chan struct{}, 1), end: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// say adds a line.
func (s *speaker) say(line string) {
	s.mu.Lock()
	if len(s.text)+len(line) >= logMost {
		s.dropped++
	} else {
		s.text = append(append(s.text, line...), '\n')
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *speaker) run() {
	defer close(s.done)
	for {
		select {
		case <-s.wake:
		case <-s.end:
			s.flush()
			return
		}
		t := time.NewTimer(logEvery)
		select {
		case <-t.C:
		case <-s.end:
			t.Stop()
		}
		s.flush()
	}
}

func (s *speaker) flush() {
	s.mu.Lock()
	text, dropped := s.text, s.dropped
	s.text, s.dropped = nil, 0
	s.mu.Unlock()
	if len(text) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), logStream)
	defer cancel()
	err := s.b.Ask(ctx, logStream, s.b.TaskLogs)
	if perr := s.b.Conn.PublishMsg(&nats.Msg{Subject: s.subject, Data: text}); perr != nil {
		err = perr
	}
	if err != nil {
		s.log.Debug("what a process said may be lost", "subject", s.subject, "error", err)
	}
	if dropped > 0 {
		s.log.Warn("a process says more than can be sent", "subject", s.subject, "lines_dropped", dropped)
	}
}

func (s *speaker) close() {
	close(s.end)
	<-s.done
}
