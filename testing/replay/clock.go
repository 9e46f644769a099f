package main

import "time"

// clock is virtual time, and what is to happen in it: what is due first happens first,
// and of what is due at the same moment what was asked for first.
type clock struct {
	now   time.Duration // since begin
	queue []event       // a heap
	seq   uint64
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

// begin is when every run begins, on the clock that nobody has.
var begin = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// time is now as the machines under test are told it.
func (c *clock) time() time.Time { return begin.Add(c.now) }

func (a *event) before(b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// in asks for do to happen d from now.
func (c *clock) in(d time.Duration, do func()) {
	c.seq++
	c.queue = append(c.queue, event{c.now + max(0, d), c.seq, do})
	for i := len(c.queue) - 1; i > 0; {
		up := (i - 1) / 2
		if !c.queue[i].before(&c.queue[up]) {
			return
		}
		c.queue[i], c.queue[up] = c.queue[up], c.queue[i]
		i = up
	}
}

func (c *clock) pop() event {
	top, last := c.queue[0], len(c.queue)-1
	c.queue[0], c.queue[last] = c.queue[last], event{}
	c.queue = c.queue[:last]
	for i := 0; ; {
		least := i
		for k := 2*i + 1; k <= 2*i+2 && k < last; k++ {
			if c.queue[k].before(&c.queue[least]) {
				least = k
			}
		}
		if least == i {
			return top
		}
		c.queue[i], c.queue[least] = c.queue[least], c.queue[i]
		i = least
	}
}

// run lets time pass until end.
func (c *clock) run(end time.Duration) {
	for len(c.queue) > 0 && c.queue[0].at <= end {
		e := c.pop()
		c.now = e.at
		e.do()
	}
	c.now = end
}

// ms converts a duration to milliseconds, as the model counts.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
