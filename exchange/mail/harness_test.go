package mail_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

// TestMain fails on goroutines that are left. Of a server that stopped a moment ago these two
// may be, on a busy machine.
func TestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"))
}

const (
	fleet    = "demo"
	patience = 30 * time.Second
)

var silent = slog.New(slog.DiscardHandler)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// box is a receiver's: it keeps what was handled.
type box struct {
	mu   sync.Mutex
	got  []string
	from []string
	ids  []string
	fail func(m *mail.Message) error
}

func (b *box) handle(_ context.Context, m *mail.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		if err := b.fail(m); err != nil {
			return err
		}
	}
	b.got = append(b.got, string(m.Body))
	b.from = append(b.from, m.From)
	b.ids = append(b.ids, m.ID)
	return nil
}

func (b *box) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...)
}

func (b *box) wait(t *testing.T, n int) []string {
	t.Helper()
	natstest.Eventually(t, patience, fmt.Sprintf("%d messages", n), func() bool { return len(b.all()) >= n })
	return b.all()
}

type running struct {
	*mail.Peer
	nc    *nats.Conn
	end   func()
	ended chan error
}

// register makes an agent known, as it does by itself.
func register(t *testing.T, b *bus.Bus, id, site string) {
	t.Helper()
	data, err := messages.Encode(&messages.Registration{Environment: messages.Environment{ID: id, Tier: messages.Robot, Site: site}})
	must(t, err)
	kv, err := b.KV(within(t), bus.Agents)
	must(t, err)
	_, err = kv.Put(within(t), id, data)
	must(t, err)
}

func newBus(t *testing.T, s *natstest.Server) *bus.Bus {
	t.Helper()
	b, err := bus.New(s.Connect(t), fleet, 1)
	must(t, err)
	return b
}

// start runs a peer until end is called or the test ends; without wants it must end well.
func start(t *testing.T, s *natstest.Server, name string, b *box, change func(*mail.Config), opts ...nats.Option) *running {
	t.Helper()
	cfg := mail.Config{Fleet: fleet, Name: name, Replicas: 1, Logger: silent}
	if b != nil {
		cfg.Handler = b.handle
	}
	if change != nil {
		change(&cfg)
	}
	nc := s.Connect(t, opts...)
	r := &running{Peer: mail.New(nc, cfg), nc: nc, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r.ended <- r.Run(ctx)
	}()
	r.end = sync.OnceFunc(func() {
		cancel()
		<-gone
	})
	t.Cleanup(r.end)
	must(t, r.Ready(within(t)))
	return r
}

func (r *running) send(t *testing.T, to, body string) mail.Receipt {
	t.Helper()
	receipt, err := r.Send(within(t), mail.Letter{To: to, Body: []byte(body)})
	must(t, err)
	return receipt
}
