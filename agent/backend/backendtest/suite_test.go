package backendtest

import (
	"context"
	"testing"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// A handler in Go passes the suite: the function is the model.
func TestGoHandler(t *testing.T) {
	Run(t, Kind{
		Start: func(*testing.T) backend.Handler {
			m := new(Model)
			return backend.Func("suite", func(ctx context.Context, req *backend.Request) ([]byte, error) {
				body, err := m.Serve(ctx, req.Body)
				if err != nil && ctx.Err() == nil {
					return nil, messages.Errorf(messages.CodeBackendFailed, "%v", err) // as the agent maps it
				}
				return body, err
			})
		},
		SeesCancel: true,
	})
}
