package router

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
)

// Times of the watch over agents that hold requests. They depend on one another:
//
//   - A probe every probeEvery finds a dead agent about half of that after its
//     connection closed; a request that is answered sooner is never probed.
//   - probeSilence silent probes in a row (200 ms) mean that it hangs: far above any
//     round trip and any pause of a garbage collector, and an answer from elsewhere
//     still comes within a deadline of a second.
//   - An agent that was silent stays last among the candidates for hungFor, unless it
//     answers before: idle pulls of a frozen agent would go on swallowing requests. One
//     that was away stays so for awayFor: it may be back any moment, and asking it
//     costs a millisecond.
//   - A probe that is not answered within probeKeep is forgotten; it is longer than
//     any silence that is counted.
const (
	probeEvery   = 20 * time.Millisecond
	probeSilence = 10
	hungFor      = 5 * time.Second
	awayFor      = time.Second
	probeKeep    = time.Second
)

// probeBatch is how many requests one probe names: about 12 kB.
const probeBatch = 500

// prober watches the agents that hold requests of ours, or may hold them.
//
// Silence counts only where our own connection is fast: with every round goes a ping to
// the server, and where that is not answered before the next round, we are the ones who
// are slow (a body on its way through a narrow uplink, a stalled server).
type prober struct {
	c    *Client
	wake chan struct{}
	ping chan uint64
	pong atomic.Uint64 // the last round whose ping was answered

	mu      sync.Mutex
	awake   bool
	round   uint64
	watches map[string]*watch    // by agent
	ejected map[string]time.Time // agent → until when it is last among the candidates
	seq     uint64
	out     []*probe // sent, by seq without gaps
}

type watch struct {
	site    string
	flights map[*flight]bool // true: it holds the request; false: it may. None has landed: land removes it first
	asked   bool             // since the last answer
	silent  int              // rounds
	hung    time.Time        // since when; zero: it is not
}

type probe struct {
	seq   uint64
	agent string
	ids   []string
	list  []*flight // by index of ids
	at    time.Time
}

func (p *prober) init(c *Client) {
	p.c, p.wake, p.ping = c, make(chan struct{}, 1), make(chan uint64, 1)
	p.watches, p.ejected = make(map[string]*watch), make(map[string]time.Time)
}

// add watches an agent for a request. holds says that it has it.
func (p *prober) add(f *flight, agent, site string, holds bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watches[agent]
	if w == nil {
		w = &watch{site: site, flights: make(map[*flight]bool)}
		p.watches[agent] = w
	}
	w.flights[f] = w.flights[f] || holds
	if !w.hung.IsZero() {
		f.post(f.req.ID, arrival{ev: route.Event{Kind: route.HolderHung, Agent: agent}})
	}
	if !p.awake {
		p.awake = true
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// remove ends the watch over an agent for a request.
func (p *prober) remove(f *flight, agent string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watches[agent]
	if w == nil {
		return
	}
	delete(w.flights, f)
	if len(w.flights) == 0 && w.hung.IsZero() {
		delete(p.watches, agent)
	}
}

// down reports whether an agent was silent or away a moment ago.
func (p *prober) down(agent string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.ejected[agent]
	return ok && time.Now().Before(until)
}

// away notes that an agent has no connection.
func (p *prober) away(agent string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ejected[agent] = time.Now().Add(awayFor)
}

// run probes until ctx ends. It rests while nothing is under way.
func (p *prober) run(ctx context.Context) {
	var pings sync.WaitGroup
	defer pings.Wait()
	pings.Go(func() { p.pings(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		tick := time.NewTicker(probeEvery)
		for busy := true; busy; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case now := <-tick.C:
				busy = p.tick(now)
			}
		}
		tick.Stop()
	}
}

// pings answers whether our own connection is fast.
func (p *prober) pings(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-p.ping:
			try, done := context.WithTimeout(ctx, probeKeep)
			if p.c.nc.FlushWithContext(try) == nil {
				p.pong.Store(n)
			}
			done()
		}
	}
}

