package safety_test

import (
	"context"
	"testing"

	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// swallow makes questions about the safety bucket go unanswered on a server without
// JetStream, and reports each.
func swallow(t *testing.T, url string) (questions chan *nats.Msg, end func()) {
	t.Helper()
	nc, err := bus.Connect(url, "swallow")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	questions = make(chan *nats.Msg, 100)
	sub, err := nc.ChanSubscribe("$JS.API.STREAM.INFO.KV_"+bus.BucketName(fleet, bus.Safety), questions)
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return questions, func() {
		if err := sub.Unsubscribe(); err != nil {
			t.Error(err)
		}
		if err := nc.Flush(); err != nil {
			t.Error(err)
		}
	}
}

// disconnect makes the server close a connection. It is not ForceReconnect, with which the
// client library ends what is under way by itself.
func disconnect(t *testing.T, s *server.Server, nc *nats.Conn) {
	t.Helper()
	id, err := nc.GetClientID()
	if err == nil {
		err = s.DisconnectClientByID(id)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A question that was lost with the connection holds nobody up: not who reads who is
// stopped, and not an order.
func TestQuestionsEndWithTheConnection(t *testing.T) {
	t.Parallel()
	s, nc := plainServer(t)
	questions, end := swallow(t, s.ClientURL())
	b, err := bus.New(nc, fleet, 1)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx := within(t, patience)
	go func() {
		_, err := safety.Read(ctx, b)
		ended <- err
	}()
	<-questions
	disconnect(t, s, nc)
	if err := <-ended; messages.CodeOf(err) != messages.CodeUnavailable || ctx.Err() != nil {
		t.Fatalf("%v, %v", err, ctx.Err())
	}

	natstest.Eventually(t, patience, "the connection to be back", nc.IsConnected)
	go func() {
		_, err := safety.Release(ctx, nc, fleet, safety.Order{Robot: "r1"})
		ended <- err
	}()
	<-questions
	end()
	if err := s.EnableJetStream(&server.JetStreamConfig{StoreDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	disconnect(t, s, nc)
	if err := <-ended; err != nil || ctx.Err() != nil {
		t.Fatalf("the release was not tried again: %v, %v", err, ctx.Err())
	}
}

// A stop that was saved while a release was still trying to be is not undone by it, and a
// try whose answer was lost is not made twice.
func TestReleaseDoesNotOvertakeAStop(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"name", "all", "nobody"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			s := natstest.Start(t)
			nc := s.Connect(t)
			b, err := bus.New(nc, fleet, 1)
			if err != nil {
				t.Fatal(err)
			}
			register(t, b, "r1", messages.Robot)
			heard := answers(t, s.Connect(t), "r1", messages.StopAck{Agent: "r1", Stopped: "stopped", Saved: true})
			if r, err := safety.Stop(within(t, patience), nc, fleet, safety.Order{Robot: "r1"}); err != nil || !r.Done() {
				t.Fatalf("%+v, %v", r, err)
			}
			<-heard
			saver := safety.NewSaver(t, nc, fleet, messages.StopOrder{Agent: "r1", ID: "release"})
			if _, err := saver(within(t, patience)); err != nil {
				t.Fatal(err)
			}
			switch by {
			case "name":
				put(t, b, bus.Safety, bus.KeyRobot+"r1", &messages.StopOrder{Agent: "r1", Stop: true, ID: "stop"})
			case "all":
				put(t, b, bus.Safety, bus.KeyAll, &messages.StopOrder{Stop: true, ID: "stop"})
			}
			fence, err := saver(within(t, patience)) // as after an answer that was lost
			switch {
			case by == "name" && messages.CodeOf(err) != messages.CodeConflict:
				t.Errorf("a newer stop was undone: %v, %v", fence, err)
			case by != "name" && (err != nil || fence.Revision != 2):
				t.Errorf("it was made twice, or not found: %v, %v", fence, err)
			}
			state, err := safety.Read(context.WithoutCancel(t.Context()), b)
			if why, _ := state.Why("r1"); err != nil || (why == "") != (by == "nobody") {
				t.Errorf("%q, %v", why, err)
			}
		})
	}
}
