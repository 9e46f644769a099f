package main

import (
	"math"
	"slices"
	"time"
)

// box is the compute of one machine. It gives all that it has to the requests that are
// served there, in equal parts: a request that is alone takes work / compute, as the model
// has it, and two at once take twice as long each.
type box struct {
	c     *clock
	speed float64 // TFLOPS, which is GFLOP a millisecond
	jobs  []*job  // in the order in which they began
	had   float64 // GFLOP that a job has had that was there since the box was last idle
	at    time.Duration
	gen   int // of the alarm that is set

	served float64 // GFLOP, all in all
	ran    float64 // ms that one which was there all the time would have had for itself
}

// job is one request that is served.
type job struct {
	goal float64 // box.had when it is done
	done func()
}

// begin serves work GFLOP and then calls done.
func (b *box) begin(work float64, done func()) *job {
	b.advance()
	if len(b.jobs) == 0 {
		b.had = 0 // small numbers are exact ones
	}
	j := &job{goal: b.had + work, done: done}
	b.jobs = append(b.jobs, j)
	b.schedule()
	return j
}

// drop ends a job that is not done; its done is not called.
func (b *box) drop(j *job) {
	b.advance()
	b.jobs = slices.DeleteFunc(b.jobs, func(o *job) bool { return o == j })
	b.schedule()
}

// setSpeed says how much compute there is from now on.
func (b *box) setSpeed(tflops float64) {
	b.advance()
	b.speed = tflops
	b.schedule()
}

// advance takes in the time since the last change.
func (b *box) advance() {
	if n := len(b.jobs); n > 0 {
		did := float64(ms(b.c.now-b.at) * b.speed)
		b.ran += float64(ms(b.c.now-b.at) / float64(n))
		b.had += float64(did / float64(n)) // conversions keep machines that fuse operations from another result
		b.served += did
	}
	b.at = b.c.now
}

// schedule sets the alarm for the job that is done next.
func (b *box) schedule() {
	b.gen++
	if len(b.jobs) == 0 || b.speed <= 0 {
		return
	}
	goal := math.Inf(1)
	for _, j := range b.jobs {
		goal = min(goal, j.goal)
	}
	wait := float64((goal-b.had)*float64(len(b.jobs))) / b.speed
	gen := b.gen
	b.c.in(time.Duration(math.Ceil(max(0, wait)*float64(time.Millisecond))), func() {
		if gen == b.gen {
			b.ring()
		}
	})
}

// ring ends what is done: to a nanosecond, which is all that the clock knows.
func (b *box) ring() {
	b.advance()
	limit := b.had + float64(b.speed*1e-6)
	var done []*job
	b.jobs = slices.DeleteFunc(b.jobs, func(j *job) bool {
		if j.goal <= limit {
			done = append(done, j)
			return true
		}
		return false
	})
	b.schedule()
	for _, j := range done {
		j.done()
	}
}
