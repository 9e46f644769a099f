package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// swarm is many agents in one process, as far as a coordinator can tell: they are
// registered, beat once a second, and take documents; what they are told to run is ready
// at once.
type swarm struct {
	b      *bus.Bus
	conns  []*nats.Conn
	agents []*swarmAgent
	byID   map[string]*swarmAgent
	sent   atomic.Uint64
	drop   uint64       // planted: one of so many beats is counted and not sent
	stuck  int          // planted: from this number on agents take no documents
	deaf   atomic.Int64 // of the agents, the first so many take no documents and do not beat: they are away
}

type swarmAgent struct {
	number  int
	subject string
	conn    *nats.Conn

	mu  sync.Mutex
	hb  messages.Heartbeat
	doc messages.Placement
	at  time.Time // when doc was taken
}

// swarmListens is how many agents of a swarm take documents. Each costs a subscription
// with its goroutine; no benchmark places on more.
const swarmListens = 5000

// swarmEnvironment: of twenty agents one is a cloud, three are edges, the others robots;
// or all are robots.
func swarmEnvironment(i int, robots bool) messages.Environment {
	e := messages.Environment{ID: fmt.Sprintf("agent-%05d", i), Site: messages.DefaultSite, Handlers: []string{messages.AnyHandler}}
	switch {
	case i%20 == 0 && !robots:
		e.Tier, e.Latency, e.Price = messages.Cloud, 50, 10
		e.Capacity = messages.Resources{Compute: 1000, Storage: 10000, Network: 1000}
	case i%20 < 4 && !robots:
		e.Tier, e.Latency, e.Price = messages.Edge, 10, 5
		e.Capacity = messages.Resources{Compute: 100, Storage: 1000, Network: 100}
	default:
		e.Tier, e.Latency, e.Price = messages.Robot, 1, 1
		e.Capacity = messages.Resources{Compute: 10, Storage: 100, Network: 10}
	}
	return e.Normal()
}

// registerAtOnce is how many registrations are under way together.
const registerAtOnce = 256

