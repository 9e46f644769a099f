package simulate

import (
	"context"
	"math"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// Options says what is simulated. The zero value serves every task, at the model's pace,
// and answers with "ok".
type Options struct {
	// Name is the handler's; "" means messages.AnyHandler: it serves whatever no other
	// handler of the agent does.
	Name string
	// Link adds the transfer of a request and the latency of its environment, as if the
	// network were between caller and agent. Leave it out where a real network is.
	Link bool
	// Scale multiplies every time; 0 means 1. 0.01 makes hours of training minutes.
	Scale float64
	// Echo answers with the request's body, otherwise with Reply.
	Echo bool
	// Reply is the answer; nil means "ok".
	Reply []byte
	// Steps is in how many steps a job reports its progress; 0 means 10.
	Steps int
}

// New makes a handler. It starts nothing; what is wrong with the options is returned by
// Open.
func New(o Options) backend.Handler {
	if o.Name == "" {
		o.Name = messages.AnyHandler
	}
	if o.Scale == 0 {
		o.Scale = 1
	}
	if o.Reply == nil {
		o.Reply = []byte("ok")
	}
	if o.Steps == 0 {
		o.Steps = 10
	}
	return handler{o}
}

// Delay is the time that the model gives one request of a task on an environment, ms:
// the work alone, or with link the transfer and the latency too. It is +Inf where
// something that the task needs is not there at all.
func Delay(t messages.Task, e messages.Environment, link bool) float64 {
	ms := over(t.WorkGFLOP(), e.Capacity.Compute)
	if link {
		ms += over(t.TransferKbit(), e.Capacity.Network) + e.Latency
	}
	return ms
}

// over divides what is needed by what is there; nothing takes no time anywhere.
func over(need, have float64) float64 {
	if need == 0 {
		return 0
	}
	return need / have
}

type handler struct{ o Options }

func (h handler) Name() string { return h.o.Name }

// Open reckons the service time of the task on the agent's environment.
func (h handler) Open(_ context.Context, open backend.Open) (backend.Server, error) {
	if h.o.Scale < 0 || math.IsNaN(h.o.Scale) || math.IsInf(h.o.Scale, 0) {
		return nil, messages.Errorf(messages.CodeBadRequest, "simulate: scale: found %v, allowed is 0 or more", h.o.Scale)
	}
	if h.o.Steps < 0 {
		return nil, messages.Errorf(messages.CodeBadRequest, "simulate: steps: found %d, allowed is 0 or more", h.o.Steps)
	}
	ms := Delay(open.Task, open.Environment, h.o.Link)
	if math.IsInf(ms, 0) || math.IsNaN(ms) {
		return nil, messages.Errorf(messages.CodeBadRequest, "simulate: task %q needs %v GFLOP and %v kbit a request, and environment %q has %v TFLOPS and %v Mbps; give it some",
			open.Task.Name, open.Task.WorkGFLOP(), open.Task.TransferKbit(), open.Environment.ID, open.Environment.Capacity.Compute, open.Environment.Capacity.Network)
	}
	return server{h.o, messages.Millis(ms * h.o.Scale)}, nil
}

type server struct {
	o     Options
	takes time.Duration
}

// Serve waits for the service time and answers.
func (s server) Serve(ctx context.Context, req *backend.Request) (backend.Response, error) {
	steps := 1
	reports := req.Class == messages.Training || req.Stream
	if reports {
		steps = s.o.Steps
	}
	// Every step ends at its own time after the start, so that the small delays of many
	// steps do not add up.
	start := time.Now()
	for i := 1; i <= steps; i++ {
		end := time.Duration(float64(s.takes) * float64(i) / float64(steps))
		if err := wait(ctx, end-time.Since(start)); err != nil {
			return backend.Response{}, err
		}
		if reports {
			req.Progress(float64(i)/float64(steps), "")
		}
	}
	if s.o.Echo {
		return backend.Response{Body: req.Body}, nil
	}
	return backend.Response{Body: s.o.Reply, ContentType: "text/plain"}, nil
}

// ServeBatch takes as long as one request after the other: the model knows no gain from
// batches.
func (s server) ServeBatch(ctx context.Context, reqs []*backend.Request) []backend.Result {
	results := make([]backend.Result, len(reqs))
	for i, req := range reqs {
		results[i].Response, results[i].Err = s.Serve(ctx, req)
	}
	return results
}

func (s server) Close() error { return nil }

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
