package vtime_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// What waits in a router's socket, because the router hangs or its link does, goes on
// losing time there: an action must not reach its robot seconds after its caller has
// given up on it.
func TestActionLosesItsTimeInTheRoutersSocket(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		robot := newRobotBench(t, s, b, 0, move)
		routes := &messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: 1, Tasks: []messages.TaskRoute{{Task: move, Replicas: []messages.Route{
			{ID: messages.ReplicaID("move", "r1"), Agent: "r1", Inc: robot.inc, Tier: messages.Robot, Site: site, State: messages.ReplicaReady},
		}}}}
		kv := must[bus.KV](t)(b.KV(within(t, time.Minute), bus.RoutesKV))
		must[uint64](t)(kv.Put(within(t, time.Minute), bus.KeyRoutes, must[[]byte](t)(messages.Encode(routes))))

		link := s.Link("router")
		ctx, cancel := context.WithCancel(context.Background())
		gone := make(chan error, 1)
		service := router.NewService(s.Connect(t, link.Dial()), router.Config{Fleet: fleet, Logger: slog.New(slog.DiscardHandler)})
		go func() { gone <- service.Run(ctx) }()
		defer func() {
			link.Mend()
			cancel()
			check(t, <-gone)
		}()
		pass(5 * time.Second)

		ask := func(seq string, left string) messages.Code {
			t.Helper()
			m := must[*nats.Msg](t)(b.Conn.RequestMsg(&nats.Msg{
				Subject: "fb." + fleet + ".main.req.action." + origin + ".r1.move",
				Header:  nats.Header{"Fb-Episode": {"e"}, "Fb-Seq": {seq}, "Fb-Left-Ms": {left}},
			}, time.Minute))
			return must[messages.Reply](t)(messages.ParseReply(messages.Header(m.Header))).Err.Code
		}
		// The bench's action runs until its time is over.
		if code := ask("1", "1000"); code != messages.CodeUnknownOutcome || len(robot.ended) != 1 {
			t.Fatalf("ended in %s, %d ran", code, len(robot.ended))
		}
		<-robot.ended
		for _, c := range []struct {
			seq, left string
			cut       time.Duration
			code      messages.Code
			ran       int
		}{
			{"2", "1000", 3 * time.Second, messages.CodeDeadline, 0},
			{"3", "5000", 3 * time.Second, messages.CodeUnknownOutcome, 1},       // some of its time is left
			{"4", "200", 500 * time.Millisecond, messages.CodeUnknownOutcome, 1}, // within what busy machines are forgiven
		} {
			link.Cut()
			mend := time.AfterFunc(c.cut, link.Mend)
			code := ask(c.seq, c.left)
			mend.Stop()
			pass(time.Second)
			if code != c.code || len(robot.ended) != c.ran {
				t.Errorf("%s ms, the link cut for %v: ended in %s, want %s; %d ran, want %d", c.left, c.cut, code, c.code, len(robot.ended), c.ran)
			}
			for len(robot.ended) > 0 {
				<-robot.ended
			}
			pass(5 * time.Second)
		}
	})
}
