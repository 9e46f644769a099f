package vtime_test

import (
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// A link that is cut for 47 s: the client notices within 6 s, the server too, and both
// are together again within a second of the repair.
func TestLinkCutInVirtualTime(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T) {
		s := natstest.Start(t)
		if s.URL() != "" {
			t.Fatalf("URL %q in virtual time, want none", s.URL())
		}
		l := s.Link("robot")
		lost, back := make(chan time.Time, 1), make(chan time.Time, 1)
		robot := s.Connect(t, l.Dial(),
			nats.DisconnectErrHandler(func(*nats.Conn, error) { lost <- time.Now() }),
			nats.ReconnectHandler(func(*nats.Conn) { back <- time.Now() }))
		must[*nats.Subscription](t)(robot.Subscribe("ask", func(m *nats.Msg) { _ = m.Respond(nil) }))
		check(t, robot.Flush())
		client := s.Connect(t)
		must[*nats.Msg](t)(client.Request("ask", nil, time.Second))

		start := time.Now()
		l.Cut()
		// The server does not know yet: the request is on its way for ever.
		if _, err := client.Request("ask", nil, time.Second); !errors.Is(err, nats.ErrTimeout) {
			t.Errorf("request into the cut link: error %v, want a timeout", err)
		}
		if took := (<-lost).Sub(start); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("the client noticed after %v, want 4 s to 6 s", took)
		}
		pass(2 * time.Second)
		if _, err := client.Request("ask", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
			t.Errorf("request after the server noticed: error %v, want no responders", err)
		}
		pass(time.Until(start.Add(47 * time.Second)))
		l.Mend()
		if took := (<-back).Sub(start) - 47*time.Second; took > time.Second {
			t.Errorf("back %v after the repair, want less than 1 s", took)
		}
		check(t, robot.Flush())
		must[*nats.Msg](t)(client.Request("ask", nil, time.Second))
		if l.Conns() != 1 {
			t.Errorf("%d connections on the link, want 1", l.Conns())
		}
	})
}

// Publishing without end into a cut link, and asking for the connection's state, never
// stops the clock.
func TestSendIntoCutLink(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T) {
		s := natstest.Start(t)
		l := s.Link("robot")
		robot := s.Connect(t, l.Dial())
		l.Cut()
		failed := 0
		for range 300 { // 30 s, 30 MB
			if robot.Publish("camera", make([]byte, 100_000)) != nil {
				failed++
			}
			pass(100 * time.Millisecond)
		}
		// Options say that nothing is kept for later once the loss is known.
		if failed < 235 {
			t.Errorf("%d of 300 messages refused, want all but those of the first 6 s", failed)
		}
		for range 20 { // a link that flaps
			l.Mend()
			l.Cut()
			pass(50 * time.Millisecond)
			l.Mend()
			pass(5 * time.Millisecond)
			l.Cut()
		}
		l.Mend()
		natstest.Eventually(t, 10*time.Second, "the connection to be back", robot.IsConnected)
	})
}

// A server that restarts in virtual time, over a link that is broken meanwhile.
func TestRestartInVirtualTime(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T) {
		s := natstest.Start(t, natstest.Token("secret"))
		l := s.Link("robot")
		robot, other := s.Connect(t, l.Dial()), s.Connect(t)
		l.Break()
		s.Stop()
		pass(time.Minute)
		s.Restart(t)
		natstest.Eventually(t, time.Second, "the other connection to be back", other.IsConnected)
		if robot.IsConnected() {
			t.Error("connected over a broken link")
		}
		l.Mend()
		natstest.Eventually(t, time.Second, "the robot to be back", robot.IsConnected)
	})
}
