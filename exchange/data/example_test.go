package data_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// A program gives a map to all robots, and waits until the last one has it.
func Example() {
	nc, err := bus.Connect("nats://127.0.0.1:4222", "map maker")
	if err != nil {
		fmt.Println(err) // what was tried, why it failed, what to do
		return
	}
	defer nc.Close()
	b, err := bus.New(nc, "fleet", 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	store := data.NewStore(b)
	ctx := context.Background()

	file, err := os.Open("hall-2.map")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer file.Close()
	robots := messages.Audience{Tiers: []messages.Tier{messages.Robot}}
	record, err := store.Put(ctx, data.Body{Name: "hall-2", For: robots}, file)
	if errors.Is(err, &messages.Error{Code: messages.CodeConflict}) {
		fmt.Println("somebody else wrote it meanwhile: look at theirs first")
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("revision", record.Rev, record.Digest)

	_, lines, err := store.Status(ctx, "hall-2")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range lines {
		fmt.Printf("%s is %s: %d revisions, %d bytes and %v behind\n", l.Agent, l.State, l.Revisions, l.Bytes, l.Behind)
	}
}

// On every robot; `fleetbus agent` does this by itself.
func ExampleHolder() {
	nc, err := bus.Connect("nats://127.0.0.1:4222", "robot-1 data") // that carries nothing else
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	holder := data.NewHolder(nc, data.HolderConfig{
		Fleet: "fleet", Environment: messages.Environment{ID: "robot-1", Tier: messages.Robot}, Dir: "/var/lib/robot/data",
		OnChange: func(r data.Record, path string) { fmt.Println("load", path, "revision", r.Rev) },
	})
	if err := holder.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
}
