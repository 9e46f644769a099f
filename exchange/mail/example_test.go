package mail_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// Two robots tell each other what they do.
func Example() {
	nc, err := bus.Connect("nats://127.0.0.1:4222", "robot-1 mail")
	if err != nil {
		fmt.Println(err) // what was tried, why it failed, what to do
		return
	}
	defer nc.Close()
	peer := mail.New(nc, mail.Config{Fleet: "fleet", Name: "robot-1", Handler: func(_ context.Context, m *mail.Message) error {
		fmt.Printf("%s writes: %s\n", m.From, m.Body)
		return nil // it was handled
	}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil { // Run returns when everything of it is gone
			fmt.Println(err)
		}
	}()

	receipt, err := peer.Send(ctx, mail.Letter{To: "robot-2", Body: []byte("aisle 4 is mine"), Expires: time.Minute})
	switch {
	case errors.Is(err, &messages.Error{Code: messages.CodeBusy}):
		fmt.Println("robot-2 has been away for long: its box is full")
	case err != nil:
		fmt.Println(err)
	case receipt.State == messages.MailWaiting:
		fmt.Println("robot-2 is away; it gets it when it is back within a minute")
		if receipt, err = peer.Wait(ctx, receipt); err != nil {
			fmt.Println(receipt.State, err)
		}
	default:
		fmt.Println("robot-2 has it")
	}
}
