package main

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
)

// apply applies tasks, and returns the revision of the last entry that was written.
func (p *parts) apply(tasks ...messages.Task) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := coordinator.Apply(ctx, p.b, tasks, nil); err != nil {
		return 0, err
	}
	d, err := coordinator.ReadDesired(ctx, p.b)
	if err != nil {
		return 0, err
	}
	newest := uint64(0)
	for _, t := range d.Tasks {
		newest = max(newest, t.Revision)
	}
	return newest, nil
}
