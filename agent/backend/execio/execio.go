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
	Env     []string // "KEY=value", in addition to Environ
	Environ []string // nil: the agent's environment

	ReadyTimeout time.Duration // from the start to the ready frame; 0: DefaultReadyTimeout
	StopTimeout  time.Duration // from SIGTERM to SIGKILL; 0: DefaultStopTimeout
	MaxBody      int           // bytes, in either direction; 0: DefaultMaxBody
	Logger       *slog.Logger  // gets what the child writes to standard error; nil: slog.Default()
	Lines        func(string)  // gets it line by line, too; nil: nobody
	Guard        []string      // command line of a guard, see package proc; nil: none
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
	open.Note("waits for the ready frame of %s", c.name)
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
	if err := c.enter(ctx, req); err != nil {
		return backend.Response{}, err
	}
	id, answers := c.register(ctx, req)
	defer c.forget(id)
	resume, remove, err := c.restore(ctx, req)
	if err != nil {
		c.leave(id)
		return backend.Response{}, err
	}
	defer remove()
	f := requestFrame(ctx, id, req)
	f.header.Resume = resume
	if err := c.send(ctx, []frame{f}); err != nil {
		c.leave(id)
		return backend.Response{}, err
	}
	return c.await(ctx.Done(), ctx.Err, id, answers)
}

// ServeBatch sends several requests to the child, one right after the other, and waits
// for their answers. A request whose own time is over is canceled with the child; the
// others go on.
func (c *child) ServeBatch(ctx context.Context, reqs []*backend.Request) []backend.Result {
	results := make([]backend.Result, len(reqs))
	var frames []frame
	var sent []*backend.Request
	var index []int // of sent, in reqs
	var answers []<-chan answer
	for i, req := range reqs {
		if results[i].Err = c.enter(ctx, req); results[i].Err != nil {
			continue
		}
		id, a := c.register(ctx, req)
		defer c.forget(id)
		frames, sent, index, answers = append(frames, requestFrame(ctx, id, req)), append(sent, req), append(index, i), append(answers, a)
	}
	for i := range frames {
		frames[i].header.Batch = len(frames)
	}
	if len(frames) == 0 {
		return results
	}
	if err := c.send(ctx, frames); err != nil {
		for k, f := range frames {
			c.leave(f.header.ID)
			results[index[k]].Err = err
		}
		return results
	}
	for k, req := range sent {
		// One after the other: the last one's answer ends the call, whatever the order.
		done, why := req.Done, func() error { return context.Canceled }
		if done == nil {
			done, why = ctx.Done(), ctx.Err
		}
		results[index[k]].Response, results[index[k]].Err = c.await(done, why, frames[k].header.ID, answers[k])
	}
	return results
}

// enter takes a place with the child. It is free again when the child has answered, not
// when the caller has gone: what is written to a child that is still at work would be
// begun when its own time is over, and its caller told otherwise.
func (c *child) enter(ctx context.Context, req *backend.Request) error {
	if len(req.Body) > c.o.MaxBody {
		return messages.Errorf(messages.CodePayloadTooLarge, "the request has %d bytes, %s takes %d; raise MaxBody", len(req.Body), c.name, c.o.MaxBody)
	}
	select {
	case c.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.failed()
	}
}

func requestFrame(ctx context.Context, id uint64, req *backend.Request) frame {
	h := header{Type: typeRequest, ID: id, Task: req.Task, Class: string(req.Class), ContentType: req.ContentType,
		Request: req.ID, Attempt: req.Attempt, Origin: req.Origin, Key: req.Key, Seq: req.Seq, Episode: req.Episode, Stream: req.Stream}
	if d, ok := ctx.Deadline(); ok {
		left := max(0, time.Until(d).Milliseconds())
		h.DeadlineMS = &left
	}
	return frame{h, req.Body}
}

// send hands frames to the writer.
func (c *child) send(ctx context.Context, frames []frame) error {
	select {
	case c.out <- frames:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.failed()
	}
}

// await waits for the answer to a request, or until nobody waits for it any more (done,
// and why).
func (c *child) await(done <-chan struct{}, why func() error, id uint64, answers <-chan answer) (backend.Response, error) {
	select {
	case a := <-answers:
		return a.response, a.err
	case <-done:
		c.cancel(id)
		c.expect(id)
		return backend.Response{}, why()
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
