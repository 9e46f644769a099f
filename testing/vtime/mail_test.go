package vtime_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// mailbox keeps what a receiver has handled, and when.
type mailbox struct {
	mu   sync.Mutex
	got  []string
	when []time.Time
}

func (m *mailbox) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

// forEver lifts the age limit of a site's mail. The server compares ages with the real clock
// as soon as some message has a TTL, and in virtual time all is decades old.
func forEver(t *testing.T, b *bus.Bus) {
	t.Helper()
	check(t, b.Mail(within(t, time.Minute), site))
	cfg := must[jetstream.Stream](t)(b.JS.Stream(within(t, time.Minute), bus.MailStreamName(fleet, site))).CachedInfo().Config
	cfg.MaxAge = 0
	must[jetstream.Stream](t)(b.JS.UpdateStream(within(t, time.Minute), cfg))
}

// peer runs one until the test ends, or end is called.
func peer(t *testing.T, s *natstest.Server, name string, box *mailbox, opts ...nats.Option) (p *mail.Peer, end func()) {
	t.Helper()
	cfg := mail.Config{Fleet: fleet, Name: name, Logger: slog.New(slog.DiscardHandler)}
	if box != nil {
		cfg.Handler = func(_ context.Context, m *mail.Message) error {
			box.mu.Lock()
			defer box.mu.Unlock()
			box.got, box.when = append(box.got, string(m.Body)), append(box.when, time.Now())
			return nil
		}
	}
	p = mail.New(s.Connect(t, opts...), cfg)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { gone <- p.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-gone; err != nil {
			t.Errorf("peer %s: %v", name, err)
		}
	})
	t.Cleanup(end)
	check(t, p.Ready(within(t, time.Minute)))
	return p, end
}

// Messages wait for hours and expire when they are asked to, whatever the clocks of the
// hosts say; the sender learns both. What is left of a message counts on while it waits.
func TestMailWaitsAndExpires(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Hour, -time.Hour} {
		bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
			forEver(t, b)
			link := s.Link("robot")
			sender, _ := peer(t, s, "s1", nil)
			var box mailbox
			_, end := peer(t, s, "r1", &box, skewed(link, skew))
			end()
			send := func(body string, expires time.Duration) mail.Receipt {
				t.Helper()
				return must[mail.Receipt](t)(sender.Send(within(t, time.Minute), mail.Letter{To: "r1", Body: []byte(body), Expires: expires}))
			}
			short, long, never := send("short", 2*time.Hour), send("long", 4*time.Hour), send("never", 0)
			for _, r := range []mail.Receipt{short, long, never} {
				if r.State != messages.MailWaiting {
					t.Errorf("%+v", r)
				}
			}
			pass(3 * time.Hour)
			_, end = peer(t, s, "r1", &box, skewed(link, skew))
			for _, r := range []mail.Receipt{long, never} {
				if r, err := sender.Wait(within(t, time.Minute), r); err != nil || r.State != messages.MailDelivered {
					t.Errorf("%+v %v", r, err)
				}
			}
			if r, err := sender.Wait(within(t, time.Minute), short); messages.CodeOf(err) != messages.CodeExpired || r.State != messages.MailExpired {
				t.Errorf("%+v %v", r, err)
			}
			end()
			// Its sender also learns it where the receiver never comes back, and not much later.
			begun := time.Now()
			gone := send("gone", time.Minute)
			r, err := sender.Wait(within(t, time.Hour), gone)
			if messages.CodeOf(err) != messages.CodeExpired || r.State != messages.MailExpired || time.Since(begun) > 90*time.Second {
				t.Errorf("%+v %v after %v", r, err, time.Since(begun))
			}
			if got := box.all(); !slices.Equal(got, []string{"long", "never"}) {
				t.Errorf("skew %v: handled %q", skew, got)
			}
		})
	}
}

// A message that lay in a cut link, or in the buffers of its receiver, is not begun after
// its time; it is not lost without a word either.
func TestMailInCutLink(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		forEver(t, b)
		link := s.Link("robot")
		sender, _ := peer(t, s, "s1", nil)
		var box mailbox
		peer(t, s, "r1", &box, link.Dial())
		pass(5 * time.Second)
		var dead []time.Time
		for _, cut := range []time.Duration{time.Second, 3 * time.Second, 30 * time.Second} {
			link.Cut()
			begun := time.Now()
			r, err := sender.Send(within(t, time.Minute), mail.Letter{To: "r1", Body: []byte("x"), Expires: 2500 * time.Millisecond})
			if err != nil && messages.CodeOf(err) != messages.CodeExpired {
				t.Errorf("cut for %v: %+v %v", cut, r, err)
			}
			if rest := cut - time.Since(begun); rest > 0 {
				pass(rest)
			}
			link.Mend()
			pass(20 * time.Second)
			end, err := sender.Wait(within(t, time.Minute), r)
			if end.State != messages.MailDelivered && end.State != messages.MailExpired {
				t.Errorf("cut for %v: %+v %v", cut, end, err)
			}
			dead = append(dead, begun.Add(2500*time.Millisecond))
			if n := len(box.all()); n > len(dead) {
				t.Fatalf("%d were handled of %d", n, len(dead))
			}
		}
		for _, w := range box.when {
			if !slices.ContainsFunc(dead, func(d time.Time) bool { return w.Before(d) && d.Sub(w) < 2500*time.Millisecond }) {
				t.Errorf("one was begun at %v, the times were over at %v", w, dead)
			}
		}
	})
}

// A word that is lost costs a minute: the receiver looks into its box unasked.
func TestMailIsFoundUnasked(t *testing.T) {
	bubble(t, func(t *testing.T, s *natstest.Server, b *bus.Bus) {
		var box mailbox
		peer(t, s, "r1", &box)
		pass(time.Second)
		m := &nats.Msg{Subject: "fb.demo.main.mail.box.r1.s1", Header: nats.Header(messages.Mail{ID: "a1", Left: messages.NoDeadline}.Header()), Data: []byte("x")}
		must[bool](t)(b.StoreMail(within(t, time.Minute), m, "a1", 0))
		pass(61 * time.Second)
		if got := box.all(); len(got) != 1 {
			t.Errorf("handled %q", got)
		}
	})
}
