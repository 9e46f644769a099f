package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// batches puts the requests of one replica together, where its task declares max_batch. A
// request takes a seat when it is admitted and joins the open batch with its execution,
// which waits for the call's result; a goroutine per batch waits for others and makes the
// call. It is guarded by the replica's mu.
//
// Seats are given only while a call could follow at once (running < lanes): so, as without
// batches, nothing is taken out of the queue that another replica could serve sooner.
type batches struct {
	most, lanes int // requests a call, calls at once
	wait        time.Duration
	seats       int // requests taken that are in no call yet
	running     int // calls
	open        *batch
}

// batch is a call that is being filled.
type batch struct {
	members []*member
	until   time.Time     // when it begins, full or not
	wake    chan struct{} // capacity 1: something changed
}

// member is a request in a batch.
type member struct {
	e    *execution
	done chan served // capacity 1
}

// served is what became of a member. took is 0 where it was in no call.
type served struct {
	backend.Result
	took time.Duration
}

// together reports whether requests are served in batches.
func (b *batches) together() bool { return b.most > 1 }

// room reports whether one more request may be taken.
func (b *batches) room() bool { return !b.together() || b.seats < b.most && b.running < b.lanes }

// want is how many messages a replica at rest should wait for: one, the lead of the next
// batch, which then asks for those that go along. A pull for a whole batch would still be
// there when the call has begun, and take what it cannot serve.
func (b *batches) want() int {
	if b.seats == 0 && b.running < b.lanes {
		return 1
	}
	return 0
}

// join enters m into the open batch, which is made where there is none (lead). An older
// observation of the same key that waits there gives its place away: replaced.
func (b *batches) join(m *member, now time.Time, service time.Duration) (in *batch, lead bool, replaced *member) {
	in = b.open
	if lead = in == nil; lead {
		in = &batch{until: now.Add(b.wait), wake: make(chan struct{}, 1)}
		b.open = in
	}
	q := m.e.req
	for i, o := range in.members {
		if old := o.e.req; q.Key != "" && old.Key == q.Key && old.Origin == q.Origin && old.Seq < q.Seq {
			in.members[i], replaced = m, o
			break
		}
	}
	if replaced == nil {
		in.members = append(in.members, m)
	}
	// Nobody's time is spent on waiting for company.
	if d, ok := m.e.ctx.Deadline(); ok && d.Add(-service).Before(in.until) {
		in.until = d.Add(-service)
	}
	nudge(in.wake)
	return in, lead, replaced
}

// begin says whether the call of the open batch may begin, and then takes its members,
// who give up their seats; those whose time is over are left and keep theirs.
func (b *batches) begin(in *batch, now time.Time, hurry bool) (live, over []*member, ok bool) {
	if b.running >= b.lanes || len(in.members) < b.most && now.Before(in.until) && !hurry {
		return nil, nil, false
	}
	for _, m := range in.members {
		if m.e.ctx.Err() != nil {
			over = append(over, m)
		} else {
			live = append(live, m)
		}
	}
	b.open = nil
	b.seats = max(0, b.seats-len(live))
	if len(live) > 0 {
		b.running++
	}
	return live, over, true
}

// executeTogether serves a request in a batch.
func (r *replica) executeTogether(e *execution) (backend.Response, *messages.Error, time.Duration) {
	m := &member{e: e, done: make(chan served, 1)}
	now := time.Now()
	r.mu.Lock()
	in, lead, replaced := r.batch.join(m, now, time.Duration(r.load.latency*float64(time.Millisecond)))
	var more pull
	if lead {
		more = r.pulls.followLocked(in.until.Sub(now))
	}
	pulls := r.pulls
	r.mu.Unlock()
	if replaced != nil {
		replaced.done <- served{Result: backend.Result{Err: messages.Errorf(messages.CodeSuperseded,
			"observation %d of key %q: observation %d took its place before it was served", replaced.e.req.Seq, e.req.Key, e.req.Seq)}}
	}
	if lead {
		pulls.send(more)
		r.a.lives.begin(func() { r.lead(in) }) // of its own: the first may be superseded, or given up
	}
	s := <-m.done
	if d, ok := e.ctx.Deadline(); r.a.work.Err() != nil || ok && !time.Now().Before(d) {
		<-e.ctx.Done() // it ends in this moment; the call's, which ends with it, was a little earlier
	}
	fault := r.fault(e, s.Err)
	if s.took > 0 {
		r.a.event(e, false, fault)
	}
	return s.Response, fault, s.took
}

