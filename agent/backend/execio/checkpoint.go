package execio

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// restore writes the newest checkpoint of a job to a file for the child, and returns its
// name, "" where there is none, and how to remove it.
func (c *child) restore(ctx context.Context, req *backend.Request) (name string, remove func(), err error) {
	remove = func() {}
	if req.Restore == nil || req.Class != messages.Training {
		return "", remove, nil
	}
	from, err := req.Restore(ctx)
	if err != nil || from == nil {
		return "", remove, err
	}
	defer from.Close()
	dir, err := os.MkdirTemp("", "fleetbus-job-")
	if err != nil {
		return "", remove, err
	}
	remove = func() { _ = os.RemoveAll(dir) } // the directory of temporary files is swept by the system, too
	name = filepath.Join(dir, "checkpoint")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		if _, err = io.Copy(file, from); err == nil {
			err = file.Close()
		} else {
			_ = file.Close() // the first error is the one to report
		}
	}
	if err != nil {
		remove()
		return "", func() {}, messages.Errorf(messages.CodeUnavailable, "the checkpoint of job %s could not be written for the child: %v", req.ID, err)
	}
	return name, remove, nil
}

// checkpoint stores what the child has sent, or the file that it names, and tells it.
func (c *child) checkpoint(h header, call *call, body []byte) {
	answer := header{Type: typeCheckpointed, ID: h.ID}
	fail := func(err error) {
		bad := messages.AsError(err, messages.CodeUnavailable)
		answer.Code, answer.Message = string(bad.Code), bad.Message
		c.o.Logger.Warn("checkpoint not stored", "handler", c.o.Name, "process", c.process.Pid, "error", err)
	}
	tell := func() { _ = c.send(call.ctx, []frame{{header: answer}}) } // else the child, or the job, has ended
	if call.req.Checkpoint == nil {
		fail(messages.Errorf(messages.CodeBadRequest, "a checkpoint of request %d: only jobs have checkpoints", h.ID))
		go tell() // the reader must not wait for the writer
		return
	}
	if call.storing.Swap(true) {
		fail(messages.Errorf(messages.CodeConflict, "a checkpoint of request %d is being stored; wait for its checkpointed frame", h.ID))
		go tell()
		return
	}
	go func() {
		defer tell()
		defer call.storing.Store(false)
		var from io.Reader = bytes.NewReader(body)
		if h.File != "" {
			name := h.File
			if !filepath.IsAbs(name) {
				name = filepath.Join(c.o.Dir, name)
			}
			file, err := os.Open(name)
			if err != nil {
				fail(messages.Errorf(messages.CodeBadRequest, "the checkpoint of request %d: %v", h.ID, err))
				return
			}
			defer file.Close()
			from = file
		}
		if err := call.req.Checkpoint(call.ctx, from); err != nil {
			fail(err)
		}
	}()
}
