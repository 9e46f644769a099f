package router

import (
	"log/slog"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Config is what a [Client] or a [Service] needs to know. Fleet is needed; a Client
// needs an Origin too.
type Config struct {
	Fleet  string
	Site   string // where the requests come from: its agents are asked first; "" means messages.DefaultSite
	Origin string // who asks, for subjects and permissions; a Service takes it from each request's subject

	Replicas int // of streams that have to be made; 0: see bus.New

	Logger *slog.Logger // nil: slog.Default()

	// Trace is told what becomes of every request, by the goroutine that serves it: it
	// must return quickly and may be called from many goroutines at once. nil costs
	// nothing.
	Trace func(TraceEvent)

	// MaxInFlight bounds how many requests a Service works on at once; the next one is
	// answered busy. 0: DefaultMaxInFlight. A Client is bounded by its callers.
	MaxInFlight int

	// DrainTimeout bounds how long a Service goes on with what it has when it is told
	// to stop. 0: DefaultDrainTimeout.
	DrainTimeout time.Duration
}

// The defaults of [Config] for a Service. 4,096 requests of DROID's 301 kB are 1.2 GB,
// the most that a router should ever hold. 10 s are longer than the default deadlines
// of inference and action with a limit (1 s or ten times the limit), and well under the
// 30 s after which process supervisors kill.
const (
	DefaultMaxInFlight  = 4096
	DefaultDrainTimeout = 10 * time.Second
)

// MaxDeadline is the longest deadline that an inference or an action may have. What
// takes longer is a training job.
const MaxDeadline = 24 * time.Hour

// TraceKind says what became of a request.
type TraceKind string

// The kinds of trace events. Every inference and every action has exactly one TraceDone,
// which comes last but for TraceLate; a job has a TraceSent when it is stored.
const (
	TraceSent     TraceKind = "sent"     // it left: into a queue, the journal, or (see TraceDirect) straight to an agent
	TraceDirect   TraceKind = "direct"   // it was sent straight to Agent
	TraceRetry    TraceKind = "retry"    // it is sent again, to Agent as Attempt; Cause says why
	TraceAccepted TraceKind = "accepted" // Agent has it as Attempt
	TraceLost     TraceKind = "lost"     // Agent, which had it or may have had it, has no connection
	TraceHung     TraceKind = "hung"     // likewise, and is silent
	TraceDone     TraceKind = "done"     // it ended: answered by Agent, or with Code
	TraceLate     TraceKind = "late"     // a result came after the end, and was dropped
)

// TraceEvent is one thing that became of a request.
type TraceEvent struct {
	Kind    TraceKind
	ID      string
	Class   messages.Class
	Task    string
	Key     string
	Agent   string
	Attempt int
	Code    messages.Code // with TraceDone: of the error; "" where it was answered
	Cause   string        // with TraceDirect and TraceRetry: see route.Cause
	At      time.Time
}

// normal returns c with the defaults filled in, or what is wrong with it.
func (c Config) normal(service bool) (Config, error) {
	if c.Site == "" {
		c.Site = messages.DefaultSite
	}
	if c.Origin == "" && service {
		c.Origin = serviceName
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	if c.DrainTimeout <= 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	for _, n := range []struct{ what, name string }{{"fleet", c.Fleet}, {"site", c.Site}, {"origin", c.Origin}} {
		if err := messages.CheckName(n.what, n.name); err != nil {
			return c, err
		}
	}
	return c, nil
}
