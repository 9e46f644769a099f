package vtime_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// actBench is a robot over a link, a client, and the plan that a coordinator would write.
type actBench struct {
	t      *testing.T
	s      *natstest.Server
	b      *bus.Bus
	link   *natstest.Link
	skew   time.Duration // of the server's clock, as the robot sees it
	task   messages.Task
	client *router.Client
	rev    uint64
	inc    messages.Incarnation
	state  messages.ReplicaState

	mu       sync.Mutex
	deadline map[string]time.Time // of an action, by its body
	ran      []string
	late     []string
}

func newActBench(t *testing.T, s *natstest.Server, b *bus.Bus, onLinkLoss string, skew time.Duration) *actBench {
	t.Helper()
	r := &actBench{t: t, s: s, b: b, link: s.Link("robot"), skew: skew, deadline: make(map[string]time.Time), state: messages.ReplicaReady,
		task: messages.Task{Name: "move", Class: messages.Action, Per: messages.PerRobot, OnLinkLoss: onLinkLoss}}
	doc := messages.Placement{Agent: "r1", Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1, Replicas: []messages.PlacedReplica{{ID: "move/r1", Task: r.task}}}
	placements := must[bus.KV](t)(b.KV(within(t, time.Minute), bus.Placements))
	must[uint64](t)(placements.Put(within(t, time.Minute), "r1", must[[]byte](t)(messages.Encode(&doc))))
	check(t, b.Stream(within(t, time.Minute), site, messages.Action))
	r.plan()
	r.client = router.NewClient(s.Connect(t), router.Config{Fleet: fleet, Origin: origin, Logger: slog.New(slog.DiscardHandler)})
	r.run(r.client.Run)
	check(t, r.client.Ready(within(t, time.Minute)))
	return r
}

// run runs something until the test ends, or end is called.
func (r *actBench) run(f func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { gone <- f(ctx) }()
	end = sync.OnceFunc(func() {
		r.link.Mend()
		cancel()
		if err := <-gone; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(end)
	return end
}

// robot starts the robot's agent, and returns how to stop it.
func (r *actBench) robot() (end func()) {
	r.t.Helper()
	a := agent.New(r.s.Connect(r.t, skewed(r.link, r.skew)), agent.Config{
		Fleet: fleet, Environment: messages.Environment{ID: "r1", Tier: messages.Robot}, HandoverWait: -1, Logger: slog.New(slog.DiscardHandler),
	}, agent.Func("move", func(_ context.Context, q *agent.Request) ([]byte, error) {
		r.mu.Lock()
		r.ran = append(r.ran, string(q.Body))
		if time.Now().After(r.deadline[string(q.Body)]) {
			r.late = append(r.late, string(q.Body))
		}
		r.mu.Unlock()
		pass(100 * time.Millisecond)
		return q.Body, nil
	}))
	end = r.run(a.Run)
	pass(2 * time.Second)
	agents := must[bus.KV](r.t)(r.b.KV(within(r.t, time.Minute), bus.Agents))
	e, err := agents.Get(within(r.t, time.Minute), "r1")
	check(r.t, err)
	r.inc = messages.Incarnation{Epoch: agents.Epoch, Revision: e.Revision()}
	return end
}

// plan says that the robot's replica is ready, where it has an incarnation, else nowhere.
func (r *actBench) plan() {
	r.t.Helper()
	r.rev++
	route := messages.TaskRoute{Task: r.task}
	if !r.inc.IsZero() {
		route.Replicas = []messages.Route{{ID: "move/r1", Agent: "r1", Inc: r.inc, Tier: messages.Robot, Site: site, State: r.state}}
	}
	data := must[[]byte](r.t)(messages.Encode(&messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: r.rev, Tasks: []messages.TaskRoute{route}}))
	kv := must[bus.KV](r.t)(r.b.KV(within(r.t, time.Minute), bus.RoutesKV))
	must[uint64](r.t)(kv.Put(within(r.t, time.Minute), bus.KeyRoutes, data))
	check(r.t, r.b.Conn.Publish(r.b.Subject(messages.KindRoutes, messages.FleetSite).String(), data))
	pass(10 * time.Millisecond)
}

// lost is the plan when the coordinator has noticed that the robot is gone.
func (r *actBench) lost() {
	r.t.Helper()
	r.inc = messages.Incarnation{}
	r.plan()
}

// ending is how an action ended for its caller.
type ending struct {
	body string
	code messages.Code
	at   time.Duration // after it was asked for
}

// act asks for an action that may wait; its body is its name, its number in the episode too.
func (r *actBench) act(seq uint64, left time.Duration, queue bool) <-chan ending {
	body := fmt.Sprint(seq)
	asked := time.Now()
	r.mu.Lock()
	r.deadline[body] = asked.Add(left)
	r.mu.Unlock()
	out := make(chan ending, 1)
	go func() {
		ans, err := r.client.Act(context.Background(), router.Action{Robot: "r1", Task: "move", Episode: "e", Seq: seq, Body: []byte(body), Deadline: left, Queue: queue, ID: "a" + body})
		if err == nil && string(ans.Body) != body {
			r.t.Errorf("action %s was answered %q", body, ans.Body)
		}
		out <- ending{body, messages.CodeOf(err), time.Since(asked)}
	}()
	pass(time.Millisecond)
	return out
}

// A robot is cut off for 30 s: commands that were sent to it before anybody noticed, and
// commands that wait in the journal, are executed within their time or not at all, however
// far apart the two clocks are; and every caller whose action waited knows which.
func TestCutOffForHalfAMinute(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Hour, -time.Hour} {
		for _, onLoss := range []string{messages.LinkContinue, messages.LinkStop} {
			t.Run(fmt.Sprint(onLoss, skew), func(t *testing.T) {
				bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) { cutOff(t, newActBench(t, s, b, onLoss, skew)) })
			})
		}
	}
}

