package agent

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Nothing waits for a handler, one that ends its goroutine costs nobody else anything,
// and in the end nobody is left.
func TestCrew(t *testing.T) {
	const many = 3 * maxIdle
	var l lives
	c := newCrew(&l)
	var begun sync.WaitGroup
	begun.Add(many)
	open := make(chan struct{})
	c.do = func(e *execution) {
		begun.Done()
		<-open
		if e.ack == "exit" {
			runtime.Goexit()
		}
	}
	for i := range many {
		if i%7 == 0 {
			c.run(&execution{ack: "exit"})
		} else {
			c.run(new(execution))
		}
	}
	begun.Wait() // all are in their handlers at the same time
	select {
	case <-l.none():
		t.Error("nobody counts while handlers run")
	default:
	}
	close(open)
	wait(t, l.none(), "the handlers to return")

	// A burst of quick ones after it, one after the other and all at once.
	var done sync.WaitGroup
	c.do = func(*execution) { done.Done() }
	for range 1000 {
		done.Add(1)
		c.run(new(execution))
	}
	done.Wait()
	wait(t, l.none(), "the quick ones")
	closed := make(chan struct{})
	go func() {
		c.close()
		close(closed)
	}()
	wait(t, closed, "the crew to go")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resting != 0 || len(c.todo) != 0 || c.next != 0 {
		t.Errorf("%d rest, %d to do", c.resting, len(c.todo))
	}
}

// One of the crew reads at any time, also where those who read go into handlers, and end
// their goroutines in them; at last reading ends, and nobody is left.
func TestCrewReads(t *testing.T) {
	var l lives
	c := newCrew(&l)
	const many = 3 * maxIdle
	in, over, open := make(chan string), make(chan struct{}), make(chan struct{})
	var reading atomic.Int32
	c.read = func() *execution {
		if reading.Add(1) != 1 {
			t.Error("two read")
		}
		for ack := range in {
			e := &execution{ack: ack}
			if ack == "hand over" {
				c.run(e)
				continue
			}
			l.enter()
			reading.Add(-1)
			c.lead()
			return e
		}
		close(over)
		return nil
	}
	var begun sync.WaitGroup
	c.do = func(e *execution) {
		begun.Done()
		<-open
		if e.ack == "exit" {
			runtime.Goexit()
		}
	}
	c.lead()
	for i := range many {
		begun.Add(1)
		in <- []string{"keep", "exit", "hand over"}[i%3]
	}
	begun.Wait() // all are in their handlers at the same time, and somebody reads
	close(open)
	wait(t, l.none(), "the handlers to return")
	for i := range 1000 {
		begun.Add(1)
		in <- []string{"keep", "hand over"}[i%2]
	}
	begun.Wait()
	close(in)
	wait(t, over, "the end of reading")
	wait(t, l.none(), "the quick ones")
	closed := make(chan struct{})
	go func() {
		c.close()
		close(closed)
	}()
	wait(t, closed, "the crew to go")
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
}