// lead waits until the batch is full or its time has come, and a call may begin.
func (r *replica) lead(in *batch) {
	timer := time.NewTimer(r.batch.wait)
	defer timer.Stop()
	wanted := r.wanted.Done()
	for hurry := false; ; {
		now := time.Now()
		r.mu.Lock()
		live, over, ok := r.batch.begin(in, now, hurry)
		left := in.until.Sub(now)
		r.mu.Unlock()
		if ok {
			for _, m := range over {
				m.done <- served{Result: backend.Result{Err: r.tooLate(m.e)}}
			}
			if len(live) > 0 {
				r.serveBatch(live)
			}
			return
		}
		var due <-chan time.Time
		if left > 0 {
			timer.Reset(left)
			due = timer.C
		}
		select {
		case <-in.wake:
		case <-due:
		case <-wanted: // nobody else will come
			hurry, wanted = true, nil
		}
	}
}

// tooLate is for a request whose time was over, or whose caller gave up, before its batch
// began.
func (r *replica) tooLate(e *execution) error {
	if e.gaveUp.Load() || r.a.work.Err() != nil {
		return e.ctx.Err()
	}
	return messages.Errorf(messages.CodeExpired, "its time was over on agent %q before its batch began; allow more time, or a shorter max_wait of task %q", r.a.id, e.req.Task)
}

// serveBatch makes one call for all of live, and gives each what became of it; also where
// the handler panics, or ends its goroutine.
func (r *replica) serveBatch(live []*member) {
	results := make([]backend.Result, len(live))
	for i := range results {
		results[i].Err = messages.Errorf(messages.CodeBackendFailed, "handler %q of agent %q did not return", r.task.HandlerName(), r.a.id)
	}
	r.mu.Lock()
	for range live {
		r.load.begun()
	}
	r.mu.Unlock()
	reqs := make([]*backend.Request, len(live))
	for i, m := range live {
		r.a.event(m.e, true, nil)
		reqs[i] = m.e.request()
		reqs[i].Done = m.e.ctx.Done()
	}
	ctx, cancel := r.contextOf(live)
	begun := time.Now()
	from := r.a.crowd.enter(begun)
	defer func() {
		cancel()
		took := max(time.Since(begun), 1)
		alone := r.a.crowd.leave(begun.Add(took), from)
		r.mu.Lock()
		for i, m := range live {
			if results[i].Err == nil {
				r.sharing.ended(took, alone, len(m.e.body)+len(results[i].Response.Body))
			}
		}
		r.batch.running--
		next := r.batch.open
		r.mu.Unlock()
		if next != nil {
			nudge(next.wake)
		}
		for i, m := range live {
			m.e.returned.Store(true)
			m.done <- served{results[i], took}
		}
	}()
	results = r.callBatch(ctx, reqs)
}

// callBatch calls ServeBatch. A panic, or a wrong number of results, is every request's
// error.
func (r *replica) callBatch(ctx context.Context, reqs []*backend.Request) (results []backend.Result) {
	err := func() (err error) {
		defer r.recovered("ServeBatch", &err)
		results = r.server.(backend.Batcher).ServeBatch(ctx, reqs) // openHandler made sure that it is one
		if len(results) != len(reqs) {
			return messages.Errorf(messages.CodeBackendFailed, "handler %q of agent %q returned %d results for %d requests", r.task.HandlerName(), r.a.id, len(results), len(reqs))
		}
		return nil
	}()
	if err != nil {
		results = make([]backend.Result, len(reqs))
		for i := range results {
			results[i].Err = err
		}
	}
	return results
}

// contextOf returns a context that ends when those of all members have.
func (r *replica) contextOf(live []*member) (context.Context, func()) {
	var last time.Time
	bounded := true
	for _, m := range live {
		d, ok := m.e.ctx.Deadline()
		if bounded = bounded && ok; ok && d.After(last) {
			last = d
		}
	}
	ctx, cancel := r.a.work, context.CancelFunc(nil)
	if bounded {
		ctx, cancel = context.WithDeadline(ctx, last)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	var waiting atomic.Int32
	waiting.Store(int32(len(live)))
	stops := make([]func() bool, 0, len(live))
	for _, m := range live {
		stops = append(stops, context.AfterFunc(m.e.ctx, func() {
			if waiting.Add(-1) == 0 {
				cancel()
			}
		}))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
