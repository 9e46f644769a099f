package router_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/lab"
	"github.com/nats-io/nats.go"
)

// Bodies of all sizes up to the payload limit come back byte for byte, through the router's
// NATS door and the Go client, by the queue and straight; over the limit the error has the
// sizes, and what to raise.
func TestBytes(t *testing.T) {
	const most, forHeaders = 8 << 20, 4096
	// An agent that sends 8 MB on a busy machine answers no probe for so long that it may look
	// hung. What is tested here is what comes back, not when.
	const tries, hung = 5, "was hung while it had the request"
	l := lab.New(t)
	service := router.NewService(l.Conn(), router.Config{Fleet: lab.Fleet, Origin: "router", Logger: lab.Log()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := service.Client().Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	echo := func(_ context.Context, r *agent.Request) ([]byte, error) { return r.Body, nil }
	for _, delivery := range []messages.Delivery{"", messages.Direct} {
		task := messages.Task{Name: "echo" + string(delivery), Class: messages.Inference, Demand: messages.Resources{Compute: 1, Storage: 1, Network: 1}, Delivery: delivery}
		agent := l.Agent("edge-"+task.Name, task, agent.Func(task.Name, echo))
		l.Place(task, "edge-"+task.Name)
		c, nc := l.Client("lab"), l.Conn()
		knows := func(r messages.TaskRoute) bool { return r.Task.Name == task.Name }
		for changed := service.Client().RoutesChanged(); !slices.ContainsFunc(service.Client().Routes().Tasks, knows); changed = service.Client().RoutesChanged() {
			<-changed // it was there before the task was
		}
		door := func(body []byte) ([]byte, string) {
			m := &nats.Msg{Subject: "fb." + lab.Fleet + "." + messages.DefaultSite + ".req.inference.lab." + task.Name, Data: body, Header: nats.Header{"Fb-Left-Ms": {"20000"}}}
			for again := tries; ; again-- {
				answer, err := nc.RequestMsg(m, lab.Patience)
				if err != nil {
					t.Fatal(err)
				}
				failed := answer.Header.Get("Fb-Error") + answer.Header.Get("Fb-Error-Message")
				if strings.Contains(failed, hung) && again > 0 {
					continue
				}
				return answer.Data, failed
			}
		}
		seed := uint64(time.Now().UnixNano())
		dice := rand.New(rand.NewPCG(seed, 0))
		for _, n := range backendtest.Sizes(most-forHeaders, dice) {
			body := backendtest.Random(n, dice)
			if got, failed := door(body); failed != "" || !bytes.Equal(got, body) {
				t.Fatalf("seed %d, NATS, %s: %d bytes came back as %d others: %s", seed, task.Name, n, len(got), failed)
			}
			answer, err := c.Infer(t.Context(), router.Inference{Task: task.Name, Body: body, Deadline: 20 * time.Second})
			for again := tries; err != nil && strings.Contains(err.Error(), hung) && again > 0; again-- {
				answer, err = c.Infer(t.Context(), router.Inference{Task: task.Name, Body: body, Deadline: 20 * time.Second})
			}
			if err != nil || !bytes.Equal(answer.Body, body) {
				t.Fatalf("seed %d, Go, %s: %d bytes did not come back: %v", seed, task.Name, n, err)
			}
		}
		for _, n := range []int{most - 64, most} { // it fits to the router, and no further; or not at all
			_, err := c.Infer(t.Context(), router.Inference{Task: task.Name, Body: make([]byte, n)})
			backendtest.WantError(t, err, messages.CodePayloadTooLarge, "raise max_payload")
		}
		if _, failed := door(make([]byte, most-64)); failed == "" || failed[:len(messages.CodePayloadTooLarge)] != string(messages.CodePayloadTooLarge) {
			t.Errorf("NATS, %s: %s", task.Name, failed)
		}
		agent.Stop()
	}
}
