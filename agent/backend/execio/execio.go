package execio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// The defaults of [Options]. They depend on one another: an agent has 30 s to drain, so
// a child that ignores SIGTERM must be gone well before. A model may take minutes to
// load; one that takes longer than ReadyTimeout is taken for hung.
const (
	DefaultReadyTimeout = 5 * time.Minute
	DefaultStopTimeout  = 5 * time.Second
)

// Options is how a child process is run. Name and Command are needed.
type Options struct {
	Name    string   // of the handler; messages.AnyHandler serves whatever no other handler does
	Command []string // program and arguments; no shell is involved
	Dir     string   // working directory; "": the agent's
	Env     []string // "KEY=value", in addition to the agent's environment

	ReadyTimeout time.Duration // from the start to the ready frame; 0: DefaultReadyTimeout
	StopTimeout  time.Duration // from SIGTERM to SIGKILL; 0: DefaultStopTimeout
	MaxBody      int           // bytes, in either direction; 0: DefaultMaxBody
	Logger       *slog.Logger  // gets what the child writes to standard error; nil: slog.Default()
}

// New makes a handler that starts one child per replica. It starts nothing; what is
// wrong with the options is returned by Open.
func New(o Options) backend.Handler {
	if o.ReadyTimeout <= 0 {
		o.ReadyTimeout = DefaultReadyTimeout
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = DefaultStopTimeout
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &handler{o}
}

type handler struct{ o Options }

func (h *handler) Name() string { return h.o.Name }

// Open starts a child and waits until it is ready.
func (h *handler) Open(ctx context.Context, open backend.Open) (backend.Server, error) {
	if len(h.o.Command) == 0 || h.o.Command[0] == "" {
		return nil, messages.Errorf(messages.CodeBadRequest, "handler %q has no command; name the program to run", h.o.Name)
	}
	c, err := start(h.o, open)
	if err != nil {
		return nil, messages.Errorf(messages.CodeBackendFailed, "cannot start %s: %v; check the command and its working directory", strings.Join(h.o.Command, " "), err)
	}
	timer := time.NewTimer(h.o.ReadyTimeout)
	defer timer.Stop()
	select {
	case <-c.ready:
		return c, nil
	case <-c.done:
		return nil, messages.Errorf(messages.CodeBackendFailed, "%s ended before it was ready: %v", c.name, c.err)
	case <-timer.C:
		c.kill()
		<-c.done
		return nil, messages.Errorf(messages.CodeBackendFailed, "%s sent no ready frame within %v%s; send one when the model is loaded, or raise the ready timeout", c.name, h.o.ReadyTimeout, c.lastWords())
	case <-ctx.Done():
		c.kill()
		<-c.done
		return nil, ctx.Err()
	}
}

// Serve sends a request to the child and waits for its answer, the end of ctx or the
// end of the child. The body is held until it is written, which a child that does not
// read can delay beyond the return.
func (c *child) Serve(ctx context.Context, req *backend.Request) (backend.Response, error) {
	if len(req.Body) > c.o.MaxBody {
		return backend.Response{}, messages.Errorf(messages.CodePayloadTooLarge, "the request has %d bytes, %s takes %d; raise MaxBody", len(req.Body), c.name, c.o.MaxBody)
	}
	// A place with the child is free again when it has answered, not when its caller has
	// gone: what is written to a child that is still at work would be begun when its own
	// time is over, and its caller told otherwise.
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return backend.Response{}, ctx.Err()
	case <-c.done:
		return backend.Response{}, c.failed()
	}
	id, answers := c.register(req)
	defer c.forget(id)
	h := header{Type: typeRequest, ID: id, Task: req.Task, Class: string(req.Class), ContentType: req.ContentType,
		Request: req.ID, Attempt: req.Attempt, Origin: req.Origin, Key: req.Key, Seq: req.Seq, Episode: req.Episode}
	if d, ok := ctx.Deadline(); ok {
		left := max(0, time.Until(d).Milliseconds())
		h.DeadlineMS = &left
	}
	select {
	case c.out <- frame{h, req.Body}:
	case <-ctx.Done():
		c.leave(id)
		return backend.Response{}, ctx.Err()
	case <-c.done:
		return backend.Response{}, c.failed()
	}
	select {
	case a := <-answers:
		return a.response, a.err
	case <-ctx.Done():
		c.cancel(id)
		c.expect(id)
		return backend.Response{}, ctx.Err()
	case <-c.done:
		// The answer may have been the child's last word.
		select {
		case a := <-answers:
			return a.response, a.err
		default:
			return backend.Response{}, c.failed()
		}
	}
}

// Close ends the child: end of input and SIGTERM, then SIGKILL after StopTimeout.
func (c *child) Close() error {
	c.end.Do(func() { close(c.closing) })
	c.terminate()
	timer := time.NewTimer(c.o.StopTimeout)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
	}
	c.kill()
	<-c.done
	return errors.New(c.name + " ignored SIGTERM for " + c.o.StopTimeout.String() + " and was killed; end when standard input is closed")
}

// Done is closed when the child has ended.
func (c *child) Done() <-chan struct{} { return c.done }

// Err tells why the child has ended; nil before.
func (c *child) Err() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s: %w", c.name, c.err)
	default:
		return nil
	}
}

// failed is what a request gets whose child has ended.
func (c *child) failed() error {
	return messages.Errorf(messages.CodeBackendFailed, "%s ended while it served the request: %v", c.name, c.err)
}
