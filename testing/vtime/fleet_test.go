package vtime_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ttl is the lease of the coordinators here: the shipped one.
const ttl = coordinator.DefaultLeaseTTL

// quiet keeps the client library from printing what these tests do to watchers.
var quiet = nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})

// coordinate runs a coordinator until stop, or the end of the test. stop asks it to end, as
// SIGTERM does, and waits for that.
func coordinate(t *testing.T, nc *nats.Conn, id string) (stop func()) {
	t.Helper()
	c := coordinator.New(nc, coordinator.Config{Fleet: fleet, ID: id, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("coordinator %s: %v", id, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// led waits until somebody leads whose term is newer than after.
func led(t *testing.T, b *bus.Bus, after messages.Term) messages.State {
	t.Helper()
	var s messages.State
	natstest.Eventually(t, time.Minute, "a leader with a newer term", func() bool {
		// A question to one who is just leaving is not answered, so it is asked again soon.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var err error
		s, err = coordinator.ReadState(ctx, b)
		return err == nil && after.Before(s.Term)
	})
	return s
}

// box is an agent as a coordinator sees one: it registers, beats, and takes documents; a
// replica is ready as soon as it is placed. It refuses what is not newer, as ours do.
type box struct {
	id  string
	b   *bus.Bus
	inc messages.Incarnation

	mu      sync.Mutex
	seq     uint64
	docs    []messages.Placement // that were taken, the newest last
	refused int
}

func startBox(t *testing.T, nc *nats.Conn, id string) *box {
	t.Helper()
	a := &box{id: id, b: newBus(t, nc)}
	env := messages.Environment{ID: id, Tier: messages.Edge, Latency: 10, Handlers: []string{messages.AnyHandler},
		Capacity: messages.Resources{Compute: 100, Storage: 100, Network: 100}}
	kv := open(t, a.b, bus.Agents)
	data := must[[]byte](t)(messages.Encode(&messages.Registration{Environment: env}))
	a.inc = messages.Incarnation{Epoch: kv.Epoch, Revision: must[uint64](t)(kv.Put(t.Context(), id, data))}
	s := a.b.Subject(messages.KindPlace, site)
	s.Agent = id
	must[*nats.Subscription](t)(nc.Subscribe(s.String(), a.place))
	ctx, cancel := context.WithCancel(t.Context())
	var beats sync.WaitGroup
	beats.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			a.beat()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		beats.Wait()
	})
	return a
}

func (a *box) place(m *nats.Msg) {
	var doc messages.Placement
	if err := messages.Decode(m.Data, &doc); err != nil {
		return
	}
	a.mu.Lock()
	ack := messages.PlacementAck{Agent: a.id, Inc: a.inc}
	if held := a.held(); doc.Newer(held.Term, held.Rev) {
		a.docs = append(a.docs, doc)
	} else if held.Newer(doc.Term, doc.Rev) {
		a.refused++
		ack.Error = "older than what it has"
	}
	ack.Term, ack.Rev, ack.Replicas = a.held().Term, a.held().Rev, a.statuses()
	a.mu.Unlock()
	if data, err := messages.Encode(&ack); err == nil {
		_ = m.Respond(data)
	}
	a.beat()
}

func (a *box) held() messages.Placement {
	if len(a.docs) == 0 {
		return messages.Placement{}
	}
	return a.docs[len(a.docs)-1]
}

func (a *box) statuses() (out []messages.ReplicaStatus) {
	for _, r := range a.held().Replicas {
		st := messages.ReplicaStatus{ID: r.ID, State: messages.ReplicaReady}
		if r.Drain {
			st.State = messages.ReplicaStopped
		}
		out = append(out, st)
	}
	return out
}

func (a *box) beat() {
	a.mu.Lock()
	a.seq++
	hb := messages.Heartbeat{Agent: a.id, Inc: a.inc, Seq: a.seq, State: messages.AgentReady,
		Capacity: messages.Resources{Compute: 100, Storage: 100, Network: 100},
		Term:     a.held().Term, Rev: a.held().Rev, Replicas: a.statuses()}
	a.mu.Unlock()
	s := a.b.Subject(messages.KindHeartbeat, site)
	s.Agent = a.id
	if data, err := messages.Encode(&hb); err == nil {
		_ = a.b.Conn.Publish(s.String(), data)
	}
}

// newest is the document that the box holds.
func (a *box) newest() messages.Placement {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held()
}

// steady ends the test if the box was ever told to stop one of its replicas, or to run
// another number of them.
func (a *box) steady(t *testing.T, replicas int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.docs {
		for _, r := range d.Replicas {
			if r.Drain {
				t.Errorf("%s: document of term %s revision %d drains %s: something was moved", a.id, d.Term, d.Rev, r.ID)
			}
		}
		if len(d.Replicas) != replicas {
			t.Errorf("%s: document of term %s revision %d has %d replicas, want %d", a.id, d.Term, d.Rev, len(d.Replicas), replicas)
		}
	}
}

// placed applies a task, and waits until the box runs it.
func placed(t *testing.T, b *bus.Bus, a *box, name string) {
	t.Helper()
	job := messages.Task{Name: name, Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Robot: a.id}
	must[coordinator.Applied](t)(coordinator.Apply(t.Context(), b, []messages.Task{job}, nil))
	runs(t, a, name)
}

func runs(t *testing.T, a *box, name string) {
	t.Helper()
	natstest.Eventually(t, 2*time.Minute, a.id+" to run "+name, func() bool {
		for _, r := range a.newest().Replicas {
			if r.Task.Name == name {
				return true
			}
		}
		return false
	})
}

// deaf is a way to a server on which, when it is told so, nothing comes back: what is sent
// arrives, and its confirmation does not.
type deaf struct {
	inner nats.InProcessConnProvider

	mu    sync.Mutex
	hears chan struct{} // closed while it hears
}

func newDeaf(t *testing.T, s *natstest.Server) (*deaf, nats.Option) {
	t.Helper()
	d := &deaf{hears: make(chan struct{})}
	close(d.hears)
	return d, func(o *nats.Options) error {
		if err := s.Dial()(o); err != nil {
			return err
		}
		d.inner, o.InProcessServer = o.InProcessServer, d
		return nil
	}
}

// silence lets nothing come back for a while.
func (d *deaf) silence(wait time.Duration) {
	d.mu.Lock()
	d.hears = make(chan struct{})
	hears := d.hears
	d.mu.Unlock()
	pass(wait)
	close(hears)
}

func (d *deaf) InProcessConn() (net.Conn, error) {
	c, err := d.inner.InProcessConn()
	return deafConn{c, d}, err
}

type deafConn struct {
	net.Conn
	d *deaf
}

func (c deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.d.mu.Lock()
	hears := c.d.hears
	c.d.mu.Unlock()
	<-hears
	return n, err
}

// forgetWatchers deletes all consumers of a bucket: its watchers are told of nothing more,
// and nobody tells them so.
func forgetWatchers(t *testing.T, b *bus.Bus, bucket bus.Bucket) (deleted int) {
	t.Helper()
	stream := must[jetstream.Stream](t)(b.JS.Stream(t.Context(), "KV_"+bus.BucketName(fleet, bucket)))
	names := stream.ConsumerNames(t.Context())
	for name := range names.Name() {
		check(t, stream.DeleteConsumer(t.Context(), name))
		deleted++
	}
	check(t, names.Err())
	return deleted
}
