package backend

import (
	"context"
	"fmt"
	"io"

	"github.com/fleetbus/fleetbus/messages"
)

// Handler offers to serve tasks under a name. Open is called when a replica is placed
// on the agent and returns when it is ready to serve: a model may take minutes to load.
// Its ctx ends when the replica is no longer wanted. Open may be called again after the
// Server was closed, and for several replicas at once.
type Handler interface {
	Name() string // messages.AnyHandler serves whatever no other handler does
	Open(ctx context.Context, open Open) (Server, error)
}

// Open is what a handler is told about the replica that it is to serve.
type Open struct {
	Replica     string
	Task        messages.Task
	Environment messages.Environment // of the agent

	// Loading tells how far the handler is while Open runs, in a few words for people: a
	// model that loads, a server that does not answer yet. It goes out with the heartbeats
	// (`fleetbus placements` shows it), may be called often and by any goroutine, and may be
	// nil: use [Open.Note].
	Loading func(note string)

	// Fetched tells what share of what is to be fetched is there, 0 to 1, while Open runs. A
	// coordinator waits for what grows, however slow the link is. It may be nil, like Loading.
	Fetched func(done float64)
}

// Note tells how far the handler is, where somebody wants to know.
func (o Open) Note(format string, args ...any) {
	if o.Loading != nil {
		o.Loading(fmt.Sprintf(format, args...))
	}
}

// Deployer serves the tasks that bring what serves them (Task.Run). Open is that of a
// [Handler]. Placed is told which tasks the agent is to run whenever that changes, before
// any of them is opened; it must return at once.
type Deployer interface {
	Open(ctx context.Context, open Open) (Server, error)
	Placed(tasks []messages.Task)
}

// Server serves the requests of one replica. Serve is called by up to Task.Slots
// goroutines at once. The deadline of ctx is the request's, on this machine's clock; it
// is also cancelled when the caller gives up. A returned *messages.Error reaches the
// caller as it is, any other error as backend_failed.
//
// Close is called once, after the last Serve has returned, and releases everything.
type Server interface {
	Serve(ctx context.Context, req *Request) (Response, error)
	Close() error
}

// Dying is implemented by a Server that can end by itself (a child process). Done is
// closed when it has; Err tells why. The agent then reports the replica as failed and
// opens the handler again with back-off.
type Dying interface {
	Done() <-chan struct{}
	Err() error
}

// Describer is implemented by a Server that can say what its model server says of itself:
// the metadata frame of an openpi policy server, the metadata of a model that speaks the
// Open Inference Protocol. Whoever asks sends an inference with an empty body and the
// content type [messages.MetadataType]; the agent then calls Describe and not Serve. It
// should answer from memory.
type Describer interface {
	Describe(ctx context.Context) (Response, error)
}

// Request is one request to serve. Body must not be modified or kept after Serve.
type Request struct {
	messages.Request
	Body []byte

	// Progress reports how far the request has come (0 to 1) with a note for people. It is
	// never nil, costs little, and may be called from any goroutine while Serve runs. The
	// newest report is sent ten times a second: of a job to whoever watches it, of other
	// requests only to a caller who asked for it (Stream).
	Progress func(done float64, note string)

	// Partial sends a partial result, with its content type ("": the request's), to a
	// caller who asked for them (Stream); with any other it does nothing, so that a handler
	// may call it always. It is never nil and may be called from any goroutine while Serve
	// runs; parts arrive in the order of the calls, each once or, where a connection is lost,
	// not at all, which the caller sees by their numbers. The result is sent all the same
	// and should be whole in itself. An error is for the handler's information:
	// payload_too_large, unavailable, or conflict after the end. The body is not kept.
	Partial func(body []byte, contentType string) error

	// Log keeps a line for whoever watches a job, now or later; with any other request it
	// does nothing. It is never nil, costs little, and may be called from any goroutine while
	// Serve runs. What comes faster than 64 KiB in a tenth of a second is dropped.
	Log func(line string)

	// Checkpoint stores what a job has done so far: all of r, in place of the checkpoint
	// before. When it returns without an error, an attempt that begins after this one has
	// died, on whatever agent, finds it with Restore; after an error the one before stands.
	// It is never nil; one call at a time is carried out. Errors: bad_request where the
	// request is no job, conflict where another attempt has the job now (ctx of Serve has
	// ended then), unavailable.
	Checkpoint func(ctx context.Context, r io.Reader) error

	// Restore returns the newest checkpoint of the job, to be closed by the caller; nil where
	// there is none, and the job begins from nothing. Its digest is checked as it is read: a
	// read error means that it must not be used. Where it cannot be read for some 10 s the
	// error is unavailable, and the attempt ends without being counted: ctx of Serve has ended
	// then. It is never nil.
	Restore func(ctx context.Context) (io.ReadCloser, error)

	// Done, in a batch, is closed when nobody waits for this request any more; ctx goes on
	// for the others. nil elsewhere.
	Done <-chan struct{}
}

// Response is the answer. Body may not be modified after it was returned.
type Response struct {
	Body        []byte
	ContentType string // "" passes the request's on
}

// Func makes a handler of a Go function that answers bytes with bytes.
func Func(name string, f func(ctx context.Context, req *Request) ([]byte, error)) Handler {
	return funcHandler{name, f}
}

type funcHandler struct {
	name string
	f    func(ctx context.Context, req *Request) ([]byte, error)
}

func (h funcHandler) Name() string                               { return h.name }
func (h funcHandler) Open(context.Context, Open) (Server, error) { return h, nil }
func (h funcHandler) Close() error                               { return nil }

func (h funcHandler) Serve(ctx context.Context, req *Request) (Response, error) {
	body, err := h.f(ctx, req)
	return Response{Body: body}, err
}
