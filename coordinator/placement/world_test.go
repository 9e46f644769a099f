package placement

import (
	"container/heap"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// world is a fleet in virtual time: agents, a store and a network between them and the
// Machine under test. Everything that happens comes out of its seed.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	queue queue
	seq   int
	log   *strings.Builder // the transcript, where one is kept

	m         *Machine
	calm      Calm
	wake      int // generation of the timer that is set
	frozen    bool
	missed    []Event // while it was frozen
	leading   bool
	terms     uint64
	incs      uint64
	agents    map[string]*fakeAgent
	store     map[string]messages.Placement
	routes    *messages.Routes
	sent      messages.Routes // the last broadcast
	desired   TasksChanged
	dropped   []DropConsumer
	events    []messages.Event
	stepDowns int // that were asked for
	effects   int // other than WakeAt, since it was reset
	steps     int
	moves     int
	delay     time.Duration // of the network, at most
	loss      float64       // of its messages
	saveFail  float64
	dupes     float64
}

type queued struct {
	at  time.Time
	seq int
	do  func()
}

type queue []queued

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

var begin = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t *testing.T, seed int64) *world {
	w := &world{t: t, rng: rand.New(rand.NewSource(seed)), now: begin, agents: map[string]*fakeAgent{},
		store: map[string]messages.Placement{}, delay: 10 * time.Millisecond}
	w.desired.Settings = messages.DefaultSettings()
	w.desired.Settings.Reserve = 0
	w.m = New(w.calm)
	return w
}

func (w *world) in(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, queued{w.now.Add(d), w.seq, do})
}

// net delivers after a delay, not at all, or twice. The order may change.
func (w *world) net(do func()) {
	if w.rng.Float64() < w.loss {
		return
	}
	w.in(w.latency(), do)
	if w.rng.Float64() < w.dupes {
		w.in(w.latency(), do)
	}
}

func (w *world) latency() time.Duration {
	return w.delay/2 + time.Duration(w.rng.Int63n(int64(w.delay/2)+1))
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		q := heap.Pop(&w.queue).(queued)
		w.now = q.at
		q.do()
	}
	w.now = end
}

// step is the shell: it feeds the Machine and performs its effects.
func (w *world) step(ev Event) {
	if w.frozen {
		switch ev.(type) {
		case Saved, SaveFailed, RoutesSaved, RoutesSaveFailed: // the store answers all the same
			w.missed = append(w.missed, ev)
		}
		return
	}
	effects := w.m.Step(w.now, ev)
	w.steps++
	w.transcribe(ev, effects)
	for _, e := range effects {
		if _, wake := e.(WakeAt); !wake {
			w.effects++
			if !w.leading {
				w.t.Fatalf("%v: a follower returned %s", w.now.Sub(begin), e)
			}
		}
		w.perform(e)
	}
	w.invariants(ev)
}

func (w *world) perform(e Effect) {
	switch e := e.(type) {
	case WakeAt:
		w.wake++
		gen := w.wake
		w.in(max(0, e.At.Sub(w.now)), func() {
			if gen == w.wake {
				w.step(Tick{})
			}
		})
	case SavePlacement:
		w.save(e.Doc)
	case SaveRoutes:
		r := e.Routes
		w.in(w.latency(), func() {
			if !w.current(r.Term) {
				return
			}
			if w.rng.Float64() < w.saveFail {
				w.step(RoutesSaveFailed{Term: r.Term, Rev: r.Rev, Reason: "chance"})
				return
			}
			w.routes = &r
			w.step(RoutesSaved{Term: r.Term, Rev: r.Rev})
		})
	case BroadcastRoutes:
		if !e.Routes.Newer(w.sent.Term, w.sent.Rev) {
			w.t.Fatalf("broadcast of old routes %s %d", e.Routes.Term, e.Routes.Rev)
		}
		w.sent = e.Routes
	case SendPlacement:
		if got := docString(w.store[e.Doc.Agent]); got != docString(e.Doc) {
			w.t.Fatalf("%v: sent before it was saved: %s, stored %s", w.now.Sub(begin), docString(e.Doc), got)
		}
		w.send(e)
	case DropConsumer:
		w.dropped = append(w.dropped, e)
	case StepDown:
		w.stepDowns++
	case Record:
		if err := messages.CheckName("kind", e.Event.Kind); err != nil || e.Event.Reason == "" {
			w.t.Fatalf("bad record %s: %v", e, err)
		}
		w.events = append(w.events, e.Event)
		if e.Event.Kind == "replica_moved" {
			w.moves++
		}
	}
}