func cutOff(t *testing.T, r *actBench) {
	r.robot()
	r.plan()
	if e := <-r.act(1, time.Second, true); e.code != "" {
		t.Fatalf("with the robot there: %+v", e)
	}
	r.link.Cut()
	var unseen, queued []<-chan ending
	for seq := range uint64(4) { // into the socket of a robot that nobody misses yet
		unseen = append(unseen, r.act(2+seq, time.Duration(1+10*seq)*time.Second, true))
		pass(500 * time.Millisecond)
	}
	pass(time.Second)
	r.lost()
	// Every second one more, that waits 1.5 to 49.5 s.
	for i := range uint64(25) {
		queued = append(queued, r.act(10+i, 1500*time.Millisecond+time.Duration(i)*2*time.Second, true))
		pass(time.Second)
	}
	pass(2 * time.Second) // 30 s since the cut
	r.link.Mend()
	pass(5 * time.Second)
	pass(time.Minute)
	r.mu.Lock()
	ran, late := slices.Clone(r.ran), slices.Clone(r.late)
	r.mu.Unlock()
	if len(late) > 0 {
		t.Errorf("executed past their time: %q", late)
	}
	for _, c := range unseen {
		if e := <-c; e.code != messages.CodeUnknownOutcome {
			t.Errorf("sent to a robot that was cut off: %+v", e)
		}
	}
	var want []string
	for i, c := range queued {
		e := <-c
		returns := time.Duration(27-i) * time.Second // from when it was asked for
		left := 1500*time.Millisecond + time.Duration(i)*2*time.Second
		switch {
		case left < returns:
			if e.code != messages.CodeDeadline || e.at < left || e.at > left+time.Second/4 {
				t.Errorf("its time was over while the robot was away: %+v, had %v", e, left)
			}
		case r.task.OnLinkLoss == messages.LinkStop:
			if e.code != messages.CodeStopped {
				t.Errorf("the robot had stopped: %+v", e)
			}
		default:
			if want = append(want, e.body); e.code != "" {
				t.Errorf("with %v left when the robot was back: %+v", left-returns, e)
			}
		}
	}
	if r.task.OnLinkLoss == messages.LinkContinue && len(want) < 5 {
		t.Fatalf("only %d were to be executed", len(want))
	}
	if got := ran[1:]; !slices.Equal(got, want) {
		t.Errorf("executed %q, want %q", got, want)
	}
}