// newSwarm connects and registers n agents over so many connections.
func newSwarm(ctx context.Context, url string, n, conns int, robots bool) (*swarm, error) {
	s := &swarm{byID: make(map[string]*swarmAgent, n)}
	for i := range conns {
		nc, err := bus.Connect(url, fmt.Sprintf("bench swarm %d", i))
		if err != nil {
			return s, err
		}
		s.conns = append(s.conns, nc)
	}
	var err error
	if s.b, err = bus.New(s.conns[0], benchFleet, 0); err != nil {
		return s, err
	}
	kv, err := s.b.KV(ctx, bus.Agents)
	if err != nil {
		return s, err
	}
	for i := range n {
		env := swarmEnvironment(i, robots)
		subject := s.b.Subject(messages.KindHeartbeat, env.Site)
		subject.Agent = env.ID
		a := &swarmAgent{number: i, subject: subject.String(), conn: s.conns[i%conns]}
		a.hb = messages.Heartbeat{Agent: env.ID, State: messages.AgentReady, Capacity: env.Capacity, DataAge: 100, RTT: 0.5}
		s.agents, s.byID[env.ID] = append(s.agents, a), a
	}
	js, err := jetstream.New(s.conns[0], jetstream.WithPublishAsyncMaxPending(registerAtOnce))
	if err != nil {
		return s, err
	}
	acks := make([]jetstream.PubAckFuture, n)
	for i, a := range s.agents {
		data, err := messages.Encode(&messages.Registration{Environment: swarmEnvironment(i, robots)})
		if err != nil {
			return s, err
		}
		if acks[i], err = js.PublishAsync(bus.BucketSubject(benchFleet, bus.Agents, a.hb.Agent), data); err != nil {
			return s, err
		}
	}
	for i, a := range s.agents {
		select {
		case ack := <-acks[i].Ok():
			a.hb.Inc = messages.Incarnation{Epoch: kv.Epoch, Revision: ack.Sequence}
		case err := <-acks[i].Err():
			return s, err
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
	return s, s.listen()
}

func (s *swarm) close() {
	for _, nc := range s.conns {
		nc.Close()
	}
}

// listen takes documents: each connection those of its own agents, as processes would.
func (s *swarm) listen() error {
	for _, a := range s.agents {
		subject := s.b.Subject(messages.KindPlace, messages.DefaultSite)
		subject.Agent = a.hb.Agent
		if a.number < swarmListens {
			if _, err := a.conn.Subscribe(subject.String(), s.place); err != nil {
				return err
			}
		}
	}
	for _, nc := range s.conns {
		if err := nc.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (s *swarm) place(m *nats.Msg) {
	a := s.byID[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]
	var doc messages.Placement
	if a == nil || a.number >= s.stuck || int64(a.number) < s.deaf.Load() || messages.Decode(m.Data, &doc) != nil {
		return
	}
	a.mu.Lock()
	ack := messages.PlacementAck{Agent: a.hb.Agent, Inc: a.hb.Inc}
	if doc.Newer(a.doc.Term, a.doc.Rev) {
		a.take(doc)
	}
	ack.Term, ack.Rev, ack.Replicas = a.hb.Term, a.hb.Rev, a.hb.Replicas
	a.mu.Unlock()
	if data, err := messages.Encode(&ack); err == nil {
		_ = m.Respond(data)
	}
	s.beat(a) // at once, for what it says is new
}

// take makes doc what a runs. a.mu is held.
func (a *swarmAgent) take(doc messages.Placement) {
	a.doc, a.at = doc, time.Now()
	a.hb.Term, a.hb.Rev, a.hb.Replicas = doc.Term, doc.Rev, nil
	for _, r := range doc.Replicas {
		st := messages.ReplicaStatus{ID: r.ID, State: messages.ReplicaReady, Rate: 1, Latency: 5}
		if r.Drain {
			st.State = messages.ReplicaStopped
		}
		a.hb.Replicas = append(a.hb.Replicas, st)
	}
}

// beat sends one beat of a. What others use of its machine wavers, as it does.
func (s *swarm) beat(a *swarmAgent) {
	if int64(a.number) < s.deaf.Load() {
		return
	}
	a.mu.Lock()
	a.hb.Seq++
	a.hb.Foreign.Compute = a.hb.Capacity.Compute * 0.01 * float64((a.hb.Seq+uint64(a.number))%5)
	for i := range a.hb.Replicas {
		a.hb.Replicas[i].Served++
	}
	data, err := messages.Encode(&a.hb)
	a.mu.Unlock()
	if s.drop > 0 && s.sent.Load()%s.drop == 1 {
		s.sent.Add(1)
		return
	}
	if err == nil && a.conn.Publish(a.subject, data) == nil {
		s.sent.Add(1)
	}
}

// beatGrain is how often a part of the agents beats: spread over the second, as splay
// spreads them.
const beatGrain = 2 * time.Millisecond

// beats lets every agent beat once a second until ctx ends.
func (s *swarm) beats(ctx context.Context) {
	tick := time.NewTicker(beatGrain)
	defer tick.Stop()
	begin, done := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// By the clock and not by ticks: a tick that comes late makes up for it.
		for due := int(time.Since(begin).Seconds() * float64(len(s.agents))); done < due; done++ {
			s.beat(s.agents[done%len(s.agents)])
		}
	}
}

// swarmStats is what a swarm tells of itself.
type swarmStats struct {
	Agents int    `json:"agents"`
	Sent   uint64 `json:"sent"`  // beats that were handed to the server
	Ended  string `json:"ended"` // of the newest document that any agent took, the wall clock in RFC 3339
	Behind int    `json:"behind"`
}

// swarmRole is a swarm. Orders: "beat" begins with beats, "still" ends them and answers when
// the server has all; "away N" lets the first N agents be away from now on, "back" lets them
// be back; "runs TASK N" tells how many agents do not run N replicas of the task, or of
// a later version of it than revision N.
func swarmRole(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("swarm", flag.ContinueOnError)
	url := flags.String("url", "", "the server's")
	agents := flags.Int("agents", 0, "how many")
	conns := flags.Int("conns", 1, "connections for all of them")
	robots := flags.Bool("robots", false, "all of them are robots")
	drop := flags.Uint64("drop", 0, "planted fault: one of so many beats is counted and not sent")
	stuck := flags.Int("stuck", 0, "planted fault: the last so many agents take no documents")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := newSwarm(ctx, *url, *agents, *conns, *robots)
	defer s.close()
	s.drop, s.stuck = *drop, *agents-*stuck
	if err != nil {
		return err
	}
	if err := tell(out, swarmStats{Agents: len(s.agents)}); err != nil {
		return err
	}
	stop := func() {}
	defer func() { stop() }()
	return orders(in, out, func(order string) (any, error) {
		word, rest, _ := strings.Cut(order, " ")
		switch word {
		case "beat":
			beats, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				s.beats(beats)
			}()
			stop = sync.OnceFunc(func() { cancel(); <-ended })
		case "still":
			stop()
			for _, nc := range s.conns {
				if err := nc.Flush(); err != nil {
					return nil, err
				}
			}
		case "away", "back":
			var n int64
			if word == "away" {
				if _, err := fmt.Sscan(rest, &n); err != nil {
					return nil, err
				}
			}
			s.deaf.Store(n)
		case "runs":
			return s.behind(rest)
		default:
			return nil, errors.New("swarm: order " + order)
		}
		return swarmStats{Agents: len(s.agents), Sent: s.sent.Load()}, nil
	})
}

// behind counts the agents that have not taken a document with a task at a revision of the
// desired state, and tells when the last of the others did.
func (s *swarm) behind(order string) (swarmStats, error) {
	var task string
	var revision uint64
	if _, err := fmt.Sscan(order, &task, &revision); err != nil {
		return swarmStats{}, err
	}
	out := swarmStats{Agents: len(s.agents), Sent: s.sent.Load()}
	var last time.Time
	for _, a := range s.agents {
		a.mu.Lock()
		has := false
		for _, r := range a.doc.Replicas {
			has = has || r.Task.Name == task && r.Task.Revision >= revision && !r.Drain
		}
		if !has {
			out.Behind++
		} else if a.at.After(last) {
			last = a.at
		}
		a.mu.Unlock()
	}
	out.Ended = last.Format(time.RFC3339Nano)
	return out, nil
}