func (w *world) current(term messages.Term) bool { return w.leading && w.m.term == term }

func (w *world) save(doc messages.Placement) {
	if doc.Term != w.m.term {
		w.t.Fatalf("a document of term %s under term %s", doc.Term, w.m.term)
	}
	w.in(w.latency(), func() {
		if doc.Term.Revision != w.terms {
			return // the shell of a deposed leader performs nothing
		}
		fail := w.rng.Float64() < w.saveFail
		if !fail || w.rng.Intn(2) == 0 {
			old := w.store[doc.Agent]
			if !doc.Newer(old.Term, old.Rev) && docString(doc) != docString(old) {
				w.t.Fatalf("saved %s over %s", docString(doc), docString(old))
			}
			w.store[doc.Agent] = doc
		}
		if fail {
			w.step(SaveFailed{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev, Reason: "chance"})
			return
		}
		w.step(Saved{Agent: doc.Agent, Term: doc.Term, Rev: doc.Rev})
	})
}

func (w *world) send(e SendPlacement) {
	w.net(func() {
		a := w.agents[e.Doc.Agent]
		if a == nil || a.cut || !a.listens() {
			w.net(func() { w.step(SendFailed{e.Doc.Agent, e.Doc.Term, e.Doc.Rev, a != nil && !a.cut && !a.listens()}) })
			return
		}
		ack := a.apply(e.Doc)
		w.net(func() {
			if !a.cut {
				w.step(Ack{ack})
			}
		})
	})
}

// elect makes the Machine the leader, or another one that watched.
func (w *world) elect() {
	w.terms++
	var docs []messages.Placement
	for _, id := range sorted(w.store) {
		docs = append(docs, w.store[id])
	}
	w.step(PlacementsLoaded{Docs: docs, Routes: w.routes})
	w.leading = true
	w.step(Elected{messages.Term{Epoch: 1, Revision: w.terms}})
}

func (w *world) depose() {
	w.leading = false
	w.step(Deposed{"test"})
}

func (w *world) desire(tasks ...messages.Task) {
	w.desired.Tasks = tasks
	w.step(w.desired)
}

// transcribe writes what a person wants to read: events that had effects, and those
// effects but for WakeAt.
func (w *world) transcribe(ev Event, effects []Effect) {
	if w.log == nil {
		return
	}
	effects = slices.DeleteFunc(slices.Clone(effects), func(e Effect) bool { _, wake := e.(WakeAt); return wake })
	if len(effects) == 0 {
		return
	}
	fmt.Fprintf(w.log, "%s %s\n", w.now.Sub(begin).Truncate(time.Millisecond), eventString(ev))
	for _, e := range effects {
		fmt.Fprintf(w.log, "    %s\n", e)
	}
}

func eventString(ev Event) string {
	switch ev := ev.(type) {
	case Heartbeat:
		return fmt.Sprintf("beat %s inc %s %s %s", ev.Agent, ev.Inc, ev.State, statuses(ev.Term, ev.Rev, ev.Replicas))
	case Ack:
		return fmt.Sprintf("ack %s %s", ev.Agent, statuses(ev.Term, ev.Rev, ev.Replicas))
	case Registered:
		return fmt.Sprintf("registered %s inc %s", ev.Registration.Environment.ID, ev.Inc)
	case Saved:
		return fmt.Sprintf("saved %s rev %d", ev.Agent, ev.Rev)
	case RoutesSaved:
		return fmt.Sprintf("saved routes rev %d", ev.Rev)
	case TasksChanged:
		var names []string
		for _, t := range ev.Tasks {
			names = append(names, t.Name)
		}
		return fmt.Sprintf("tasks %v, %d drains", names, len(ev.Drains))
	case Goodbye:
		return fmt.Sprintf("goodbye %s inc %s", ev.Agent, ev.Inc)
	case PlacementsLoaded:
		return fmt.Sprintf("placements loaded: %d", len(ev.Docs))
	case Elected:
		return "elected term " + ev.Term.String()
	case ConnClosed:
		return fmt.Sprintf("connection closed %s inc %s", ev.Agent, ev.Inc)
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", ev), "placement."))
}

func statuses(term messages.Term, rev uint64, list []messages.ReplicaStatus) string {
	var parts []string
	for _, s := range list {
		parts = append(parts, s.ID+" "+string(s.State))
	}
	return fmt.Sprintf("applied %s/%d [%s]", term, rev, strings.Join(parts, ", "))
}
