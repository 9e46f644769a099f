package agent

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/latch"
	"github.com/fleetbus/fleetbus/agent/monitor"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// What users need to write a handler; see package [backend].
type (
	Handler   = backend.Handler
	Server    = backend.Server
	Dying     = backend.Dying
	Open      = backend.Open
	Request   = backend.Request
	Response  = backend.Response
	Batcher   = backend.Batcher
	Describer = backend.Describer
	Result    = backend.Result
	Deployer  = backend.Deployer
)

// Func makes a handler of a Go function that answers bytes with bytes; see
// [backend.Func].
func Func(name string, f func(ctx context.Context, req *Request) ([]byte, error)) Handler {
	return backend.Func(name, f)
}

// BatchFunc makes a handler of a Go function that answers several requests with one call,
// for tasks that declare max_batch; see [backend.BatchFunc].
func BatchFunc(name string, f func(ctx context.Context, reqs []*Request) ([][]byte, error)) Handler {
	return backend.BatchFunc(name, f)
}

// The defaults of [Config]. They depend on one another: an agent that is told to stop
// first waits HandoverWait for the coordinator to move its replicas (two to three
// heartbeats: one is enough to tell it, a document and a loaded replica elsewhere take
// the rest), then finishes what it has until DrainTimeout is over, counted from the
// start. 30 s is what process supervisors wait before they kill.
const (
	DefaultHandoverWait = 3 * time.Second
	DefaultDrainTimeout = 30 * time.Second
)

// Config is what an agent needs to know. Fleet and Environment are needed, the rest has
// defaults.
type Config struct {
	Fleet       string
	Environment messages.Environment // Handlers, Runs and Version are filled in

	// BeatConn is a connection of its own for heartbeats, so that a large body cannot
	// hold them up. nil: the agent's connection.
	BeatConn *nats.Conn

	// Of a robot, and only there. SafetyConn is a connection that carries nothing but orders
	// to stop and pings, so that a full data connection cannot delay a stop. nil: the agent
	// opens one like the one it was given.
	SafetyConn *nats.Conn

	// StateDir is a directory in which a robot keeps why it is stopped, so that this
	// outlives a restart of the agent while there is no link. "": only what the fleet's
	// buckets know outlives it.
	StateDir string

	// ReEngage is after how long a link that was lost, and has been well since, the robot
	// takes actions again by itself. 0: never, only `fleetbus release` ends it.
	ReEngage time.Duration

	// LinkHooks are what tasks may name in on_link_loss. What they do is said here and
	// nowhere else: a task cannot bring a command of its own.
	LinkHooks map[string]LinkHook

	// Deployer starts what tasks bring, on this machine and with this program's rights. nil:
	// nobody's; whoever may apply tasks gets no further than the handlers.
	Deployer Deployer

	Host    string // for the error of an agent that another took the place of; "": the host's name
	Version string // of the program, for people

	HandoverWait time.Duration // 0: DefaultHandoverWait; negative: none
	DrainTimeout time.Duration // 0: DefaultDrainTimeout; from the end of Run's ctx to its return
	Replicas     int           // of streams and buckets that the agent has to make; 0: see bus.New

	Logger  *slog.Logger              // nil: slog.Default()
	Foreign func() messages.Resources // what others than our replicas use, measured; nil: nothing
	OnServe func(ServeEvent)          // nil: nobody wants to know

	// Monitor reads the machine; whoever made it runs it. What it says that others use counts
	// where it is more than what Foreign says. nil: nothing is read.
	Monitor *monitor.Monitor
	// Outside are the handlers whose work is done by processes that are not children of this
	// one: what those use cannot be told from what others do, and is reckoned.
	Outside []string
	// MeasureLatency has the round trip to the server count in place of the environment's
	// latency.
	MeasureLatency bool
}

// ServeEvent tells that the agent begins, or has ended, to execute a request. OnServe
// is called with it by the goroutine that executes: it must return quickly, and may be
// called from many goroutines at once. The event with Begin comes before the handler is
// called, so a history that misses it proves that the handler was not.
type ServeEvent struct {
	Begin   bool
	ID      string
	Attempt int // of a job: how often it was begun, on any agent
	Class   messages.Class
	Task    string
	Replica string
	Agent   string
	Inc     messages.Incarnation
	Origin  string
	Key     string
	Episode string
	Seq     uint64
	Code    messages.Code // of the error that it ended with; "" where it went well, and with Begin
	Body    []byte        // of the request; must not be kept
}

// normal returns c with the defaults filled in, or what is wrong with it.
func (c Config) normal(handlers []Handler) (Config, map[string]Handler, error) {
	byName := make(map[string]Handler, len(handlers))
	names := make([]string, 0, len(handlers))
	for i, h := range handlers {
		if h == nil {
			return c, nil, messages.Errorf(messages.CodeBadRequest, "handler %d is nil", i+1)
		}
		name := h.Name()
		if name != messages.AnyHandler {
			if err := messages.CheckName("handler", name); err != nil {
				return c, nil, err
			}
		}
		if byName[name] != nil {
			return c, nil, messages.Errorf(messages.CodeBadRequest, "handler %q is given twice; every handler of an agent needs a name of its own", name)
		}
		byName[name] = h
		names = append(names, name)
	}
	if len(names) == 0 && c.Deployer == nil {
		return c, nil, messages.Errorf(messages.CodeBadRequest, "agent %q has no handler; give agent.New at least one, for example agent.Func", c.Environment.ID)
	}
	if err := messages.CheckName("fleet", c.Fleet); err != nil {
		return c, nil, err
	}
	c.Environment = c.Environment.Normal()
	c.Environment.Handlers, c.Environment.Runs = names, c.Deployer != nil
	c.Environment.Version = c.Version
	if err := c.Environment.Check("environment."); err != nil {
		return c, nil, err
	}
	if c.Host == "" {
		c.Host, _ = os.Hostname() // an empty name costs only a word in an error
	}
	if c.HandoverWait == 0 {
		c.HandoverWait = DefaultHandoverWait
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.DrainTimeout < 0 {
		return c, nil, messages.Errorf(messages.CodeBadRequest, "drain timeout: found %v, allowed is more than 0", c.DrainTimeout)
	}
	if c.ReEngage != 0 && c.ReEngage < latch.LeastReEngage {
		return c, nil, messages.Errorf(messages.CodeBadRequest, "re-engage: found %v, allowed are 0 (only a release does it) and %v or more, so that a link that comes and goes engages nothing", c.ReEngage, latch.LeastReEngage)
	}
	for name, hook := range c.LinkHooks {
		if err := messages.CheckName("link hook", name); err != nil {
			return c, nil, err
		}
		if hook == nil || name == messages.LinkStop || name == messages.LinkContinue {
			return c, nil, messages.Errorf(messages.CodeBadRequest, "link hook %q: it is nil, or has a name that means something else (%s, %s); give it a function and another name", name, messages.LinkStop, messages.LinkContinue)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("agent", c.Environment.ID)
	if c.Foreign == nil {
		c.Foreign = func() messages.Resources { return messages.Resources{} }
	}
	return c, byName, nil
}
