package vtime_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/latch"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// robotBench is a robot over a link, with a task whose actions run until they are ended.
type robotBench struct {
	t     *testing.T
	b     *bus.Bus
	link  *natstest.Link
	inc   messages.Incarnation
	ended chan time.Time

	hooked  chan agent.LinkLoss // calls of the hook "retract"
	blinked chan struct{}       // lets actions of "blink" end
	seq     uint64
}

var move = messages.Task{Name: "move", Class: messages.Action, Per: messages.PerRobot}

func newRobotBench(t *testing.T, s *natstest.Server, b *bus.Bus, reEngage time.Duration, tasks ...messages.Task) *robotBench {
	t.Helper()
	r := &robotBench{t: t, b: b, link: s.Link("robot"), ended: make(chan time.Time, 10), hooked: make(chan agent.LinkLoss, 10), blinked: make(chan struct{})}
	doc := messages.Placement{Agent: "r1", Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1}
	for _, task := range tasks {
		doc.Replicas = append(doc.Replicas, messages.PlacedReplica{ID: messages.ReplicaID(task.Name, "r1"), Task: task})
	}
	placements := must[bus.KV](t)(b.KV(within(t, time.Minute), bus.Placements))
	must[uint64](t)(placements.Put(within(t, time.Minute), "r1", must[[]byte](t)(messages.Encode(&doc))))
	check(t, b.Stream(within(t, time.Minute), site, messages.Action))
	ctx, cancel := context.WithCancel(context.Background())
	a := agent.New(s.Connect(t, r.link.Dial()), agent.Config{
		Fleet: fleet, Environment: messages.Environment{ID: "r1", Tier: messages.Robot}, HandoverWait: -1, Logger: slog.New(slog.DiscardHandler), ReEngage: reEngage,
		LinkHooks: map[string]agent.LinkHook{"retract": func(_ context.Context, l agent.LinkLoss) error {
			r.hooked <- l
			return nil
		}},
	}, agent.Func("blink", func(ctx context.Context, _ *agent.Request) ([]byte, error) {
		select {
		case <-r.blinked:
			return []byte("on"), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}), agent.Func("move", func(ctx context.Context, _ *agent.Request) ([]byte, error) {
		<-ctx.Done()
		r.ended <- time.Now()
		return nil, ctx.Err()
	}))
	gone := make(chan error, 1)
	go func() { gone <- a.Run(ctx) }()
	t.Cleanup(func() {
		r.link.Mend()
		cancel()
		if err := <-gone; err != nil {
			t.Error(err)
		}
	})
	pass(2 * time.Second)
	agents := must[bus.KV](t)(b.KV(within(t, time.Minute), bus.Agents))
	e, err := agents.Get(within(t, time.Minute), "r1")
	check(t, err)
	r.inc = messages.Incarnation{Epoch: agents.Epoch, Revision: e.Revision()}
	return r
}

// act sends a command to "move" and returns the code of its refusal; "" where it was
// accepted.
func (r *robotBench) act() messages.Code { r.t.Helper(); return r.actOn("move") }

func (r *robotBench) actOn(task string) messages.Code {
	r.t.Helper()
	r.seq++
	req := messages.Request{ID: fmt.Sprintf("a%d", r.seq), Class: messages.Action, Task: task, Origin: origin, Inbox: "x", Attempt: 1,
		Left: time.Hour, Episode: "e", Seq: r.seq, Inc: r.inc}
	s := r.b.Subject(messages.KindDo, site)
	s.Agent, s.Origin, s.Task = "r1", origin, task
	m := must[*nats.Msg](r.t)(r.b.Conn.RequestMsg(&nats.Msg{Subject: s.String(), Header: nats.Header(req.Header())}, time.Second))
	reply := must[messages.Reply](r.t)(messages.ParseReply(messages.Header(m.Header)))
	if reply.Err != nil {
		return reply.Err.Code
	}
	return ""
}

// cut cuts the link and returns how long the action went on.
func (r *robotBench) cut() time.Duration {
	r.t.Helper()
	start := time.Now()
	r.link.Cut()
	return (<-r.ended).Sub(start)
}

// However the cut falls between two pings, the action ends within 0.6 s, and the robot
// stays stopped when the link is back, for a minute of coming and going.
func TestLostLinkStopsInTime(t *testing.T) {
	for _, offset := range []time.Duration{0, 70 * time.Millisecond, 130 * time.Millisecond, 240 * time.Millisecond} {
		bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
			r := newRobotBench(t, s, b, 0, move)
			if code := r.act(); code != "" {
				t.Fatalf("refused: %s", code)
			}
			pass(offset)
			if took := r.cut(); took > 600*time.Millisecond {
				t.Errorf("cut %v after a second: the action went on for %v", offset, took)
			}
			for range 10 {
				r.link.Mend()
				pass(4 * time.Second)
				r.link.Cut()
				pass(2 * time.Second)
			}
			r.link.Mend()
			pass(10 * time.Second)
			if code := r.act(); code != messages.CodeStopped {
				t.Errorf("after the link came back: %q, want %q", code, messages.CodeStopped)
			}
			// Its outcome was kept, and is in the journal once.
			journal := must[jetstream.Stream](t)(b.JS.Stream(within(t, time.Minute), bus.StreamName(fleet, site, messages.Action)))
			if n := journal.CachedInfo().State.LastSeq; n != 2 {
				t.Errorf("%d entries in the journal, want accepted and canceled", n)
			}
		})
	}
}

// Where it is configured so, the robot takes actions again when the link has been well
// for long enough, and not before.
func TestReEngageInVirtualTime(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		r := newRobotBench(t, s, b, latch.LeastReEngage, move)
		if code := r.act(); code != "" {
			t.Fatalf("refused: %s", code)
		}
		r.cut()
		r.link.Mend()
		pass(latch.LeastReEngage - time.Second)
		if code := r.act(); code != messages.CodeStopped {
			t.Errorf("too early: %q", code)
		}
		pass(2 * time.Second)
		if code := r.act(); code != "" {
			t.Errorf("the link is well: %q", code)
		}
	})
}

// A long stop: the order was given an hour ago, while the robot was out of reach.
func TestStopFoundOnReturn(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		r := newRobotBench(t, s, b, latch.LeastReEngage, move)
		r.link.Break()
		pass(time.Second)
		kv := must[bus.KV](t)(b.KV(within(t, time.Minute), bus.Safety))
		must[uint64](t)(kv.Put(within(t, time.Minute), bus.KeyAll, must[[]byte](t)(messages.Encode(&messages.StopOrder{Stop: true, Reason: "fire drill"}))))
		pass(time.Hour)
		r.link.Mend()
		pass(time.Minute)
		if code := r.act(); code != messages.CodeStopped {
			t.Errorf("back after an hour: %q", code)
		}
		e, err := kv.Get(within(t, time.Minute), bus.KeyLatch+"r1")
		check(t, err)
		var l messages.Latch
		check(t, messages.Decode(e.Value(), &l))
		if !strings.Contains(l.Why(), "fire drill") || l.Link.On {
			t.Errorf("the robot shows %+v", l)
		}
	})
}
