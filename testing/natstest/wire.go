package natstest

import "net"

// buffer is how many bytes a direction of a wire takes in before it makes the sender
// wait, while the link is up. While it is cut there is no limit: nats.go writes with
// its connection's lock held, and a write that waited in virtual time could stop the
// clock (see Link.connect).
const buffer = 64 << 10

// wire is one connection over a link. Per direction, one goroutine takes bytes in
// from one end at any time, and one hands them out at the other end while the link is
// up.
type wire struct {
	link      *Link
	near, far net.Conn // the client's end and the server's

	// Guarded by link.mu:
	up, down flow // to the server, to the client
	settled  bool // the server has answered the client: the connection is set up
	dead     bool // closed at both ends
	working  int  // goroutines
}

// flow is what is under way in one direction.
type flow struct {
	bytes []byte
	eof   bool // the sender has closed
	deaf  bool // the receiver has closed: drop what comes
	any   bool // something was handed out
}

// run starts the wire's goroutines. The link's lock is held.
func (w *wire) run() {
	work := []func(){
		func() { w.fill(w.near, &w.up) },
		func() { w.drain(&w.up, w.far) },
		func() { w.fill(w.far, &w.down) },
		func() { w.drain(&w.down, w.near) },
	}
	w.working = len(work)
	for _, f := range work {
		w.link.running.Go(func() {
			f()
			w.done()
		})
	}
}

// done counts a goroutine that has ended; the last one takes the wire off the link.
func (w *wire) done() {
	w.link.mu.Lock()
	defer w.link.mu.Unlock()
	if w.working--; w.working == 0 {
		delete(w.link.wires, w)
	}
}

// kill closes both ends at once. The link's lock is held.
func (w *wire) kill() {
	if !w.dead {
		w.dead = true
		_ = w.near.Close()
		_ = w.far.Close()
	}
}

// fill takes bytes in until the sender closes.
func (w *wire) fill(from net.Conn, f *flow) {
	chunk := make([]byte, 32<<10)
	for {
		n, err := from.Read(chunk)
		if w.take(f, chunk[:n], err != nil) {
			return
		}
	}
}

// take adds to a flow, waits for room in it and reports whether it has ended.
func (w *wire) take(f *flow, b []byte, eof bool) bool {
	l := w.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if !f.deaf {
		f.bytes = append(f.bytes, b...)
	}
	f.eof = eof
	if w.up.eof && w.down.eof && l.state != linkUp {
		w.kill() // both ends have given up while the link was cut: nobody is left to hand anything to
	}
	l.changed.Broadcast()
	for !w.dead && !f.eof && l.state == linkUp && len(f.bytes) > buffer {
		l.changed.Wait()
	}
	return w.dead || f.eof
}

// drain hands bytes out while the link is up, and closes the receiving end after the
// last one.
func (w *wire) drain(f *flow, to net.Conn) {
	for {
		b, more := w.next(f)
		if !more {
			_ = to.Close()
			return
		}
		if _, err := to.Write(b); err != nil {
			w.link.mu.Lock()
			f.deaf, f.bytes = true, nil
			w.link.changed.Broadcast()
			w.link.mu.Unlock()
		}
	}
}

// next waits for what is to be handed out next; more is false at the end.
func (w *wire) next(f *flow) (b []byte, more bool) {
	l := w.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for !w.dead && (l.state != linkUp || len(f.bytes) == 0 && !f.eof) {
		l.changed.Wait()
	}
	if w.dead || len(f.bytes) == 0 {
		return nil, false
	}
	b, f.bytes, f.any = f.bytes, nil, true
	// The server speaks first (INFO), then the client, and the answer to that ends
	// the set-up.
	if f == &w.down && w.up.any {
		w.settled = true
	}
	l.changed.Broadcast()
	return b, true
}
