package agent

import "sync"

// maxIdle bounds the goroutines that wait for direct requests: what a burst leaves
// behind, a few kilobytes each.
const maxIdle = 64

// crew runs direct requests on goroutines that are used again: a new one for each would
// grow its stack each time. One is woken for a burst, and wakes the next when it takes
// one of several; where handlers are quick it serves the burst alone, and its replies
// leave together. No request waits for a handler: whoever enters one has woken another
// if there is more to do.
//
// One of them reads. When a large request comes alone it wakes another to read on, and
// serves that request itself: see largeBody.
//
// They count among the lives only while they have something to do.
type crew struct {
	lives *lives
	do    func(*execution)
	read  func() *execution // reads until it has what to execute at once, and has called lead for others; nil at its end

	mu      sync.Mutex
	todo    []*execution
	next    int // of todo
	idle    []chan struct{}
	waking  int  // woken, and not looking yet
	unread  bool // somebody is to read
	closed  bool
	resting int           // goroutines that hold nothing
	alone   chan struct{} // closed when nobody rests any more; nil until close waits for it
}

func newCrew(l *lives) *crew { return &crew{lives: l, do: (*execution).runDirect} }

// run executes e on a goroutine that is idle, or on a new one.
func (c *crew) run(e *execution) {
	c.lives.enter()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next > 0 && len(c.todo) == cap(c.todo) {
		c.todo, c.next = append(c.todo[:0], c.todo[c.next:]...), 0 // it may never be empty
	}
	c.todo = append(c.todo, e)
	if c.waking == 0 {
		c.wake()
	}
}

// lead has another one read.
func (c *crew) lead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread = true
	if c.waking == 0 {
		c.wake()
	}
}

// wake has one more look for work; mu is held.
func (c *crew) wake() {
	c.waking++
	if n := len(c.idle); n > 0 {
		c.idle[n-1] <- struct{}{} // it has room for one, and is taken out of the list with it
		c.idle = c.idle[:n-1]
		return
	}
	c.resting++
	go c.work()
}

func (c *crew) work() {
	bell := make(chan struct{}, 1)
	defer c.rested()
	woken := true
	for {
		e, next := c.take(bell, woken)
		if woken = false; next == toRead {
			e = c.read()
		}
		if e != nil {
			c.one(e)
		}
		switch next {
		case toLeave:
			return
		case toWait:
			if _, woken = <-bell; !woken {
				return
			}
		case toRead, toServe: // and then look again
		}
	}
}

// turn is what one of the crew does next.
type turn int

const (
	toServe turn = iota
	toRead
	toWait // for its bell
	toLeave
)

// take returns what is to be done next.
func (c *crew) take(bell chan struct{}, woken bool) (*execution, turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if woken {
		c.waking--
	}
	if c.unread {
		c.unread = false
		if c.next < len(c.todo) && c.waking == 0 {
			c.wake()
		}
		return nil, toRead
	}
	if c.next < len(c.todo) {
		e := c.todo[c.next]
		c.todo[c.next] = nil
		if c.next++; c.next == len(c.todo) {
			c.todo, c.next = c.todo[:0], 0
		} else if c.waking == 0 {
			c.wake()
		}
		return e, toServe
	}
	if c.closed || len(c.idle) >= maxIdle {
		return nil, toLeave
	}
	c.idle = append(c.idle, bell)
	return nil, toWait
}

// one runs one execution. Deferred: a handler may end its goroutine with runtime.Goexit.
func (c *crew) one(e *execution) {
	c.mu.Lock()
	c.resting--
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.resting++
		c.mu.Unlock()
		c.lives.leave()
	}()
	c.do(e)
}

func (c *crew) rested() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resting--; c.resting == 0 && c.alone != nil {
		close(c.alone)
		c.alone = nil
	}
}

// close sends the idle ones away and returns when they are gone. Those that a handler
// holds leave when it lets them. run may not be called any more.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	for _, bell := range c.idle {
		close(bell)
	}
	c.idle = nil
	var alone chan struct{}
	if c.resting > 0 {
		alone = make(chan struct{})
		c.alone = alone
	}
	c.mu.Unlock()
	if alone != nil {
		<-alone
	}
}
