package stopping

import (
	"io"
	"net"
	"strings"
	"sync"
)

// proxy is a link of TCP that can be cut: what is sent then waits, and nobody is told.
type proxy struct {
	l      net.Listener
	target string

	mu      sync.Mutex
	carries *sync.Cond
	cut     bool
	closed  bool
	conns   []net.Conn
	running sync.WaitGroup
}

func newProxy(url string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l, target: strings.TrimPrefix(url, "nats://")}
	p.carries = sync.NewCond(&p.mu)
	p.running.Go(p.accept)
	return p, nil
}

func (p *proxy) url() string { return "nats://" + p.l.Addr().String() }

func (p *proxy) accept() {
	for {
		near, err := p.l.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", p.target, ready)
		p.mu.Lock()
		if err != nil || p.closed || p.cut {
			p.mu.Unlock()
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			continue
		}
		p.conns = append(p.conns, near, far)
		p.running.Go(func() { p.copy(far, near) })
		p.running.Go(func() { p.copy(near, far) })
		p.mu.Unlock()
	}
}

// copy carries bytes one way until either end closes. What was read when the link is
// cut is held back.
func (p *proxy) copy(to net.Conn, from io.Reader) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.cut && !p.closed {
			p.carries.Wait()
		}
		closed := p.closed
		p.mu.Unlock()
		if n > 0 && !closed {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil || closed {
			return
		}
	}
}

// set cuts the link, or mends it.
func (p *proxy) set(cut bool) {
	p.mu.Lock()
	p.cut = cut
	p.mu.Unlock()
	p.carries.Broadcast()
}

func (p *proxy) close() {
	_ = p.l.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.carries.Broadcast()
	p.running.Wait()
}
