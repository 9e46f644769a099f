package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// dialWithin bounds a connection to a server of this machine that does not answer.
const dialWithin = 2 * time.Second

// link is the way of one process to all servers, over ports of its own: it can be
// stalled (what is sent waits, nobody is told) and severed (connections are closed, new
// ones refused).
type link struct {
	urls []string

	mu      sync.Mutex
	carries *sync.Cond
	stalled bool
	severed bool
	closed  bool
	conns   map[net.Conn]bool
	doors   []net.Listener
	running sync.WaitGroup
}

// newLink makes a link to the servers at these URLs.
func newLink(servers []string) (*link, error) {
	l := &link{conns: make(map[net.Conn]bool)}
	l.carries = sync.NewCond(&l.mu)
	for _, s := range servers {
		door, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.close()
			return nil, err
		}
		l.doors = append(l.doors, door)
		l.urls = append(l.urls, "nats://"+door.Addr().String())
		l.running.Go(func() { l.accept(door, strings.TrimPrefix(s, "nats://")) })
	}
	return l, nil
}

// url is what the process connects to.
func (l *link) url() string { return strings.Join(l.urls, ",") }

func (l *link) accept(door net.Listener, server string) {
	for {
		near, err := door.Accept()
		if err != nil {
			return // closed
		}
		l.running.Go(func() { l.carry(near, server) })
	}
}

// carry carries one connection until either end of it closes.
func (l *link) carry(near net.Conn, server string) {
	defer near.Close()
	if !l.keep(near) {
		return
	}
	defer l.drop(near)
	far, err := net.DialTimeout("tcp", server, dialWithin)
	if err != nil {
		return // as if the server itself had refused
	}
	defer far.Close()
	if !l.keep(far) {
		return
	}
	defer l.drop(far)
	var both sync.WaitGroup
	both.Go(func() { l.copy(far, near) })
	both.Go(func() { l.copy(near, far) })
	both.Wait()
}

// keep notes a connection, unless there are to be none.
func (l *link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stalled && !l.closed && !l.severed {
		l.carries.Wait() // the other end hears nothing yet
	}
	if l.closed || l.severed {
		return false
	}
	l.conns[c] = true
	return true
}

func (l *link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// copy carries bytes one way. What was read when the link stalls is held back; what was
// held back when it is severed is lost.
func (l *link) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close() // so that the other way ends too
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && l.wait() {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				l.wait() // the news that it was closed waits as well
			}
			return
		}
	}
}

// wait waits while the link is stalled and reports whether it carries then.
func (l *link) wait() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stalled && !l.closed && !l.severed {
		l.carries.Wait()
	}
	return !l.closed && !l.severed
}

// stall holds everything back.
func (l *link) stall() { l.set(func() { l.stalled = true }) }

// sever closes everything.
func (l *link) sever() { l.set(func() { l.severed = true; l.cutAll() }) }

// mend makes the link whole.
func (l *link) mend() { l.set(func() { l.stalled, l.severed = false, false }) }

// close ends the link for good, and returns when nothing of it runs.
func (l *link) close() {
	for _, d := range l.doors {
		_ = d.Close()
	}
	l.set(func() { l.closed = true; l.cutAll() })
	l.running.Wait()
}

func (l *link) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.carries.Broadcast()
}

// cutAll closes all connections; l.mu is held.
func (l *link) cutAll() {
	for c := range l.conns {
		_ = c.Close()
	}
}
