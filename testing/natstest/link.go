package natstest

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/nats-io/nats.go"
)

// Link is a network path that a test can cut and mend: one robot's Wi-Fi, say. It
// carries all connections that were made with its [Link.Dial]. There is no proxy
// process and nothing to configure; it works over TCP and in process, and in virtual
// time. Its methods may be called from many goroutines.
type Link struct {
	name  string
	pipes bool
	token string
	dial  func(network, address string) (net.Conn, error)

	// mu guards everything below and the flows of all wires; it is never held during
	// input or output. changed is for every change of it.
	mu      sync.Mutex
	changed *sync.Cond
	state   linkState
	wires   map[*wire]struct{}
	running sync.WaitGroup // the goroutines of the wires
}

type linkState uint8

const (
	linkUp     linkState = iota
	linkCut              // bytes wait, nothing is closed, new dials fail
	linkBroken           // nothing is there, new dials fail
	linkEnded            // the test is over
)

// Dial returns the option that sends a connection over this link:
//
//	robot := s.Link("robot-1")
//	nc := s.Connect(t, robot.Dial())
//
// With nats.Connect, give it the server's URL too (in process it is empty). The option
// presents the server's token.
func (l *Link) Dial() nats.Option {
	return func(o *nats.Options) error {
		o.Token = l.token
		if l.pipes {
			o.InProcessServer = linkDialer{l}
		} else {
			o.CustomDialer = linkDialer{l}
		}
		return nil
	}
}

// Name returns the name that the link was asked for.
func (l *Link) Name() string { return l.name }

// Cut makes the link carry nothing in either direction while every connection stays
// open at both ends, as when a robot drives out of reach. What is sent meanwhile waits
// and arrives after [Link.Mend], as the operating system's buffers would have it,
// unless the other end has closed the connection by then; what is closed at one end
// looks open at the other until then. New connections fail at once, with "network is
// unreachable", and so do those that are still being set up. Cut does nothing on a link that is
// not up.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != linkUp {
		return
	}
	l.state = linkCut
	for w := range l.wires {
		if !w.settled {
			w.kill()
		}
	}
	l.changed.Broadcast()
}

// Break closes all connections at both ends, and makes new ones fail at once with
// "connection refused". It ends a Cut: what waited is lost.
func (l *Link) Break() { l.sever(linkBroken) }

// Mend makes the link carry again. It does nothing on a link that is up.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == linkEnded {
		return
	}
	l.state = linkUp
	l.changed.Broadcast()
}

// Conns returns how many connections are open on the link, at either end.
func (l *Link) Conns() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.wires)
}

func (l *Link) sever(to linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == linkEnded {
		return
	}
	l.state = to
	for w := range l.wires {
		w.kill()
	}
	l.changed.Broadcast()
}

// end closes the link for good and waits for its goroutines.
func (l *Link) end() {
	l.sever(linkEnded)
	l.running.Wait()
}

// linkDialer is the two interfaces of nats.go for making a connection; Dial of Link
// itself is for people.
type linkDialer struct{ *Link }

func (d linkDialer) InProcessConn() (net.Conn, error) { return d.Link.connect("", "") }

func (d linkDialer) Dial(network, address string) (net.Conn, error) {
	return d.Link.connect(network, address)
}

// connect makes a connection over the link. It fails at once where the link is not
// up: nats.go holds its connection's lock during a dial, and if that waited in virtual
// time while another goroutine wanted the lock, the clock would stand still.
func (l *Link) connect(network, address string) (net.Conn, error) {
	if err := l.carries(); err != nil {
		return nil, err
	}
	far, err := l.dial(network, address)
	if err != nil {
		return nil, err
	}
	user, near := net.Pipe()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != linkUp { // it went down meanwhile
		return nil, errors.Join(l.refusal(), far.Close(), near.Close())
	}
	w := &wire{link: l, near: near, far: far}
	l.wires[w] = struct{}{}
	w.run()
	return user, nil
}

func (l *Link) carries() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusal()
}

// refusal is the error of a new connection, nil on a link that is up.
func (l *Link) refusal() error {
	switch l.state {
	case linkUp:
		return nil
	case linkCut:
		return fmt.Errorf("link %s is cut: %w", l.name, syscall.ENETUNREACH)
	}
	return fmt.Errorf("link %s is broken: %w", l.name, syscall.ECONNREFUSED)
}

// links are the links of a server or cluster, by name.
type links struct {
	dial func(network, address string) (net.Conn, error)

	mu     sync.Mutex
	byName map[string]*Link
	closed bool
}

func (ls *links) get(name string, pipes bool, token string) *Link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.byName[name]; l != nil {
		return l
	}
	l := &Link{name: name, pipes: pipes, token: token, dial: ls.dial, wires: make(map[*wire]struct{})}
	l.changed = sync.NewCond(&l.mu)
	if ls.closed {
		l.state = linkEnded
	}
	if ls.byName == nil {
		ls.byName = make(map[string]*Link)
	}
	ls.byName[name] = l
	return l
}

func (ls *links) close() {
	ls.mu.Lock()
	ls.closed = true
	all := make([]*Link, 0, len(ls.byName))
	for _, l := range ls.byName {
		all = append(all, l)
	}
	ls.mu.Unlock()
	for _, l := range all {
		l.end()
	}
}
