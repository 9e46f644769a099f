package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
)

// The faults that FB_FAULT plants in an executor that keeps a history, so that a test
// can see the checker catch them.
const (
	faultEnv   = "FB_FAULT"
	faultDrop  = "drop"  // one inference in faultEvery is begun and never answered
	faultTwice = "twice" // one action in faultEvery is executed twice
	faultLate  = "late"  // an action goes on for faultTime after it was told to end
	faultEvery = 20
	faultTime  = time.Second
)

// recorded wraps a handler so that it writes what it executes into a history, as a
// user's own executor would: outside of agent and router, which the history is to judge.
func recorded(h backend.Handler, w *history.Writer) (backend.Handler, error) {
	fault := os.Getenv(faultEnv)
	switch fault {
	case "", faultDrop, faultTwice, faultLate:
	default:
		return nil, messages.Errorf(messages.CodeBadRequest, "%s: found %q, allowed are %s, %s, %s", faultEnv, fault, faultDrop, faultTwice, faultLate)
	}
	return recordedHandler{h, w, fault}, nil
}

type recordedHandler struct {
	backend.Handler
	w     *history.Writer
	fault string
}

func (h recordedHandler) Open(ctx context.Context, open backend.Open) (backend.Server, error) {
	s, err := h.Handler.Open(ctx, open)
	if err != nil {
		return nil, err
	}
	return recordedServer{s, h.w, h.fault}, nil
}

type recordedServer struct {
	backend.Server
	w     *history.Writer
	fault string
}

// Done and Describe are those of the server that is wrapped, where it has them.
func (s recordedServer) Done() <-chan struct{} {
	if d, ok := s.Server.(backend.Dying); ok {
		return d.Done()
	}
	return nil // it never dies
}

// Err tells why the server has died.
func (s recordedServer) Err() error {
	if d, ok := s.Server.(backend.Dying); ok {
		return d.Err()
	}
	return nil
}

// Describe returns what the server says of itself.
func (s recordedServer) Describe(ctx context.Context) (backend.Response, error) {
	if d, ok := s.Server.(backend.Describer); ok {
		return d.Describe(ctx)
	}
	return backend.Response{}, messages.Errorf(messages.CodeBadRequest, "this handler has no metadata")
}

func (s recordedServer) Serve(ctx context.Context, req *backend.Request) (backend.Response, error) {
	if s.fault == faultTwice && req.Class == messages.Action && chosen(fmt.Sprint(req.Episode, req.Seq)) {
		if resp, err := s.once(ctx, req); err != nil {
			return resp, err
		}
	}
	if s.fault == faultDrop && req.Class == messages.Inference && chosen(req.ID) {
		s.begin(req)
		<-ctx.Done() // begun, and never answered in time
		return backend.Response{}, ctx.Err()
	}
	return s.once(ctx, req)
}

// chosen picks one in faultEvery, the same ones on every attempt.
func chosen(id string) bool {
	h := fnv.New32a()
	h.Write([]byte(id))
	return h.Sum32()%faultEvery == 0
}

func (s recordedServer) begin(req *backend.Request) history.Record {
	r := history.Record{
		Kind: history.Begin, ID: req.ID, Class: req.Class, Task: req.Task, Origin: req.Origin,
		Episode: req.Episode, Seq: req.Seq, Attempt: req.Attempt, Sum: crc32.ChecksumIEEE(req.Body),
	}
	s.w.Write(r) // before the side effect: what was written may have run, what was not has not
	return r
}

func (s recordedServer) once(ctx context.Context, req *backend.Request) (backend.Response, error) {
	r := s.begin(req)
	resp, err := s.Server.Serve(ctx, req)
	if s.fault == faultLate && req.Class == messages.Action {
		<-time.After(faultTime)
	}
	r.Kind = history.End
	if err != nil {
		r.Code, r.Text = messages.AsError(err, messages.CodeBackendFailed).Code, err.Error()
	}
	s.w.Write(r)
	return resp, err
}