// While it is away the robot's agent is started anew: another life takes what waits. What
// was sent to the former life stays refused.
func TestAnotherLifeTakesWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		r := newActBench(t, s, b, messages.LinkContinue, 0)
		end := r.robot()
		end()
		pass(time.Second)
		first := r.act(1, time.Minute, true)
		second := r.act(2, time.Minute, true)
		if e := <-r.act(3, time.Minute, false); e.code != messages.CodeNotConnected || e.at > time.Second {
			t.Errorf("who did not ask for it waited: %+v", e)
		}
		short := r.act(4, 2*time.Second, true)
		pass(10 * time.Second)
		end = r.robot()
		for _, c := range []<-chan ending{first, second} {
			if e := <-c; e.code != "" {
				t.Errorf("%+v", e)
			}
		}
		if e := <-short; e.code != messages.CodeDeadline {
			t.Errorf("%+v", e)
		}
		// A third life finds them settled, and executes none again.
		end()
		pass(time.Second)
		r.robot()
		pass(time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		if !slices.Equal(r.ran, []string{"1", "2"}) {
			t.Errorf("executed %q", r.ran)
		}
	})
}

// A caller gives up: what waits is withdrawn, and the robot does not find it. One of
// whom nobody heard any more is not found either, when its time is over.
func TestWithdrawnWhileItWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		r := newActBench(t, s, b, messages.LinkContinue, 0)
		r.robot()() // it has been there
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := r.client.Act(ctx, router.Action{Robot: "r1", Task: "move", Episode: "e", Seq: 1, Deadline: time.Hour, Queue: true})
			ended <- err
		}()
		pass(time.Second)
		cancel()
		if err := <-ended; messages.CodeOf(err) != messages.CodeCanceled {
			t.Errorf("withdrawn: %v", err)
		}
		_, err := r.client.Act(t.Context(), router.Action{Robot: "r2", Task: "move", Episode: "e", Seq: 1, Deadline: time.Hour, Queue: true})
		if messages.CodeOf(err) != messages.CodeNotFound {
			t.Errorf("a robot that nobody ever saw: %v", err)
		}
		// Its client died: the robot alone knows when its time is over.
		req := messages.Request{ID: "orphan", Class: messages.Action, Task: "move", Origin: origin, Inbox: "x", Attempt: 1, Left: 10 * time.Second, Episode: "e", Seq: 9}
		subject := b.Subject(messages.KindQueued, site)
		subject.Agent, subject.Origin, subject.ID = "r1", origin, "orphan"
		must[*jetstream.PubAck](t)(b.JS.PublishMsg(within(t, time.Second), &nats.Msg{Subject: subject.String(), Header: nats.Header(req.Header())}))
		pass(11 * time.Second)
		r.robot()
		pass(10 * time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.ran) > 0 {
			t.Errorf("executed %q", r.ran)
		}
		journal := must[jetstream.Stream](t)(b.JS.Stream(within(t, time.Minute), bus.StreamName(fleet, site, messages.Action)))
		outcome := b.Subject(messages.KindOutcome, site)
		outcome.Agent, outcome.Origin, outcome.ID = "r1", origin, "orphan"
		m := must[*jetstream.RawStreamMsg](t)(journal.GetLastMsgForSubject(within(t, time.Minute), outcome.String()))
		var o messages.Outcome
		check(t, messages.Decode(m.Data, &o))
		if o.State != messages.GoalAborted || o.Code != messages.CodeExpired {
			t.Errorf("the journal says %+v", o)
		}
	})
}

// A release runs nothing old: what waited before it is refused, what is sent after it is
// executed.
func TestReleaseRunsNothingThatWaited(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		r := newActBench(t, s, b, messages.LinkStop, 0)
		r.robot()
		r.plan()
		r.link.Cut()
		pass(3 * time.Second)
		r.lost()
		waits := r.act(1, time.Hour, true)
		pass(10 * time.Second)
		r.link.Mend()
		if e := <-waits; e.code != messages.CodeStopped {
			t.Errorf("%+v", e)
		}
	})
}

