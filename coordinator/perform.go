package coordinator

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// Times of effects. They depend on one another:
//
//   - sendTimeout: an agent acknowledges a document before it loads anything, so a second
//     is a hundred times what it takes; it equals the Machine's first resend.
//   - saveTimeout: a group without a leader answers nothing for longer anyway, so the
//     Machine's retries do the waiting. A save ends with the tenure too, so that none is
//     waited for when another may lead; what is still on its way then loses the
//     compare-and-set, or is written over by the newer term.
//   - remadeTimeout is that of saveTimeout: it is the same server that is asked.
//   - savesAtOnce is how many saves are under way together: each waits for a round trip and a
//     write of the server, which does many in the time of one. More gain nothing over
//     loopback, and a server without a leader is not asked more than that a second.
//   - rebroadcastEvery heals whoever missed the routes; clients also read the saved copy
//     every 10 s.
//   - dropTimeout is for work that may fail: what it removes is small, and is made again by
//     whoever needs it.
const (
	sendTimeout      = time.Second
	saveTimeout      = time.Second
	remadeTimeout    = time.Second
	savesAtOnce      = 64
	rebroadcastEvery = 5 * time.Second
	dropTimeout      = 5 * time.Second
)

// queue holds what the Machine wants done. It has no bound, and needs none: whoever takes
// from it does not wait.
type queue struct {
	mu    *sync.Mutex
	list  []any
	ready chan struct{}
}

func newQueue() queue { return queue{mu: new(sync.Mutex), ready: make(chan struct{}, 1)} }

func (q *queue) put(e any) {
	q.mu.Lock()
	q.list = append(q.list, e)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *queue) take() []any {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

// performer does effects. One goroutine owns it and never waits; saves and sends run beside
// it, many at once. Of one document the order is kept all the same, because the Machine asks
// for each step when it was told of the one before: persist, then send, then hear the ack;
// and there is one save under way for an agent, and one of the routes; see lane.
type performer struct {
	c      *Coordinator
	reign  *reign // whose effects are done; nil for none
	docs   *lane  // saves of documents, by agent
	routes *lane  // saves of the routes: they tell clients where a dead agent's work is, and wait for no document
	work   sync.WaitGroup
	last   []byte // the routes as they were broadcast last
}

func newPerformer(c *Coordinator) *performer {
	p := &performer{c: c}
	p.docs, p.routes = newLane(savesAtOnce, &p.work), newLane(1, &p.work)
	return p
}

// perform is the goroutine that does what the Machine says.
func (c *Coordinator) perform(ctx context.Context) {
	p := newPerformer(c)
	defer func() {
		p.forget()
		p.work.Wait()
	}()
	again := time.NewTicker(rebroadcastEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			if r := c.tenure.Load(); r != nil && r == p.reign && p.last != nil && r.mayAct(time.Now()) {
				p.publish(messages.Subject{Kind: messages.KindRoutes, Fleet: c.cfg.Fleet, Site: messages.FleetSite}, p.last)
			}
			continue
		case <-c.work.ready:
		}
		for _, e := range c.work.take() {
			p.do(ctx, e)
		}
	}
}

// do does one effect. Only those of the reign that is in force are done.
func (p *performer) do(ctx context.Context, e any) {
	if r, ok := e.(*reign); ok {
		p.reign, p.last = r, nil
		p.forget()
		return
	}
	r := p.c.tenure.Load()
	if r == nil || r != p.reign || !r.mayAct(time.Now()) {
		return
	}
	switch e := e.(type) {
	case placement.SavePlacement:
		if e.Doc.Term == r.term {
			p.docs.put(e.Doc.Agent, func() { p.savePlacement(ctx, r, e.Doc) })
		}
	case placement.SaveRoutes:
		if e.Routes.Term == r.term {
			p.routes.put(bus.KeyRoutes, func() { p.saveRoutes(ctx, r, e.Routes) })
		}
	case placement.SendPlacement:
		if e.Doc.Term == r.term {
			p.work.Go(func() { p.send(ctx, e) })
		}
	case placement.BroadcastRoutes:
		if e.Routes.Term != r.term {
			return // the Machine had not heard yet that it was deposed
		}
		data, err := messages.Encode(&e.Routes)
		if err != nil {
			p.c.log.Error("routes cannot be sent", "error", err)
			return
		}
		p.last = data
		p.publish(messages.Subject{Kind: messages.KindRoutes, Fleet: p.c.cfg.Fleet, Site: messages.FleetSite}, data)
	case placement.StepDown:
		// An agent may lie, and one word of it must not end a reign; a person has to look.
		p.c.log.Error("an agent has a document of a newer term than ours: the lease bucket was lost and made again by a server whose clock is behind, or the agent is not what it says; restart it, or set the clock and delete the lease bucket",
			"its term", e.Term, "our term", r.term, "why", e.Reason)
	case placement.Record:
		p.record(e.Event)
	case placement.DropConsumer:
		p.work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, dropTimeout)
			defer cancel()
			if err := p.c.bus.DeleteConsumer(ctx, e.Site, e.Class, e.Task); err != nil {
				p.c.log.Warn("consumer of a deleted task not removed", "task", e.Task, "error", err)
			}
		})
	}
}

// forget drops what waits to be saved: it is of a reign that is over.
func (p *performer) forget() {
	p.docs.clear()
	p.routes.clear()
}

// publish sends what may be lost.
func (p *performer) publish(s messages.Subject, data []byte) {
	if err := p.c.nc.Publish(s.String(), data); err != nil {
		p.c.log.Debug("not sent", "subject", s.String(), "error", err)
	}
}

// record logs an event and publishes it to the event stream: best effort, for people.
func (p *performer) record(e messages.Event) {
	log := p.c.log
	for _, v := range []struct{ key, value string }{{"agent", e.Agent}, {"replica", e.ID}} {
		if v.value != "" {
			log = log.With(v.key, v.value)
		}
	}
	log.Info(e.Kind, "reason", e.Reason)
	data, err := messages.Encode(&e)
	if err != nil {
		return
	}
	p.publish(messages.Subject{Kind: messages.KindEvent, Fleet: p.c.cfg.Fleet, Site: messages.FleetSite, ID: e.Kind}, data)
}

// send sends a document that is saved, and waits for the agent's word.
func (p *performer) send(ctx context.Context, e placement.SendPlacement) {
	failed := placement.SendFailed{Agent: e.Doc.Agent, Term: e.Doc.Term, Rev: e.Doc.Rev}
	data, err := messages.Encode(&e.Doc)
	if err != nil {
		p.c.log.Error("placement cannot be sent", "agent", e.Doc.Agent, "error", err)
		return
	}
	s := p.c.bus.Subject(messages.KindPlace, e.Site)
	s.Agent = e.Doc.Agent
	ctx2, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	m, err := p.c.nc.RequestWithContext(ctx2, s.String(), data)
	if err != nil {
		failed.NoResponders = errors.Is(err, nats.ErrNoResponders)
		p.c.feed(ctx, failed)
		return
	}
	var ack messages.PlacementAck
	if err := messages.Decode(m.Data, &ack); err != nil || ack.Agent != e.Doc.Agent {
		p.c.garbage.Note(p.c.log, "placement ack", signed(err, e.Doc.Agent, ack.Agent))
		p.c.feed(ctx, failed)
		return
	}
	if ack.Error != "" {
		p.c.log.Warn("agent refused its placement", "agent", ack.Agent, "error", ack.Error)
	}
	p.c.feed(ctx, placement.Ack{PlacementAck: ack})
}
