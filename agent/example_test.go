package agent_test

import (
	"bytes"
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// An edge box that serves a task with a Go function until it is told to stop.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	nc, err := bus.Connect("nats://127.0.0.1:4222", "edge-1")
	if err != nil {
		log.Fatal(err) // says what was tried, why it failed and what to do
	}
	defer nc.Close()

	shout := agent.Func("shout", func(ctx context.Context, req *agent.Request) ([]byte, error) {
		if len(req.Body) == 0 {
			return nil, messages.Errorf(messages.CodeBadRequest, "nothing to shout: the body is empty")
		}
		return bytes.ToUpper(req.Body), nil // in place of a model
	})

	err = agent.New(nc, agent.Config{
		Fleet: "factory",
		Environment: messages.Environment{
			ID: "edge-1", Tier: messages.Edge,
			Capacity: messages.Resources{Compute: 100, Storage: 1000, Network: 100}, // TFLOPS, GB, Mbps
			Latency:  10,                                                            // ms
		},
	}, shout).Run(ctx)
	if err != nil {
		log.Fatal(err)
	}
}
