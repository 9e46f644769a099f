package openpi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/router/gateway"
	"github.com/nats-io/nuid"
)

// The defaults of [Config]. A cold model takes minutes with its first observation, as it
// does without a door; later ones have the task's own deadline. A client waits for the first
// ready replica for as long as a model may load. 64 robots are many for one policy; each at
// 15 to 50 Hz.
const (
	DefaultFirstDeadline = 5 * time.Minute
	DefaultHold          = 15 * time.Minute
	DefaultMaxConns      = 64
	DefaultRate          = 200
)

// Sticky says what a session does.
type Sticky string

// The kinds of sessions. StickyOff: every observation goes to the best replica.
// StickyPrefer: to the same agent as the one before, while it can serve. StickyOnly: to the
// same agent, or to nobody.
const (
	StickyOff    Sticky = "off"
	StickyPrefer Sticky = "prefer"
	StickyOnly   Sticky = "only"
)

// Config is what a door needs to know. Task is needed.
type Config struct {
	Task          string
	Deadline      time.Duration // that an observation may take, failovers included; 0: the task's own
	FirstDeadline time.Duration // that the first one of a connection may take; 0: DefaultFirstDeadline
	Hold          time.Duration // how long a client waits for a ready replica; 0: DefaultHold
	Sticky        Sticky        // "": StickyOff
	Metadata      []byte        // sent instead of what a replica says; nil: what it says

	Keys     gateway.Keys // who may connect; the zero value: everybody
	MaxConns int          // clients at once; 0: DefaultMaxConns
	MaxBody  int          // bytes of an observation; 0: what fits into a message
	Rate     float64      // observations a second of one client, which then waits; 0: DefaultRate

	Logger *slog.Logger // nil: slog.Default()
}

// roomForHeaders is what a message has beside an observation, bytes; far more than it needs.
const roomForHeaders = 4096

// normal returns c with the defaults filled in, or what is wrong with it. most is the
// server's max_payload.
func (c Config) normal(most int64) (Config, error) {
	if err := messages.CheckName("task", c.Task); err != nil {
		return c, err
	}
	if c.FirstDeadline == 0 {
		c.FirstDeadline = max(DefaultFirstDeadline, c.Deadline)
	}
	if c.Hold == 0 {
		c.Hold = DefaultHold
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"deadline", c.Deadline}, {"first deadline", c.FirstDeadline}, {"hold", c.Hold}} {
		if d.d < 0 || d.d > router.MaxDeadline {
			return c, messages.Errorf(messages.CodeBadRequest, "%s: found %v, allowed is more than 0, up to %v", d.name, d.d, router.MaxDeadline)
		}
	}
	switch c.Sticky {
	case "":
		c.Sticky = StickyOff
	case StickyOff, StickyPrefer, StickyOnly:
	default:
		return c, messages.Errorf(messages.CodeBadRequest, "sticky: found %q, allowed are off, prefer, only", c.Sticky)
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	fits := int(most) - roomForHeaders
	if c.MaxBody == 0 {
		c.MaxBody = fits
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.MaxConns < 0 || c.MaxBody < 0 || c.Rate < 0 {
		return c, messages.Errorf(messages.CodeBadRequest, "connections, body and rate: found %d, %d, %v; allowed is more than 0", c.MaxConns, c.MaxBody, c.Rate)
	}
	if c.MaxBody > fits {
		return c, messages.Errorf(messages.CodeBadRequest, "body: found %d bytes, allowed are %d (the server's max_payload of %d less %d for headers); raise max_payload (up to 8 MB)", c.MaxBody, fits, most, roomForHeaders)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Gateway is the door. It is an http.Handler; [Gateway.Run] serves it.
type Gateway struct {
	c    *router.Client
	cfg  Config
	err  error // of the configuration
	room chan struct{}

	work     context.Context // ends when sessions must
	giveUp   context.CancelFunc
	stopping chan struct{} // closed when no more observations are taken
	once     sync.Once

	mu       sync.Mutex
	closed   bool
	sessions sync.WaitGroup // Add only under mu and while not closed
	metadata metadata

	stats struct{ observations, answers, failed atomic.Uint64 }
}

// New makes a door that asks with c, which somebody else runs. maxPayload is that of c's
// connection. It starts nothing; a wrong Config is reported by Run.
func New(c *router.Client, maxPayload int64, cfg Config) *Gateway {
	g := &Gateway{c: c, stopping: make(chan struct{})}
	g.cfg, g.err = cfg.normal(maxPayload)
	g.room = make(chan struct{}, max(1, g.cfg.MaxConns))
	g.work, g.giveUp = context.WithCancel(context.Background())
	return g
}

// Stats counts what came through the door.
type Stats struct {
	Clients      int    // connected now
	Observations uint64 // taken
	Answers      uint64
	Failed       uint64 // that ended their connection
}

// Stats returns the counts since the door was made.
func (g *Gateway) Stats() Stats {
	return Stats{Clients: len(g.room), Observations: g.stats.observations.Load(), Answers: g.stats.answers.Load(), Failed: g.stats.failed.Load()}
}

// drainTime is how long clients are served on when the door is told to stop: an
// observation under way is answered.
const drainTime = 10 * time.Second

// Run serves l until ctx ends. Then it takes no more clients and observations, answers what
// it has within drainTime, closes the connections as "going away", and returns when all is
// gone. It closes l.
func (g *Gateway) Run(ctx context.Context, l net.Listener, tls gateway.TLS) error {
	if g.err != nil {
		l.Close()
		return g.err
	}
	defer g.giveUp()
	err := gateway.Serve(ctx, l, g, tls, g.cfg.Logger)
	g.once.Do(func() { close(g.stopping) })
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		g.sessions.Wait()
		close(gone)
	}()
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
		g.cfg.Logger.Warn("observations were still under way when the time to drain was over", "clients", len(g.room))
	}
	g.giveUp()
	<-gone
	return err
}

// ServeHTTP lets a client in.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == openpiwire.HealthPath {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, openpiwire.HealthBody)
		return
	}
	if !g.cfg.Keys.Allow(r) {
		w.Header().Set("WWW-Authenticate", "Api-Key")
		http.Error(w, "unauthorized: send a header Authorization: Api-Key … with a key of this gateway", http.StatusUnauthorized)
		return
	}
	if !g.enter() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("busy: this gateway has %d clients already, or stops; raise its limit of connections", cap(g.room)), http.StatusServiceUnavailable)
		return
	}
	defer g.leave()
	wire, err := openpiwire.Accept(w, r, g.cfg.MaxBody)
	if err != nil {
		g.cfg.Logger.Debug("not a WebSocket client", "client", r.RemoteAddr, "error", err)
		return
	}
	s := &session{g: g, wire: wire, id: nuid.Next(), log: g.cfg.Logger.With("client", r.RemoteAddr)}
	s.rate.Rate = g.cfg.Rate
	s.run()
}

func (g *Gateway) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	select {
	case g.room <- struct{}{}:
		g.sessions.Add(1)
		return true
	default:
		return false
	}
}

func (g *Gateway) leave() {
	<-g.room
	g.sessions.Done()
}
