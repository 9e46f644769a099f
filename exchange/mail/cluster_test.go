package mail_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// Of three servers the one stops that leads the site's mail, while messages wait and more
// are sent. What Send took arrives, once and in order; and who is there is reached without
// the stream.
func TestServerOfThreeStops(t *testing.T) {
	cluster := natstest.StartCluster(t, 3)
	admin, err := bus.New(cluster.Connect(t), fleet, 0)
	must(t, err)
	must(t, admin.Mail(within(t), messages.DefaultSite))
	leader := cluster.Leader(t, bus.MailStreamName(fleet, messages.DefaultSite))
	run := func(server int, name string, b *box) *mail.Peer {
		t.Helper()
		cfg := mail.Config{Fleet: fleet, Name: name, Logger: silent}
		if b != nil {
			cfg.Handler = b.handle
		}
		p := mail.New(cluster.ConnectTo(t, server), cfg)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		must(t, p.Ready(within(t)))
		return p
	}
	var here, away box
	run((leader+1)%3, "here", &here)
	s := run((leader+2)%3, "s1", nil)
	send := func(to string, i int) {
		t.Helper()
		id := fmt.Sprintf("%s-%d", to, i)
		natstest.Eventually(t, patience, "message "+id+" to be taken", func() bool {
			// The same id: what was stored without a word is not handled twice.
			_, err := s.Send(within(t), mail.Letter{To: to, Site: messages.DefaultSite, Body: []byte(id), ID: id})
			return err == nil
		})
	}
	const n = 40
	for i := range n {
		send("away", i)
		send("here", i)
		if i == n/2 {
			cluster.StopServer(leader)
		}
	}
	run((leader+1)%3, "away", &away)
	for to, b := range map[string]*box{"here": &here, "away": &away} {
		got := b.wait(t, n)
		for i := range got {
			if got[i] != fmt.Sprintf("%s-%d", to, i) {
				t.Fatalf("%s: %d is %q of %q", to, i, got[i], got)
			}
		}
	}
}
