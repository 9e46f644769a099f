package main

import (
	"math"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
)

// replica is a service on an agent. It does what package agent does: it pulls only what it
// has slots for, refuses what it cannot finish in time, and says how it fares.
type replica struct {
	w        *world
	a        *agent
	placed   messages.PlacedReplica
	state    messages.ReplicaState
	stopping bool
	gone     bool // its agent was switched off
	asked    int  // pulls that wait or are answered by a message that is on its way
	runs     []*execution
	served   uint64
	latency  float64 // ms, smoothed as heartbeats carry it
	expect   float64 // ms that the next one takes
	spread   float64 // ms by which one differs from that
	last     time.Duration
	rate     float64 // 1/s, smoothed
	sharing  sharing
	counted  uint64
	at       time.Duration
}

// execution is one request that a replica serves.
type execution struct {
	r       *replica
	f       *flight
	attempt int
	m       *message // nil: it came straight
	job     *job
	begun   time.Duration
	from    float64 // what the machine had run then; see box
	record  int     // in the ledger
	over    bool
}

// The agent's own figures; see agent/load.go, agent/serve.go and agent/accept.go.
const (
	latencyWeight = 0.2
	expectWeight  = 0.3
	expectGood    = time.Second
	rateTime      = 5 * time.Second
	giveBacks     = 3
	giveBackTime  = 5 * time.Millisecond
	acceptAfter   = 10 * time.Millisecond
)

func (r *replica) slots() int { return r.placed.Task.Slots() }

func (r *replica) open() bool {
	return !r.gone && r.state == messages.ReplicaReady && !r.stopping
}

func (r *replica) queue() *queue { return r.w.queueOf(r.a.env.Site, r.placed.Task.Name) }

// pull asks for what there are free slots for.
func (r *replica) pull() {
	if !r.open() || r.placed.Task.Delivery == messages.Direct {
		return
	}
	for n := r.slots() - len(r.runs) - r.asked; n > 0; n-- {
		r.asked++
		r.w.in(messages.Millis(r.a.env.Latency/2), func() {
			if r.open() {
				r.queue().offer(r)
			} else {
				r.asked--
			}
		})
	}
}

// receive takes a message of the queue.
func (r *replica) receive(m *message) {
	if r.gone {
		m.died()
		return
	}
	r.asked--
	left := m.f.until - r.w.now
	switch {
	case !r.open() || len(r.runs) >= r.slots():
		m.again(0)
	case left <= 0:
		m.acked() // its caller knows
	case r.hopeless(left) && m.deliveries <= giveBacks:
		m.again(giveBackTime)
	case r.hopeless(left):
		m.acked()
		r.answer(m.f, 1, r.tooLong(), 0)
	default:
		r.begin(m.f, 1, m)
	}
	r.pull()
}

// direct takes a request that comes straight from a client, or refuses it.
func (r *replica) direct(f *flight, attempt int) *messages.Error {
	left := f.until - r.w.now
	switch {
	case !r.open():
		return messages.Errorf(messages.CodeNotPlaced, "replica %s is not ready", r.placed.ID)
	case left <= 0:
		return messages.Errorf(messages.CodeExpired, "nothing of its time was left")
	case len(r.runs) >= r.slots() && !r.w.faults.crowds:
		err := messages.Errorf(messages.CodeBusy, "all %d slots of replica %s are taken", r.slots(), r.placed.ID)
		err.RetryAfter = r.wait()
		return err
	case r.hopeless(left):
		return r.tooLong()
	}
	r.begin(f, attempt, nil)
	return nil
}

func (r *replica) wait() time.Duration { return max(time.Millisecond, messages.Millis(r.latency)) }

func (r *replica) hopeless(left time.Duration) bool {
	return r.served > 0 && r.w.now-r.last < expectGood && ms(left) < r.expect+r.spread
}

func (r *replica) tooLong() *messages.Error {
	err := messages.Errorf(messages.CodeBusy, "replica %s would take too long", r.placed.ID)
	err.RetryAfter = r.wait()
	return err
}

func (r *replica) begin(f *flight, attempt int, m *message) {
	r.served++
	e := &execution{r: r, f: f, attempt: attempt, m: m, begun: r.w.now}
	r.runs = append(r.runs, e)
	e.record = r.w.ledger.begun(e)
	work := f.work
	switch {
	case r.w.faults.hurries:
		work /= 2
	case r.w.faults.wastes:
		work *= 1.01
	}
	e.job = r.a.box.begin(work, e.done)
	e.from = r.a.box.ran
	r.w.in(acceptAfter, func() {
		if !e.over {
			r.w.in(r.w.way(f, r.a)/2, func() {
				f.step(route.Event{Kind: route.Accepted, Agent: r.a.env.ID, Inc: r.a.inc, Attempt: attempt}, 0)
			})
		}
	})
}

// done follows the end of the service.
func (e *execution) done() {
	took := e.r.w.now - e.begun
	e.r.note(took)
	e.r.sharing.ended(ms(took), e.r.a.box.ran-e.from, e.f.kbit)
	e.end(finished)
	if e.m != nil {
		e.m.acked()
	}
	e.r.answer(e.f, e.attempt, nil, took)
	e.r.pull()
}

// end takes the execution off its replica.
func (e *execution) end(how ending) {
	r := e.r
	e.over = true
	for i, o := range r.runs {
		if o == e {
			r.runs = append(r.runs[:i], r.runs[i+1:]...)
			break
		}
	}
	r.w.ledger.ended(e.record, how)
	r.a.settled(r)
}

// cancel drops what its caller has given up.
func (e *execution) cancel() {
	e.r.a.box.drop(e.job)
	e.end(canceled)
	if e.m != nil {
		e.m.acked()
	}
	e.r.pull()
}

// answer sends the end of an attempt to its caller.
func (r *replica) answer(f *flight, attempt int, err *messages.Error, took time.Duration) {
	r.w.in(r.w.way(f, r.a)/2, func() {
		f.step(route.Event{Kind: route.Result, Agent: r.a.env.ID, Inc: r.a.inc, Attempt: attempt, Err: err}, took)
	})
}

// note smooths the service time, as the agent does.
func (r *replica) note(took time.Duration) {
	t := ms(took)
	r.last = r.w.now
	if r.latency == 0 {
		r.latency, r.expect = t, t
		return
	}
	r.spread += float64(expectWeight * (math.Abs(t-r.expect) - r.spread))
	r.expect += float64(expectWeight * (t - r.expect))
	r.latency += float64(latencyWeight * (t - r.latency))
}

// measure brings the rate up to now.
func (r *replica) measure() float64 {
	since := (r.w.now - r.at).Seconds()
	if since < 0.5 {
		return r.rate
	}
	weight := 1 - math.Exp(-since/rateTime.Seconds())
	r.rate += float64(weight * (float64(r.served-r.counted)/since - r.rate))
	r.counted, r.at = r.served, r.w.now
	return r.rate
}

func (r *replica) status() messages.ReplicaStatus {
	s := messages.ReplicaStatus{ID: r.placed.ID, State: r.state, InFlight: len(r.runs), Served: r.served, Rate: r.measure(), Latency: r.latency, Alone: r.sharing.alone, Kbit: r.sharing.kbit}
	if r.stopping && r.state != messages.ReplicaStopped {
		s.State = messages.ReplicaDraining
	}
	return s
}
