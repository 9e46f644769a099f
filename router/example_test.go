package router_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
)

// A robot's control program asks a model for every observation and commands its arm.
func Example() {
	nc, err := bus.Connect("nats://127.0.0.1:4222", "arm-1 control")
	if err != nil {
		fmt.Println(err) // what was tried, why it failed, what to do
		return
	}
	defer nc.Close()

	client := router.NewClient(nc, router.Config{Fleet: "fleet", Origin: "arm-1"})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil { // Run returns when everything of it is gone
			fmt.Println(err)
		}
	}()
	ready, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := client.Ready(ready); err != nil {
		fmt.Println(err)
		return
	}

	answer, err := client.Infer(ctx, router.Inference{Task: "grasp", Key: "camera-0", Body: []byte("observation"), Deadline: 200 * time.Millisecond})
	switch {
	case errors.Is(err, &messages.Error{Code: messages.CodeSuperseded}):
		return // a newer observation is on its way
	case err != nil:
		fmt.Println(err)
		return
	}
	_, err = client.Act(ctx, router.Action{Robot: "arm-1", Task: "move", Episode: "pick-7", Seq: 1, Body: answer.Body})
	if errors.Is(err, &messages.Error{Code: messages.CodeUnknownOutcome}) {
		fmt.Println("look where the arm is before moving it again")
	}
}

// Training waits in a queue until somebody can take it, and survives every process. The
// key makes a repeated submission the same job.
func ExampleClient_Submit() {
	var client *router.Client // see the package's example

	ctx := context.Background()
	id, err := client.Submit(ctx, router.Job{Task: "finetune", Key: "run-2026-11", Body: []byte(`{"epochs": 3}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	job, err := client.Wait(ctx, id, func(p messages.Progress) { fmt.Printf("%3.0f %% %s\n", 100*p.Done, p.Note) })
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(job.State, job.Reason, len(job.Result))
}

// A service makes the fleet reachable for any NATS client in any language.
func ExampleService() {
	nc, err := bus.Connect("nats://127.0.0.1:4222", "router-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	ctx, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	if err := router.NewService(nc, router.Config{Fleet: "fleet", Origin: "router-1"}).Run(ctx); err != nil {
		fmt.Println(err)
	}
}
