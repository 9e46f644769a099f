package coordinator

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// lagging is a bucket whose lists come from a server that is behind: they end before what
// was written after a revision, as long as that is not 0.
type lagging struct {
	jetstream.KeyValue
	upTo  *atomic.Uint64
	lists *atomic.Int64
}

func (l lagging) WatchAll(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	l.lists.Add(1)
	w, err := l.KeyValue.WatchAll(ctx, opts...)
	upTo := l.upTo.Load()
	if err != nil || upTo == 0 {
		return w, err
	}
	out := make(chan jetstream.KeyValueEntry)
	done := make(chan struct{})
	go func() {
		defer close(out)
		for {
			select {
			case <-done:
				return
			case e, ok := <-w.Updates():
				if !ok {
					return
				}
				if e != nil && e.Revision() > upTo {
					continue
				}
				select {
				case out <- e:
				case <-done:
					return
				}
			}
		}
	}()
	return lateWatcher{w, out, done}, nil
}

type lateWatcher struct {
	jetstream.KeyWatcher
	out  chan jetstream.KeyValueEntry
	done chan struct{}
}

func (w lateWatcher) Updates() <-chan jetstream.KeyValueEntry { return w.out }

func (w lateWatcher) Stop() error {
	close(w.done)
	return w.KeyWatcher.Stop()
}

// behind makes the lists of one bucket lag.
func behind(bucket bus.Bucket, l *lagging) func(*Coordinator) {
	l.upTo, l.lists = new(atomic.Uint64), new(atomic.Int64)
	return func(c *Coordinator) {
		c.open = func(ctx context.Context, b bus.Bucket) (bus.KV, error) {
			kv, err := c.bus.KV(ctx, b)
			if b == bucket && err == nil {
				kv.KeyValue = lagging{kv.KeyValue, l.upTo, l.lists}
			}
			return kv, err
		}
	}
}

// relist makes a coordinator list a bucket anew, and waits until it has done so some times.
func (l *lagging) relist(t *testing.T, c *Coordinator, bucket bus.Bucket, times int64) {
	t.Helper()
	want := l.lists.Load() + times
	natstest.Eventually(t, within, "lists", func() bool {
		signal(c.known.again[bucket])
		return l.lists.Load() >= want
	})
}

// A list from a server that is behind is not what there is: nothing is stopped for it, and
// what is written later is heard of.
func TestListOfAServerThatIsBehind(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	var l lagging
	c := run(t, s.Connect(t), "coordinator-1", behind(bus.Desired, &l))
	c.awaitLead(t)
	apply(t, b, detect())
	kv, err := b.KV(t.Context(), bus.Desired)
	if err != nil {
		t.Fatal(err)
	}
	before, err := kv.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := detect()
	second.Name = "second"
	apply(t, b, second)
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	natstest.Eventually(t, within, "both tasks", func() bool { return one.runs("detect/0") && one.runs("second/0") })
	l.upTo.Store(before)
	want := l.lists.Load() + 3
	signal(c.known.again[bus.Desired])
	natstest.Eventually(t, within, "the list to be asked for again and again", func() bool { return l.lists.Load() >= want })
	l.upTo.Store(0)
	third := detect()
	third.Name = "third"
	apply(t, b, third)
	natstest.Eventually(t, within, "the third task", func() bool { return one.runs("third/0") })
	one.mu.Lock()
	defer one.mu.Unlock()
	had := false
	for _, d := range one.docs {
		has := false
		for _, r := range d.Replicas {
			has = has || r.ID == "second/0" && !r.Drain
		}
		if had && !has {
			t.Errorf("document %+v: the second task was stopped", d)
		}
		had = had || has
	}
}

// Whose registration is gone without anybody's having seen it go is forgotten when it is
// silent, and not while it beats.
func TestAgentThatBeatsIsKept(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	var l lagging
	c := run(t, s.Connect(t), "coordinator-1", behind(bus.Agents, &l))
	c.awaitLead(t)
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	stream, err := b.JS.Stream(t.Context(), "KV_"+bus.BucketName("test", bus.Agents))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(bus.BucketSubject("test", bus.Agents, "edge-1"))); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		st, err := ReadState(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return len(st.Agents) == 1 && st.Agents[0].State == messages.AgentReady
	}
	l.relist(t, c.Coordinator, bus.Agents, 3)
	if !there() || !one.runs("detect/0") {
		t.Error("an agent that beats was forgotten")
	}
	one.stop()
	natstest.Eventually(t, within, "the agent to be forgotten", func() bool {
		signal(c.known.again[bus.Agents])
		st, err := ReadState(t.Context(), b)
		return err == nil && len(st.Agents) == 0
	})
}

// The lease is renewed while a new leader still reads: one that takes longer than its ttl
// leads all the same, and under the term that it took.
func TestReadingOutlastsTheTTL(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	first := run(t, s.Connect(t), "coordinator-1")
	old := first.awaitLead(t)
	apply(t, b, detect())
	kv, err := b.KV(t.Context(), bus.Desired)
	if err != nil {
		t.Fatal(err)
	}
	before, err := kv.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var l lagging
	c := run(t, s.Connect(t), "coordinator-2", behind(bus.Desired, &l))
	natstest.Eventually(t, within, "the second coordinator to know the fleet", func() bool {
		ok, _ := c.known.has(bus.Desired, messages.Fence{Epoch: kv.Epoch, Revision: before})
		return ok
	})
	l.upTo.Store(before)
	l.relist(t, c.Coordinator, bus.Desired, 2)
	second := detect()
	second.Name = "second"
	apply(t, b, second)
	first.stop()
	lease, err := b.KV(t.Context(), bus.LeaseKV)
	if err != nil {
		t.Fatal(err)
	}
	var took uint64
	natstest.Eventually(t, within, "the lease to be held for longer than its ttl", func() bool {
		e, err := lease.Get(t.Context(), bus.KeyLeader)
		if err != nil || e.Revision() <= old.Revision {
			return false
		}
		var held messages.Lease
		if err := messages.Decode(e.Value(), &held); err != nil || !strings.HasPrefix(held.Holder, "coordinator-2/") {
			return false
		}
		if took == 0 {
			took = e.Revision()
		}
		return e.Revision() >= took+12 // it is renewed ten times in a ttl
	})
	if c.leads() {
		t.Error("it leads, and has not heard what was written last")
	}
	l.upTo.Store(0)
	if term := c.awaitLead(t); term.Revision > took {
		t.Errorf("it leads under term %s, and took the lease at revision %d", term, took)
	}
}