// tick is one round. It reports whether there is more to watch.
func (p *prober) tick(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, until := range p.ejected {
		if now.After(until) {
			delete(p.ejected, a)
		}
	}
	if p.c.nc.Status() != nats.CONNECTED {
		for _, w := range p.watches {
			w.asked, w.silent = false, 0 // it is we who are away
		}
		p.out = nil
		return p.rest()
	}
	fast := p.pong.Load() == p.round
	p.round++
	for agent, w := range p.watches {
		if w.asked && fast {
			w.silent++
		}
		if w.silent == probeSilence && w.hung.IsZero() {
			w.hung = now
			p.ejected[agent] = now.Add(hungFor)
			for f := range w.flights {
				f.post(f.req.ID, arrival{ev: route.Event{Kind: route.HolderHung, Agent: agent}})
			}
		}
		if len(w.flights) == 0 && now.Sub(w.hung) > hungFor {
			delete(p.watches, agent)
			continue
		}
		p.ask(agent, w, now)
	}
	for len(p.out) > 0 && now.Sub(p.out[0].at) > probeKeep {
		p.out = p.out[1:]
	}
	select {
	case p.ping <- p.round:
	default: // the last one is still under way: we are slow
	}
	return p.rest()
}

func (p *prober) rest() bool {
	p.awake = len(p.watches) > 0
	return p.awake
}

// ask sends the probes of one agent.
func (p *prober) ask(agent string, w *watch, now time.Time) {
	var ids []string
	var list []*flight
	for f, holds := range w.flights {
		if holds {
			ids, list = append(ids, f.req.ID), append(list, f)
		}
	}
	subject := p.c.bus.Subject(messages.KindProbe, w.site)
	subject.Agent, subject.Origin = agent, p.c.cfg.Origin
	to := subject.String()
	for first := true; first || len(ids) > 0; first = false {
		n := min(len(ids), probeBatch)
		out := &probe{seq: p.seq + 1, agent: agent, ids: ids[:n], list: list[:n], at: now}
		ids, list = ids[n:], list[n:]
		data, err := messages.Encode(&messages.Probe{IDs: out.ids})
		if err != nil {
			p.c.cfg.Logger.Error("a probe could not be encoded", "error", err)
			return
		}
		p.seq++
		p.out = append(p.out, out)
		if p.c.nc.PublishRequest(to, p.c.replies+"b."+strconv.FormatUint(p.seq, 10), data) == nil {
			w.asked = true
		}
	}
}

// answer takes in what came back for a probe.
func (p *prober) answer(token string, m *nats.Msg) error {
	seq, err := strconv.ParseUint(token, 10, 64)
	if err != nil {
		return messages.Errorf(messages.CodeBadRequest, "probe %q is not one of ours", token)
	}
	away := noResponders(m)
	var held messages.Probe
	if !away {
		if err := messages.Decode(m.Data, &held); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.out) == 0 || seq < p.out[0].seq || seq > p.out[len(p.out)-1].seq {
		return nil // forgotten
	}
	out := p.out[seq-p.out[0].seq]
	w := p.watches[out.agent]
	if away {
		p.ejected[out.agent] = time.Now().Add(awayFor)
	} else {
		delete(p.ejected, out.agent)
	}
	if w == nil {
		return nil
	}
	w.asked, w.silent, w.hung = false, 0, time.Time{}
	if away {
		for f := range w.flights {
			f.post(f.req.ID, arrival{ev: route.Event{Kind: route.HolderLost, Agent: out.agent}})
		}
		p.c.unreached(out.agent)
		return nil
	}
	slices.Sort(held.IDs)
	for i, f := range out.list {
		if _, ok := slices.BinarySearch(held.IDs, out.ids[i]); !ok && w.flights[f] {
			f.post(out.ids[i], arrival{ev: route.Event{Kind: route.Absent, Agent: out.agent}})
		}
	}
	return nil
}
