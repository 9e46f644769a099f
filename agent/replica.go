package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// A handler that did not get ready, or died, is opened again after reopenFirst, then
// after twice as long each time up to reopenMost. One that served for reopenGood counts
// as well again. The first wait is short because most deaths happen once; the last is
// long because loading a model is work that others on the machine feel.
const (
	reopenFirst = 200 * time.Millisecond
	reopenMost  = 30 * time.Second
	reopenGood  = time.Minute
)

// queueTime is how long a replica waits for its queue before it says that it is ready:
// enough to make stream and consumer, which takes milliseconds. Where JetStream does
// not answer the replica is ready all the same, because direct requests reach it.
const queueTime = time.Second

// replica is one replica on this agent: loading → ready → draining → stopped, or failed
// and from there loading again.
type replica struct {
	a     *Agent
	id    string
	task  messages.Task
	slots int

	// wanted ends when the replica is to take no more, finish and close.
	wanted context.Context
	stop   context.CancelFunc
	idle   chan struct{} // nudged when the last request ends

	mu      sync.Mutex
	placed  messages.PlacedReplica
	state   messages.ReplicaState
	reason  string
	done    float64 // of what is fetched while it loads, 0 to 1
	server  Server  // set while open or busy
	open    bool    // takes requests
	busy    int
	pulls   *puller   // nil where the task's requests are not pulled; of training that of normal priority
	lines   []*puller // all of them, the highest priority first
	load    load
	sharing sharing
	returns returns
	batch   batches
}

func newReplica(a *Agent, p messages.PlacedReplica) *replica {
	r := &replica{
		a: a, id: p.ID, task: p.Task, slots: p.Task.Slots(),
		idle: make(chan struct{}, 1), placed: p, state: messages.ReplicaLoading,
		batch: batches{most: p.Task.Batch(), lanes: p.Task.Lanes(), wait: p.Task.BatchWait()},
	}
	r.wanted, r.stop = context.WithCancel(a.work)
	return r
}

// pulled reports whether requests of the task wait in a queue.
func pulled(t messages.Task) bool {
	return t.Class == messages.Training || t.Class == messages.Inference && t.Delivery != messages.Direct
}

func (r *replica) held() held {
	r.mu.Lock()
	defer r.mu.Unlock()
	return held{placed: r.placed, stopping: r.wanted.Err() != nil, ended: r.state == messages.ReplicaStopped}
}

func (r *replica) status(now time.Time) messages.ReplicaStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.state
	if state != messages.ReplicaStopped && r.wanted.Err() != nil {
		state = messages.ReplicaDraining
	}
	return messages.ReplicaStatus{ID: r.id, State: state, Reason: r.reason, InFlight: r.busy,
		Served: r.load.served, Rate: r.load.measure(now), Latency: r.load.latency, Alone: r.sharing.alone, Kbit: r.sharing.kbit, Done: r.done}
}

// doing is what the replica does to its machine: TFLOPS, as it was asked lately, and GB.
func (r *replica) doing() (work, storage float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != messages.ReplicaStopped {
		storage = r.task.Demand.Storage
	}
	return r.load.rate * r.task.WorkGFLOP() / 1000, storage
}

func (r *replica) set(state messages.ReplicaState, reason string) {
	r.mu.Lock()
	r.state, r.reason, r.done = state, reason, 0
	r.mu.Unlock()
	r.a.cfg.Logger.Info("replica", "state", state, "replica", r.id, "reason", reason)
	r.a.beatNow()
}

// live opens the handler and serves until the replica is not wanted any more.
func (r *replica) live() {
	defer r.a.replicaEnded()
	wait := backoff{least: reopenFirst, most: reopenMost}
	for r.wanted.Err() == nil {
		// A handler may keep the context that it was opened with for what it starts; so
		// that context ends only after Close. While Open runs it also ends with wanted.
		ctx, cancel := context.WithCancel(r.a.work)
		early := context.AfterFunc(r.wanted, cancel)
		server, err := r.openHandler(ctx)
		early()
		begun := time.Now()
		if err == nil {
			err = r.serveUntilDone(server)
		}
		cancel()
		if r.wanted.Err() != nil {
			break
		}
		if time.Since(begun) > reopenGood {
			wait.reset()
		}
		pause := wait.step()
		r.set(messages.ReplicaFailed, messages.AsError(err, messages.CodeBackendFailed).Message)
		sleep(r.wanted, pause, nil)
		if r.wanted.Err() == nil {
			r.set(messages.ReplicaLoading, "again, after: "+messages.AsError(err, messages.CodeBackendFailed).Message)
		}
	}
	r.stop() // releases the context also where the agent's ended first
	r.set(messages.ReplicaStopped, "")
}

