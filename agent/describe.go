package agent

import (
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// asksMetadata reports whether a request asks the backend and not its model.
func asksMetadata(r messages.Request) bool {
	return r.Class == messages.Inference && r.ContentType == messages.MetadataType
}

// describe answers a question to the backend itself. Nothing is executed, so it counts
// neither as served nor into the time of a request.
func (r *replica) describe(e *execution) (resp backend.Response, fault *messages.Error, took time.Duration) {
	if len(e.body) > 0 {
		return resp, messages.Errorf(messages.CodeBadRequest, "a request with content type %s asks the backend and not its model: found a body of %d bytes, expected none", messages.MetadataType, len(e.body)), 0
	}
	d, ok := r.server.(backend.Describer)
	if !ok {
		return resp, messages.Errorf(messages.CodeBadRequest, "handler %q has no metadata; backends for openpi and the Open Inference Protocol have", r.task.HandlerName()), 0
	}
	var err error
	func() {
		defer r.recovered("Describe", &err)
		resp, err = d.Describe(e.ctx)
	}()
	e.returned.Store(true)
	return resp, r.fault(e, err), 0
}
