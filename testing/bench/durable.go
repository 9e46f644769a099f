package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// durable measures inference through the queue against a prioritized pull loop written
// by hand, with the same stream settings.
func durable(args []string, out io.Writer) error {
	f, help, err := parseData("durable", args, []string{"inference/128"}, 15*time.Second, nil)
	if help {
		return nil
	}
	if err != nil {
		return err
	}
	return f.run("durable", 1, out, (*stage).durable)
}

func (s *stage) durable(ctx context.Context, f dataFlags) (list []figure, err error) {
	// One slot: the hand-written loop has one pull out too.
	task := messages.Task{Name: benchTask, Class: messages.Inference, Deadline: 2000}
	if _, err := s.agent(ctx, task, 0, part{Name: "edge", Bare: true, Fault: f.fault}); err != nil {
		return nil, err
	}
	if err := s.routes(ctx, task, "edge"); err != nil {
		return nil, err
	}
	ours, stop, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	nc, err := bus.Connect(s.url, "by hand")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	bare, err := newBareClient(ctx, nc)
	if err != nil {
		return nil, err
	}
	for _, name := range f.cases {
		times, err := serial(ctx, f.time, 128, 50, ours.infer, bare.ask)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, latencies("durable", name, times[0], times[1])...)
		list = append(list, newFigure("durable", name, "rate", 1/average(times[0]).Seconds(), "1/s", 1/average(times[1]).Seconds()))
	}
	return list, nil
}

func average(times []time.Duration) (d time.Duration) {
	for _, t := range times {
		d += t
	}
	return d / time.Duration(max(1, len(times)))
}