// openHandler calls the Open of the handler that the task names. A panic is an error.
func (r *replica) openHandler(ctx context.Context) (server Server, err error) {
	open := r.opener()
	if open == nil {
		if r.task.Run != nil {
			return nil, messages.Errorf(messages.CodeUnauthorized, "task %q brings a command, and this agent runs none; its owner allows that with --allow-run", r.task.Name)
		}
		has := slices.Clone(r.a.cfg.Environment.Handlers)
		slices.Sort(has)
		return nil, messages.Errorf(messages.CodeBadRequest, "task %q asks for handler %q; this agent has %s", r.task.Name, r.task.HandlerName(), strings.Join(has, ", "))
	}
	if err := r.a.checkHook(r.task); err != nil {
		return nil, err
	}
	defer r.recovered("Open", &err)
	server, err = open(ctx, Open{Replica: r.id, Task: r.task, Environment: r.a.cfg.Environment, Loading: r.loading, Fetched: r.fetched})
	if err == nil && server == nil {
		err = errors.New("the handler returned no server and no error")
	}
	if _, ok := server.(Batcher); err == nil && !ok && r.batch.together() {
		err = messages.Errorf(messages.CodeBadRequest, "task %q declares max_batch %d, and handler %q takes one request at a time; leave max_batch out, or implement agent.Batcher", r.task.Name, r.batch.most, r.task.HandlerName())
		if cerr := r.closeServer(server); cerr != nil {
			r.a.cfg.Logger.Warn("handler did not close well", "replica", r.id, "error", cerr)
		}
	}
	return server, err
}

// opener is the Open of what serves the task; nil where the agent has no such thing.
func (r *replica) opener() func(context.Context, Open) (Server, error) {
	if r.task.Run != nil {
		if d := r.a.cfg.Deployer; d != nil {
			return d.Open
		}
		return nil
	}
	h := r.a.handlers[r.task.HandlerName()]
	if h == nil {
		h = r.a.handlers[messages.AnyHandler]
	}
	if h == nil {
		return nil
	}
	return h.Open
}

// fetched keeps how much the handler has fetched for the next heartbeat.
func (r *replica) fetched(done float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = min(max(done, 0), 1)
}

// loading keeps the handler's word about how far it is for the next heartbeat. It asks for
// none: a handler may say something new many times a second.
func (r *replica) loading(note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == messages.ReplicaLoading {
		r.reason = note
	}
}

// recovered, deferred, turns a panic of user code into an error.
func (r *replica) recovered(call string, err *error) {
	if p := recover(); p != nil {
		r.a.cfg.Logger.Error("handler panicked", "replica", r.id, "call", call, "panic", p, "stack", string(debug.Stack()))
		*err = messages.Errorf(messages.CodeBackendFailed, "handler %q panicked in %s: %v", r.task.HandlerName(), call, p)
	}
}

// serveUntilDone serves with an open server until the replica is not wanted (nil) or
// the server died (why), and closes it after its last request.
func (r *replica) serveUntilDone(server Server) error {
	p, lines := newLines(r)
	r.mu.Lock()
	r.server, r.open, r.pulls, r.lines = server, true, p, lines
	r.mu.Unlock()
	for _, line := range lines {
		line.begin()
	}
	if p != nil {
		sleep(r.wanted, queueTime, p.tried)
	}
	r.set(messages.ReplicaReady, "")
	nudge(r.a.queued.wake)

	var died <-chan struct{}
	dying, mortal := server.(Dying)
	if mortal {
		died = dying.Done()
	}
	var err error
	select {
	case <-r.wanted.Done():
	case <-died:
		if err = dying.Err(); err == nil {
			err = errors.New("it ended by itself")
		}
		err = fmt.Errorf("handler %q died: %w", r.task.HandlerName(), err)
	}

	r.mu.Lock()
	r.open = false
	r.mu.Unlock()
	if err == nil {
		r.set(messages.ReplicaDraining, "")
	} else {
		r.set(messages.ReplicaFailed, err.Error())
	}
	for _, line := range lines {
		line.cancel()
	}
	for _, line := range lines {
		line.end()
	}
	if !r.waitIdle() {
		return err // its Serve never returned, so Close must not be called
	}
	if cerr := r.closeServer(server); cerr != nil {
		r.a.cfg.Logger.Warn("handler did not close well", "replica", r.id, "error", cerr)
	}
	return err
}

// waitIdle waits for the last request; false means that the agent left without it.
func (r *replica) waitIdle() bool {
	for {
		r.mu.Lock()
		busy := r.busy
		r.mu.Unlock()
		if busy == 0 {
			return true
		}
		select {
		case <-r.idle:
		case <-r.a.abandoned:
			return false
		}
	}
}

func (r *replica) closeServer(s Server) (err error) {
	defer r.recovered("Close", &err)
	return s.Close()
}

// take takes a free slot, if there is one.
func (r *replica) take() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.takeLocked()
}

func (r *replica) takeLocked() bool {
	if !r.open || r.busy >= r.slots || !r.batch.room() {
		return false
	}
	r.busy++
	r.batch.seats++
	return true
}

// release frees a slot, and lets the queue fill it again. took is the service time; 0
// where nothing was executed. cut says that the handler was ended by its context.
func (r *replica) release(took time.Duration, cut bool) {
	r.mu.Lock()
	if took > 0 {
		r.load.ended(took, cut, time.Now())
	} else {
		r.batch.seats = max(0, r.batch.seats-1) // who was in a call has given it up
	}
	if r.busy--; r.busy == 0 {
		nudge(r.idle)
	}
	next := r.claimLocked()
	r.mu.Unlock()
	next.send()
}

// freeAfter is how long it may take until a slot is free.
func (r *replica) freeAfter() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load.wait()
}

// setRank makes the replica pull at another rank.
func (r *replica) setRank(p messages.PlacedReplica) {
	r.mu.Lock()
	r.placed = p
	lines := r.lines
	r.mu.Unlock()
	for _, line := range lines {
		line.renewSoon()
	}
}
