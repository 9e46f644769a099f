package mail

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail/order"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// Times of mail. They depend on one another:
//
//   - HandleTime is what a handler has for a message.
//   - straightTime is how long a sender waits for the answer of a receiver that took the
//     message straight. Then the message is stored as well: its receiver may hang. It is
//     under what a dead link takes to be noticed (4 to 6 s), and may be under HandleTime: the
//     second copy is known as one.
//   - pingEvery is how often a receiver makes sure how old a message can be that reaches it
//     straight. LeastExpiry is twice that, or everything would expire.
//   - lookEvery is how often a receiver looks into its box unasked: what a lost word costs.
//   - renewEvery keeps the note of who has an inbox from growing older than mail.
//   - askTime bounds one question to the server, retryFirst to retryMost the wait after a
//     failure.
const (
	HandleTime  = 10 * time.Second
	LeastExpiry = 2 * pingEvery

	straightTime = 2 * time.Second
	pingEvery    = time.Second
	lookEvery    = time.Minute
	renewEvery   = 24 * time.Hour
	askTime      = 5 * time.Second
	rivalLooks   = 4 // after 0, 0.2, 0.6 and 1.4 s: a server that runs has stored a note by then
	retryFirst   = 200 * time.Millisecond
	retryMost    = 10 * time.Second
)

// intake is how many messages may have reached a receiver straight and not be handled yet;
// each sender has one at most. What is over that waits in the box.
const intake = 1024

// Handler handles a message; nil says that it was. See the package's documentation for what
// an error does.
type Handler func(ctx context.Context, m *Message) error

// Message is a message that has come.
type Message struct {
	From        string
	ID          string // of its sender's choice, the same for every copy
	Body        []byte // the handler's, to keep
	ContentType string
	Traceparent string
	Waited      bool // it was stored: the receiver was not there when it was sent
}

// Config is what a peer needs to know. Fleet and Name are needed.
type Config struct {
	Fleet string
	Site  string // where it is; "": messages.DefaultSite
	Name  string // of the agent, or whatever else sends or receives

	// Handler receives. nil: this peer only sends.
	Handler Handler

	// Programs makes the peer serve programs beside it that know nothing but NATS: what they
	// ask on mail.post is sent, and, without a Handler, what comes is asked on mail.read.
	Programs bool

	Replicas int          // of streams that it has to make; 0: see bus.New
	Logger   *slog.Logger // nil: slog.Default()
}

