package backend

import (
	"context"

	"github.com/fleetbus/fleetbus/messages"
)

// Batcher is implemented by a Server that can serve several requests with one call, as a
// model on a GPU does. A task that declares max_batch is served so, and by no other
// server: what comes within its max_wait goes into one call, up to max_batch requests.
//
// ServeBatch is called by up to Task.Lanes goroutines at once, with at least one request,
// and returns one [Result] for each, in their order; another number fails them all. ctx
// ends when nobody waits for any of them any more, at the latest of their deadlines. The
// context of one of them alone is [Request.Done].
type Batcher interface {
	ServeBatch(ctx context.Context, reqs []*Request) []Result
}

// Result is what became of one request of a batch. An Err is mapped like one that Serve
// returns; it is this request's alone.
type Result struct {
	Response Response
	Err      error
}

// BatchFunc makes a handler of a Go function that answers several bodies at once: one
// answer for each request, in their order. An error is every request's. It also serves
// tasks without max_batch, one by one.
func BatchFunc(name string, f func(ctx context.Context, reqs []*Request) ([][]byte, error)) Handler {
	return batchHandler{name, f}
}

type batchHandler struct {
	name string
	f    func(ctx context.Context, reqs []*Request) ([][]byte, error)
}

func (h batchHandler) Name() string                               { return h.name }
func (h batchHandler) Open(context.Context, Open) (Server, error) { return h, nil }
func (h batchHandler) Close() error                               { return nil }

func (h batchHandler) Serve(ctx context.Context, req *Request) (Response, error) {
	r := h.ServeBatch(ctx, []*Request{req})[0]
	return r.Response, r.Err
}

func (h batchHandler) ServeBatch(ctx context.Context, reqs []*Request) []Result {
	bodies, err := h.f(ctx, reqs)
	if err == nil && len(bodies) != len(reqs) {
		err = messages.Errorf(messages.CodeBackendFailed, "handler %q answered %d of %d requests; return one body for each", h.name, len(bodies), len(reqs))
	}
	results := make([]Result, len(reqs))
	for i := range results {
		if results[i].Err = err; err == nil {
			results[i].Response.Body = bodies[i]
		}
	}
	return results
}