// Commands lie in the socket of a robot that is out of reach for a few seconds, which is
// too short for anybody to close its connection: they arrive when it is back, and are not
// executed past their time.
func TestCommandsInACutSocket(t *testing.T) {
	for _, away := range []time.Duration{1500 * time.Millisecond, 4 * time.Second, 9 * time.Second} {
		bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
			r := newActBench(t, s, b, messages.LinkContinue, 0)
			r.robot()
			r.plan()
			r.link.Cut()
			var all []<-chan ending
			for seq := range uint64(10) {
				all = append(all, r.act(1+seq, time.Duration(1+seq)*time.Second, false))
			}
			pass(away)
			r.link.Mend()
			pass(time.Minute)
			for _, c := range all {
				<-c
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.late) > 0 {
				t.Errorf("away for %v: executed past their time: %q", away, r.late)
			}
		})
	}
}

// The journal stores an action late, and its caller is gone for good: the robot's time
// counts from when it was stored, and yet it begins nothing after the caller's deadline.
func TestStoredLate(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		r := newActBench(t, s, b, messages.LinkContinue, 0)
		r.robot()()
		uplink := s.Link("client")
		r.client = router.NewClient(s.Connect(t, uplink.Dial()), router.Config{Fleet: fleet, Origin: origin, Logger: slog.New(slog.DiscardHandler)})
		r.run(r.client.Run)
		check(t, r.client.Ready(within(t, time.Minute)))
		check(t, b.Stream(within(t, time.Minute), site, messages.Action))
		if e := <-r.act(1, 2*time.Second, true); e.code != messages.CodeDeadline { // it knows the journal now
			t.Fatalf("%+v", e)
		}
		r.inc, r.state = messages.Incarnation{Epoch: 1, Revision: 1}, messages.ReplicaLoading
		r.plan() // it says where the robot is, so that nothing is asked before the action is sent
		uplink.Cut()
		c := r.act(2, 5*time.Second, true)
		pass(900 * time.Millisecond)
		uplink.Mend() // now the journal has it
		pass(time.Millisecond)
		uplink.Break()
		pass(4300 * time.Millisecond)
		r.robot()
		if e := <-c; e.code != messages.CodeUnknownOutcome {
			t.Errorf("nobody could tell its caller: %+v", e)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.ran) > 0 {
			t.Errorf("executed %q", r.ran)
		}
	})
}

// Of the robot that takes an action and the caller that withdraws it one succeeds; who
// asks again under its own name hears the same.
func TestSettleOnce(t *testing.T) {
	bubble(t, func(t *testing.T, _ *natstest.Server, b *bus.Bus) {
		check(t, b.Stream(within(t, time.Minute), site, messages.Action))
		subject := b.Subject(messages.KindQueued, site)
		subject.Agent, subject.Origin = "r1", origin
		settle := func(id, who string, seq uint64) bool {
			subject.ID = id
			m := &nats.Msg{Subject: subject.String(), Header: nats.Header{messages.HeaderSettled: {who}}}
			return must[bool](t)(b.Settle(within(t, time.Second), m, seq))
		}
		for i, winner := range []string{messages.SettledTaken, messages.SettledWithdrawn} {
			loser := []string{messages.SettledWithdrawn, messages.SettledTaken}[i]
			subject.ID = fmt.Sprint("a", i)
			seq := must[*jetstream.PubAck](t)(b.JS.PublishMsg(within(t, time.Second), &nats.Msg{Subject: subject.String(), Data: []byte("x")})).Sequence
			for range 2 {
				if !settle(subject.ID, winner, seq) || settle(subject.ID, loser, seq) {
					t.Errorf("%s came first and is not it", winner)
				}
			}
		}
		// Read back, each is what settled it.
		var list []string
		check(t, b.Queued(within(t, time.Second), site, "r1", func(m jetstream.Msg) error {
			list = append(list, m.Headers().Get(messages.HeaderSettled))
			return nil
		}))
		if !slices.Equal(list, []string{messages.SettledTaken, messages.SettledWithdrawn}) {
			t.Errorf("read back %q", list)
		}
	})
}