func (c Config) normal() (Config, error) {
	if c.Site == "" {
		c.Site = messages.DefaultSite
	}
	for _, n := range []struct{ what, name string }{{"fleet", c.Fleet}, {"site", c.Site}, {"sender", c.Name}} {
		if err := messages.CheckName(n.what, n.name); err != nil {
			return c, err
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Peer sends and receives under a name. Its methods may be called from many goroutines.
type Peer struct {
	nc    *nats.Conn
	cfg   Config
	err   error
	ran   atomic.Bool
	ready chan struct{} // closed when it may send
	gone  chan struct{} // closed when Run has returned
	b     *bus.Bus
	token string // tells this process's notes from those of others of its name
	clock bus.Clock
	bad   bus.Garbage
	wake  chan struct{} // look into the box
	rival chan struct{} // another process of this name has begun

	mu    sync.Mutex
	life  messages.Fence // of this sender; see order.Mark
	note  uint64         // sequence of the newest note of this process
	lanes map[address]*lane
	waits map[string][]chan messages.MailReply // by id: who waits for the end of a message
	again chan struct{}                        // closed when the connection is back, and made anew

	handling sync.Mutex // one message at a time; guards inbox
	inbox    order.Inbox
}

// address is a receiver in a site.
type address struct{ site, name string }

// New makes a peer. It starts nothing and sends nothing; what is wrong with cfg is returned
// by Run. The connection stays the caller's; make it with [bus.Connect].
func New(nc *nats.Conn, cfg Config) *Peer {
	cfg, err := cfg.normal()
	p := &Peer{nc: nc, cfg: cfg, err: err, ready: make(chan struct{}), gone: make(chan struct{}), token: nuid.Next(),
		wake: make(chan struct{}, 1), rival: make(chan struct{}, 1), lanes: make(map[address]*lane), waits: make(map[string][]chan messages.MailReply), again: make(chan struct{})}
	if cfg.Programs && cfg.Handler == nil {
		p.cfg.Handler = p.pass
	}
	return p
}

// Ready waits until the peer may send, and receives.
func (p *Peer) Ready(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-p.gone:
		return messages.Errorf(messages.CodeUnavailable, "mail of %q: Run has returned", p.cfg.Name)
	case <-ctx.Done():
		return bus.Explain(ctx.Err(), "wait until mail of "+p.cfg.Name+" can be sent")
	}
}

// Run sends and receives until ctx ends, and returns nil when all is gone; a handler that
// is called then gets the end of its context. Other errors are a wrong configuration, conflict
// where another process receives under this name, and unavailable where the connection was
// closed. It may be called once.
func (p *Peer) Run(ctx context.Context) error {
	if p.err != nil {
		return p.err
	}
	if p.ran.Swap(true) {
		return messages.Errorf(messages.CodeConflict, "mail of %q was run before; make a new peer", p.cfg.Name)
	}
	defer close(p.gone)
	status := p.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer p.nc.RemoveStatusListener(status)
	if p.nc.IsClosed() {
		return p.closed()
	}
	var err error
	if p.b, err = bus.New(p.nc, p.cfg.Fleet, p.cfg.Replicas); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	in := &incoming{now: make(chan *nats.Msg, intake), words: make(chan *nats.Msg, intake), posts: make(chan *nats.Msg, intake)}
	since := time.Now() // before it nothing was sent here
	end, err := p.subscribe(in)
	defer end()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	run := func(f func(context.Context)) { wg.Go(func() { f(ctx) }) }
	back := make(chan struct{}, 1) // the connection is back
	run(func(ctx context.Context) { p.watch(ctx, stop, status, back) })
	run(func(ctx context.Context) { p.listen(ctx, in.words) })
	if p.begin(ctx) {
		if p.cfg.Handler != nil {
			straight := make(chan arrived, intake)
			pongs := make(chan time.Time)
			run(func(ctx context.Context) { p.ping(ctx, pongs) })
			run(func(ctx context.Context) { p.takeIn(ctx, since, in.now, pongs, straight) })
			run(func(ctx context.Context) { p.handleStraight(ctx, straight) })
			run(p.drainBox)
		}
		if p.cfg.Programs {
			run(func(ctx context.Context) { p.servePosts(ctx, in.posts) })
		}
		close(p.ready)
		p.keepNote(ctx, stop, back)
	}
	wg.Wait()
	if fault := context.Cause(ctx); messages.CodeOf(fault) == messages.CodeConflict || messages.CodeOf(fault) == messages.CodeUnavailable {
		return fault
	}
	return nil
}

func (p *Peer) closed() error {
	return messages.Errorf(messages.CodeUnavailable, "the connection of the mail of %q is closed and will not come back; connect with nats.MaxReconnects(-1)", p.cfg.Name)
}

// incoming are the messages of each subscription.
type incoming struct{ now, words, posts chan *nats.Msg }

// subscribe subscribes to all that concerns this name.
func (p *Peer) subscribe(in *incoming) (end func(), err error) {
	var subs []*nats.Subscription
	end = func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // fails only where the connection is closed
		}
	}
	add := func(s messages.Subject, to chan *nats.Msg) {
		if err != nil {
			return
		}
		var sub *nats.Subscription
		if sub, err = p.nc.ChanSubscribe(s.String(), to); err == nil {
			subs = append(subs, sub)
		} else {
			err = bus.Explain(err, "subscribe to "+s.String())
		}
	}
	done := p.b.Subject(messages.KindMailDone, "") // of all sites
	done.Origin = p.cfg.Name
	add(done, in.words)
	if p.cfg.Handler != nil {
		for _, s := range []struct {
			kind messages.Kind
			to   chan *nats.Msg
		}{{messages.KindMail, in.now}, {messages.KindMailWake, in.words}} {
			add(p.own(s.kind), s.to)
		}
		add(p.lifeSubject(), in.words)
	}
	if p.cfg.Programs {
		post := p.b.Subject(messages.KindMailPost, p.cfg.Site)
		post.Origin = p.cfg.Name
		add(post, in.posts)
	}
	return end, err
}

// own is a subject of what is for this name, in its own site.
func (p *Peer) own(kind messages.Kind) messages.Subject {
	s := p.b.Subject(kind, p.cfg.Site)
	s.Agent = p.cfg.Name
	return s
}

func (p *Peer) lifeSubject() messages.Subject {
	s := p.b.Subject(messages.KindMailLife, p.cfg.Site)
	s.Origin = p.cfg.Name
	return s
}

// watch follows the connection.
func (p *Peer) watch(ctx context.Context, stop context.CancelCauseFunc, status <-chan nats.Status, back chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-status:
			if !ok || s == nats.CLOSED {
				stop(p.closed())
				return
			}
			p.b.Forget()
			poke(p.wake)
			poke(back)
			p.mu.Lock()
			close(p.again)
			p.again = make(chan struct{})
			p.mu.Unlock()
		}
	}
}

// listen takes what others say.
func (p *Peer) listen(ctx context.Context, words <-chan *nats.Msg) {
	for {
		var m *nats.Msg
		select {
		case <-ctx.Done():
			return
		case m = <-words:
		}
		s, err := messages.ParseSubject(m.Subject)
		if err != nil {
			p.bad.Note(p.cfg.Logger, "mail", err)
			continue
		}
		switch s.Kind {
		case messages.KindMailDone:
			r, err := messages.ParseMailReply(messages.Header(m.Header))
			if err != nil {
				p.bad.Note(p.cfg.Logger, "mail", err)
				continue
			}
			p.settled(address{s.Site, s.Agent}, s.ID, r)
		case messages.KindMailWake:
			poke(p.wake)
		case messages.KindMailLife:
			if id := m.Header.Get(messages.HeaderID); id != p.token && m.Header.Get(messages.HeaderKind) == receives {
				poke(p.rival)
			}
		}
	}
}

// receives is the kind of a note of a process that receives.
const receives = "inbox"

func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// sleep waits for d, and reports whether ctx lasts.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
