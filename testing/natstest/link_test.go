package natstest_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// Bytes of a cut link wait; a short cut is not noticed by anybody.
func TestShortCut(t *testing.T) {
	for name, opts := range map[string][]natstest.Option{"tcp": nil, "in process": {natstest.InProcess()}} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			s := natstest.Start(t, opts...)
			l := s.Link("wifi")
			if s.Link("wifi") != l || l.Name() != "wifi" {
				t.Fatal("the same name gave another link")
			}
			robot := s.Connect(t, l.Dial())
			client := s.Connect(t)
			up := must[*nats.Subscription](t)(client.SubscribeSync("up"))
			down := must[*nats.Subscription](t)(robot.SubscribeSync("down"))
			for _, nc := range []*nats.Conn{robot, client} {
				if err := nc.Flush(); err != nil {
					t.Fatal(err)
				}
			}

			l.Cut()
			l.Cut() // does nothing
			if _, err := nats.Connect(s.URL(), l.Dial()); err == nil {
				t.Error("a new connection over a cut link was made")
			}
			for i := range 3 {
				if err := robot.Publish("up", fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
				if err := client.Publish("down", fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := robot.FlushTimeout(20 * time.Millisecond); err == nil {
				t.Error("a flush over a cut link was answered")
			}
			for _, sub := range []*nats.Subscription{up, down} {
				if m, err := sub.NextMsg(20 * time.Millisecond); err == nil {
					t.Errorf("%s arrived over a cut link", m.Subject)
				}
			}

			l.Mend()
			for i := range 3 {
				for _, sub := range []*nats.Subscription{up, down} {
					m, err := sub.NextMsg(patience)
					if err != nil || string(m.Data) != fmt.Sprint(i) {
						t.Fatalf("%s: message %d: %v, %v", sub.Subject, i, m, err)
					}
				}
			}
			if n := robot.Stats().Reconnects; n != 0 {
				t.Errorf("%d reconnects, want none", n)
			}
		})
	}
}

// A long cut is noticed by pings; the client is back after the link is mended, and a
// link does not touch the connections of others.
func TestLongCut(t *testing.T) {
	noLeaks(t)
	s := natstest.Start(t)
	l := s.Link("wifi")
	robot := s.Connect(t, l.Dial(), nats.PingInterval(20*time.Millisecond), nats.MaxPingsOutstanding(1))
	other := s.Connect(t, s.Link("cable").Dial())

	l.Cut()
	natstest.Eventually(t, patience, "the client to notice", func() bool { return !robot.IsConnected() })
	if l.Conns() != 1 {
		t.Errorf("%d connections on the link; want 1, which the server cannot know to be closed", l.Conns())
	}
	l.Mend()
	natstest.Eventually(t, patience, "the client to be back", robot.IsConnected)
	natstest.Eventually(t, patience, "the old connection to end", func() bool { return l.Conns() == 1 })
	if _, err := robot.RTT(); err != nil {
		t.Error(err)
	}
	if other.Stats().Reconnects != 0 {
		t.Error("another link's connection was lost")
	}

	l.Cut()
	l.Break()
	natstest.Eventually(t, patience, "no connection on a broken link", func() bool { return l.Conns() == 0 })
	_, err := nats.Connect(s.URL(), l.Dial(), nats.MaxReconnects(0))
	if err == nil || !strings.Contains(fmt.Sprint(err, robot.LastError()), "refused") && err != nats.ErrNoServers {
		t.Errorf("error %v, want a refused connection", err)
	}
	l.Mend()
	natstest.Eventually(t, patience, "the client to be back", robot.IsConnected)
}

// Large payloads pass unchanged in both directions, in order.
func TestLinkCarriesEveryByte(t *testing.T) {
	noLeaks(t)
	s := natstest.Start(t)
	robot := s.Connect(t, s.Link("wifi").Dial())
	must[*nats.Subscription](t)(robot.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }))
	if err := robot.Flush(); err != nil {
		t.Fatal(err)
	}
	client := s.Connect(t)
	for _, size := range []int{0, 1, 301_436, 4 << 20} {
		body := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
		reply, err := client.Request("echo", body, patience)
		if err != nil || !bytes.Equal(reply.Data, body) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
}
